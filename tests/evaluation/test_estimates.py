"""How sure a metric is, and which of two systems is better: against brute force."""

import itertools

import numpy as np
import pytest

from mmaudio.evaluation.metrics import (
    Estimate,
    bootstrap_interval,
    compare_systems,
    frechet_distance,
    frechet_estimate,
    inception_estimate,
    inception_score,
    kernel_distance,
    kernel_estimate,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* clips are fewer than the .* dimensions")


def names(count, prefix="clip"):
    return [f"{prefix}{i:03d}" for i in range(count)]


def weighted_frechet(x, y, w, v):
    """The distance with row weights, from eigenvalues of the product of covariances."""
    moments = []
    for rows, weight in ((x, w / w.sum()), (y, v / v.sum())):
        mean = weight @ rows
        moments.append((mean, (rows - mean).T @ ((rows - mean) * weight[:, None]) * len(rows) / (len(rows) - 1)))
    (m1, s1), (m2, s2) = moments
    cross = np.sqrt(np.linalg.eigvals(s1 @ s2).real.clip(min=0)).sum()
    return np.square(m1 - m2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross


def weighted_kernel(x, y, w, v, width):
    def mean(a, b, p, q, same):
        near = np.exp(-np.square(a[:, None] - b).sum(2) / (2 * width**2 + 1e-8))
        share = np.outer(p, q) * (1 - np.eye(len(a)) if same else 1)
        return (near * share).sum() / share.sum()

    return 100 * (mean(x, x, w, w, True) + mean(y, y, v, v, True) - 2 * mean(x, y, w, v, False))


@pytest.mark.parametrize(("count", "width"), [(30, 4), (7, 10)])
def test_shares_are_the_change_with_a_clips_weight(count, width):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.3, 1.5, (count, width)), rng.normal(size=(count + 2, width))
    frechet = frechet_estimate(x, y, names(count), names(count + 2))
    kernel = kernel_estimate(x, y, names(count), names(count + 2))
    assert frechet.value == pytest.approx(frechet_distance(x, y))
    assert kernel.value == pytest.approx(kernel_distance(x, y))
    assert frechet.shares.sum() == pytest.approx(0, abs=1e-9)
    apart = np.sort(np.linalg.norm(y[:, None] - y, axis=2)[np.triu_indices(count + 2, 1)])
    median = apart[(len(apart) - 1) // 2]
    for clip in (0, 3, count):  # the last is only in the reference
        step = 1e-4
        sides = []
        for sign in (1, -1):
            w, v = np.ones(count), np.ones(count + 2)
            w[clip : clip + 1] += sign * step
            v[clip] += sign * step
            sides.append((weighted_frechet(x, y, w, v), weighted_kernel(x, y, w, v, median)))
        change = (np.array(sides[0]) - sides[1]) / (2 * step)
        assert [frechet.shares[clip], kernel.shares[clip]] == pytest.approx(change, rel=1e-3, abs=1e-5)


def test_an_interval_is_as_wide_as_fresh_clips_vary():
    rng = np.random.default_rng(1)

    def system(count=120):
        y = rng.normal(size=(count, 5))
        x = 0.8 * y + rng.normal(0.4, 0.8, (count, 5))  # a clip's two sounds have something in common
        return (
            frechet_estimate(x, y, names(count), names(count)),
            kernel_estimate(x, y, names(count), names(count)),
            inception_estimate(4 * x, names(count)),
        )

    for metric in zip(*(system() for _ in range(100)), strict=True):
        spread = np.std([estimate.value for estimate in metric])
        widths = [np.subtract(*estimate.interval(resamples=200)[::-1]) for estimate in metric[:10]]
        assert np.mean(widths) == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_the_interval_of_a_mean_is_the_plain_bootstrap():
    values = np.random.default_rng(2).exponential(size=50)
    estimate = Estimate.mean(names(50), values)
    assert estimate.value == values.mean()
    assert estimate.interval() == pytest.approx(bootstrap_interval(lambda rows: values[rows].mean(), 50))
    with pytest.raises(ValueError, match="expected finite values, got 1 of 2"):
        Estimate.mean(names(2), np.array([1, np.nan]))
    with pytest.raises(ValueError, match="a clip's name for each of 3 rows, got 2"):
        Estimate.mean(names(2), np.ones(3))


def test_the_interval_of_a_mean_stays_within_its_values():
    values = np.array([1.0, 1.0, 1.0, 1.0, 0.5])
    unbounded = [bootstrap_interval(lambda rows: values[rows].mean(), 5, seed=seed)[1] for seed in range(5)]
    assert max(unbounded) > 1  # the resampled means are moved by a trifle
    assert max(Estimate.mean(names(5), values).interval(seed=seed)[1] for seed in range(5)) == 1
    assert Estimate.mean(names(5), 1 - values).interval(seed=int(np.argmax(unbounded)))[0] == 0


def test_rows_of_one_clip_are_drawn_together():
    rows = np.repeat(np.random.default_rng(3).normal(size=(40, 3)), 4, axis=0)  # four windows, all the same
    windows = np.repeat(names(40), 4)
    grouped = Estimate.mean(windows, rows[:, 0])
    assert grouped.clips == tuple(names(40))
    assert grouped.interval() == pytest.approx(Estimate.mean(names(40), rows[::4, 0]).interval())
    other = np.random.default_rng(4).normal(1, 1, (30, 3))
    estimate = frechet_estimate(rows, other, windows, names(30))
    assert len(estimate.clips) == 40  # thirty of them are on both sides


def test_inception_shares_are_those_of_leaving_one_out():
    logits = np.random.default_rng(5).normal(0, 3, (60, 8))
    estimate = inception_estimate(logits, names(60))
    assert estimate.value == inception_score(logits)[0]
    order = np.random.RandomState(2020).permutation(60)
    part = logits[order[6:12]]
    p = np.exp(part) / np.exp(part).sum(1, keepdims=True)

    def score(p):
        return np.exp((p * np.log(p / p.mean(0))).sum(1).mean())

    without = np.array([score(np.delete(p, i, axis=0)) for i in range(6)])
    np.testing.assert_allclose(estimate.shares[order[6:12]], (without.mean() - without) * 5 / 6 / 10)
    few = inception_estimate(logits[:40], names(40))  # four to a part
    assert np.isnan(few.interval()).all()
    with pytest.raises(ValueError, match="40 clips are too few"):
        compare_systems(few, few)


def test_the_p_value_is_that_of_all_flips():
    rng = np.random.default_rng(6)
    first, second = rng.normal(0.5, 1, 10), rng.normal(0, 1, 10)
    found = compare_systems(Estimate.mean(names(10), first), Estimate.mean(names(10), second))
    apart = first - second
    flipped = [np.dot(signs, apart) for signs in itertools.product((1, -1), repeat=10)]
    assert found.p == pytest.approx(np.mean(np.abs(flipped) >= abs(apart.sum()) - 1e-12), abs=0.015)
    assert found.difference == pytest.approx(apart.mean())
    assert (found.low, found.high) == pytest.approx(bootstrap_interval(lambda rows: apart[rows].mean(), 10))
    assert found.clips == 10


def test_systems_that_differ_are_told_apart_and_equal_ones_are_not():
    rng = np.random.default_rng(7)
    y = rng.normal(size=(200, 4))
    good, bad = y + rng.normal(0, 0.5, y.shape), y + rng.normal(0.3, 0.8, y.shape)
    better, worse = (frechet_estimate(x, y, names(200), names(200)) for x in (good, bad))
    found = compare_systems(better, worse)
    assert found.difference < found.high < 0
    assert found.p < 0.01
    same = compare_systems(better, better)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    alike = [frechet_estimate(y + rng.normal(0, 0.5, y.shape), y, names(200), names(200)) for _ in range(2)]
    assert compare_systems(*alike).p > 0.05


def test_only_the_same_clips_are_compared():
    a, b = Estimate.mean(names(4), np.arange(4.0)), Estimate.mean(names(3, "other"), np.ones(3))
    with pytest.raises(ValueError, match=r"different clips \(4 only in the first, 3 only in the second\)"):
        compare_systems(a, b)

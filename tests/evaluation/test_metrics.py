import warnings

import numpy as np
import pytest

from mmaudio.evaluation.metrics import (
    bootstrap_interval,
    frechet_distance,
    inception_score,
    kl_divergences,
    top_k_share,
)


@pytest.mark.parametrize("name", ["fd_basic", "fd_correlated", "fd_128", "fd_fewer_than_dims", "fd_identical"])
def test_frechet_distance(golden, name):
    case = golden(name)
    generated = case.input("generated")
    reference = generated if case.config.get("identical") else case.input("reference")
    if case.config.get("mix"):
        generated, reference = (x.astype(np.float64) @ case.input("mix") for x in (generated, reference))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        case.check("exact_float64", frechet_distance(generated, reference))
    assert [str(w.message) for w in caught] == (
        ["33 clips are fewer than the 64 dimensions: the Frechet distance is biased"] if "fewer" in name else []
    )


def test_frechet_distance_needs_two_sets_of_the_same_width():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 4\)"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="at least 2 clips"):
        frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))


@pytest.mark.parametrize("name", ["kl", "kl_identical"])
def test_kl(golden, name):
    case = golden(name)
    reference, generated = case.input("reference_logits"), case.input("generated_logits")
    case.check("kl_softmax", kl_divergences(reference, generated).mean())
    case.check("kl_sigmoid_variant", kl_divergences(reference, generated, sigmoid=True).mean())
    case.check("wrong_direction_softmax", kl_divergences(generated, reference).mean())


@pytest.mark.parametrize("name", ["isc", "isc_uneven", "isc_constant"])
def test_inception_score(golden, name):
    case = golden(name)
    mean, std = inception_score(case.input("logits"))
    case.check("mean", mean)
    case.check("std", std)


def test_inception_score_of_sure_rows_is_finite():
    assert inception_score(1e4 * np.tile(np.eye(5), (10, 1)))[0] <= 5
    with pytest.raises(ValueError, match="at least 10 clips, got 9"):
        inception_score(np.zeros((9, 3)))


def test_top_k_share():
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]])
    true = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_equal(top_k_share(scores, true), [1.0, 0.5, 0.0, np.nan])


def test_bootstrap_interval_of_a_mean_is_the_textbook_one():
    x = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(lambda rows: x[rows].mean(), len(x))
    assert low < x.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)
    assert bootstrap_interval(lambda rows: x[rows].mean(), len(x)) == (low, high)
    assert np.isnan(bootstrap_interval(lambda rows: float("nan"), 4)).all()


def test_bootstrap_interval_holds_a_distance_whose_resamples_are_larger():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (60, 12)), rng.normal(0, 1, (60, 12))
    low, high = bootstrap_interval(lambda rows: frechet_distance(x[rows], y[rows]), len(x), resamples=100)
    assert low < frechet_distance(x, y) < high

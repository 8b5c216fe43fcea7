import warnings

import numpy as np
import pytest

from mmaudio.evaluation.metrics import (
    bootstrap_interval,
    cosine_scores,
    desync,
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


def test_kl_of_a_sure_and_an_undecided_system():
    classes = 50
    undecided, sure = np.zeros((3, classes)), 100 * np.eye(classes)[:3]
    np.testing.assert_allclose(kl_divergences(sure, undecided), np.log(classes))
    np.testing.assert_array_equal(kl_divergences(sure, sure), 0)
    # KL(uniform || q) is the mean of -ln C - ln q, with ln q = -100 for all classes but one
    np.testing.assert_allclose(kl_divergences(undecided, sure), 100 * (classes - 1) / classes - np.log(classes))


def test_inception_score_of_one_hot_rows_is_the_number_of_classes_that_are_heard():
    labels = np.arange(200) % 7
    mean, std = inception_score(1000 * np.eye(7)[labels])
    parts = np.array_split(labels[np.random.RandomState(2020).permutation(200)], 10)
    shares = [np.bincount(part, minlength=7) / len(part) for part in parts]
    heard = [np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()) for share in shares]
    assert (mean, std) == pytest.approx((np.mean(heard), np.std(heard)))
    with pytest.raises(ValueError, match="some logits are not finite"):
        inception_score(np.full((20, 3), np.nan))


def test_cosine_scores(golden):
    case = golden("cosine")
    a, b = case.input("a"), case.input("b")
    case.check("per_pair", cosine_scores(a, b))
    case.check("mean", cosine_scores(a, b).mean())
    np.testing.assert_allclose(cosine_scores(a, -3 * a), -1)
    np.testing.assert_array_equal(cosine_scores(np.zeros((2, 4)), np.ones((2, 4))), 0)
    with pytest.raises(ValueError, match=r"expected pairs of embeddings \(N, D\), got \(50, 1024\) and \(49, 1024\)"):
        cosine_scores(a, b[:49])


def test_desync(golden):
    case = golden("desync_rule")
    offsets = np.array(case.outputs["grid"])[np.array(case.outputs["argmax"])]  # (clips, 2 runs)
    case.check("seconds", np.abs(offsets))
    each = desync(list(offsets))
    assert each.shape == (9,)
    case.check("desync", each.mean())
    for unusable in ([np.array([])], [np.array([0.2, np.nan])]):
        with pytest.raises(ValueError, match="clip 0 of 1 has offsets"):
            desync(unusable)

"""Distances between sets, by closed forms and other people's code."""

import numpy as np
import pytest
import scipy.linalg

from mmaudio.evaluation import metrics
from mmaudio.evaluation.metrics import frechet_distance, kernel_distance, median_distance


def exact_gaussian(count, mean, covariance, seed):
    """Rows whose mean and unbiased covariance are these to rounding."""
    z = np.random.default_rng(seed).normal(size=(count, len(mean)))
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    return z @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_known_gaussians():
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])  # they do not commute
    x, y = exact_gaussian(50, np.array([1.0, -2.0]), a, 0), exact_gaussian(70, np.array([0.0, 1.0]), b, 1)
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))  # Tr (AB)^(1/2) of 2 x 2 matrices
    assert frechet_distance(x, y) == pytest.approx(1 + 9 + 3 + 4 - 2 * cross, rel=1e-10)
    assert frechet_distance(x, x + 3) == pytest.approx(18, rel=1e-10)


@pytest.mark.parametrize("count", [200, 9])  # more and fewer than dimensions
@pytest.mark.filterwarnings("ignore:9 clips are fewer")
def test_frechet_distance_is_that_of_the_matrix_square_root(count):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)), rng.normal(1, 2, (150, 12))
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # the root of the product is symmetric positive semi-definite between two of the well-conditioned factor
    half = scipy.linalg.sqrtm(s2)
    cross = scipy.linalg.sqrtm(half @ (s1 + 1e-12 * np.eye(12)) @ half).real.trace()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)


@pytest.mark.parametrize("name", ["kad", "kad_same_distribution"])
def test_kernel_distance(golden, name, monkeypatch):
    case = golden(name)
    generated, reference = case.input("generated"), case.input("reference")
    case.check("bandwidth", median_distance(reference.astype(np.float64)))
    case.check("kad", kernel_distance(generated, reference))
    monkeypatch.setattr(metrics, "BLOCK", 1000)  # a few rows at a time
    case.check("bandwidth", median_distance(reference.astype(np.float64)))
    case.check("kad", kernel_distance(generated, reference))


def test_median_distance_is_the_lower_one():
    rng = np.random.default_rng(3)
    for count in (2, 3, 5, 40, 41):
        rows = rng.normal(size=(count, 3)) * 10.0 ** rng.integers(-8, 8)
        apart = np.sort(np.linalg.norm(rows[:, None] - rows, axis=2)[np.triu_indices(count, 1)])
        assert median_distance(rows) == pytest.approx(apart[(len(apart) - 1) // 2], rel=1e-6)
    assert median_distance(np.ones((4, 2))) == 0


def test_kernel_distance_of_far_clusters_is_the_most_there_is():
    x, y = np.zeros((5, 3)), np.zeros((6, 3))
    x[:, 0], y[:3, 1], y[3:, 1] = 1e6, 1e-3, -1e-3
    # inside x all kernels are 1, across none; of the 15 pairs of y 6 are 0 apart and 9 the median distance
    assert kernel_distance(x, y) == pytest.approx(100 * (1 + (6 + 9 * np.exp(-1 / 2)) / 15), rel=0.01)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_features_that_make_no_set(distance):
    good, bad = np.zeros((3, 2)), np.array([[0, 1], [np.nan, 0], [2, 2.0]])
    with pytest.raises(ValueError, match="1 of 3 reference features are not finite"):
        distance(good, bad)
    with pytest.raises(ValueError, match="at least 2 clips on either side, got 3 and 1"):
        distance(good, good[:1])
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 3\)"):
        distance(good, np.zeros((3, 3)))

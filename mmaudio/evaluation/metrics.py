"""The usual measures of generated sound, as pure functions on arrays: one row a clip."""

import warnings
from collections.abc import Callable

import numpy as np

INCEPTION_SPLITS = 10
INCEPTION_SEED = 2020  # of the permutation that the published figures use


def frechet_distance(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between the Gaussians of two sets of features, (N, D) and (M, D): 0 or more.

    |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2) with unbiased covariances, in float64; the last trace by
    eigen-decomposition, so that rank-deficient covariances are no special case. With fewer clips than dimensions the
    value is large from that alone, and a warning says so.
    """
    x, y = (np.asarray(rows, np.float64) for rows in (generated, reference))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"expected features (N, D) and (M, D), got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a Frechet distance needs at least 2 clips on either side, got {len(x)} and {len(y)}")
    if min(len(x), len(y)) < x.shape[1]:
        warnings.warn(
            f"{min(len(x), len(y))} clips are fewer than the {x.shape[1]} dimensions: the Frechet distance is biased",
            stacklevel=2,
        )
    s1, s2 = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (x, y))  # (D, D)
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(min=0)).sum()
    distance = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * cross
    return max(float(distance), 0.0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def kl_divergences(reference: np.ndarray, generated: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """KL(reference || generated) of every pair of rows of logits (N, C), (N,); the metric is their mean.

    `sigmoid` applies the formula to each class's probability on its own; that is no divergence and can be negative.
    """
    if np.shape(reference) != np.shape(generated):
        raise ValueError(f"expected pairs of logits, got {np.shape(reference)} and {np.shape(generated)}")
    if sigmoid:
        log_p, log_q = (-np.logaddexp(0, -np.asarray(x, np.float64)) for x in (reference, generated))
    else:
        log_p, log_q = log_softmax(reference), log_softmax(generated)
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def inception_score(logits: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation of exp(KL(row || mean row)) over ten parts of permuted logits (N, C)."""
    count = len(logits)
    if count < INCEPTION_SPLITS:
        raise ValueError(f"an inception score needs at least {INCEPTION_SPLITS} clips, got {count}")
    order = np.random.RandomState(INCEPTION_SEED).permutation(count)  # the legacy generator, as published
    log_p = log_softmax(logits)[order]
    scores = []
    for i in range(INCEPTION_SPLITS):
        part = log_p[i * count // INCEPTION_SPLITS : (i + 1) * count // INCEPTION_SPLITS]
        mean = np.exp(part).mean(0)
        surprise = np.exp(part) * (part - np.log(mean.clip(min=np.finfo(float).tiny)))
        scores.append(np.exp(surprise.sum(-1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def top_k_share(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of the k true labels of a clip, the share that is among its k highest scores; (N, C) and bool (N, C) to (N,).

    Clips without a true label are NaN: they have nothing to be right about.
    """
    scores, true = np.asarray(scores), np.asarray(true, bool)
    count = true.sum(1)  # (N,)
    rank = (-scores).argsort(1, kind="stable").argsort(1)  # 0 is the highest
    hits = (true & (rank < count[:, None])).sum(1)
    return np.where(count > 0, hits / count.clip(min=1), np.nan)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], count: int, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap confidence interval of `statistic(indices)`, where indices pick `count` clips with repetition.

    The percentiles of the resampled values, moved by the offset of their mean from the estimate: distances between
    distributions are larger on resampled clips, which hold fewer different ones, and that is not uncertainty. Values
    that are not finite are left out; with none left the interval is NaN.
    """
    estimate = statistic(np.arange(count))
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)])
    values = values[np.isfinite(values)]
    if not len(values) or not np.isfinite(estimate):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - values.mean() + estimate
    return float(low), float(high)

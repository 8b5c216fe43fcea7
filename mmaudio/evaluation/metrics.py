"""The usual measures of generated sound, as pure functions on arrays, with what each clip contributes to them.

`frechet_distance`, `kernel_distance` and `inception_score` describe sets; `kl_divergences`, `cosine_scores` and
`desync` give one value a clip, and the metric is their mean. `Estimate.mean` and the functions ending in `_estimate`
make an `Estimate`, which has a confidence interval and can be compared with another system's.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

INCEPTION_SPLITS = 10
SMALLEST_PART = 5  # clips of a split whose uncertainty can be told
INCEPTION_SEED = 2020  # of the permutation that the published figures use
COSINE_EPSILON = 1e-8  # smallest length of a vector
BANDWIDTH_EPSILON = 1e-8
BLOCK = 2**22  # distances in memory at a time
FLIPS = 9999  # of the signs of differences, for a p-value


# ---- sets of features


def frechet_distance(generated: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance between the Gaussians of two sets of features, (N, D) and (M, D): 0 or more.

    |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)^(1/2) with unbiased covariances, in float64. The last trace is the sum of
    the singular values of a product of triangular factors, so that rank-deficient covariances are no special case. With
    fewer clips than dimensions the value is large from that alone, and a warning says so.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 rows, or values that are not finite.
    """
    x, y = _two_sets(generated, reference)
    r1, r2 = (np.linalg.qr(_spread(rows), mode="r") for rows in (x, y))
    return _frechet(x, y, np.linalg.svd(r1 @ r2.T, compute_uv=False))


def frechet_estimate(
    generated: np.ndarray, reference: np.ndarray, generated_clips: Sequence[str], reference_clips: Sequence[str]
) -> "Estimate":
    """`frechet_distance` with each clip's share; rows of one name, on either side, are one clip.

    The distance depends smoothly on how often each row counts. Its derivative needs one singular value decomposition
    more than the distance and stands for hundreds of resampled ones.
    """
    x, y = _two_sets(generated, reference)
    (q1, r1), (q2, r2) = (np.linalg.qr(_spread(rows)) for rows in (x, y))
    left, sizes, right = np.linalg.svd(r1 @ r2.T, full_matrices=False)
    apart, sides = x.mean(0) - y.mean(0), []
    for rows, directions, sign in ((x, q1 @ left, 1), (y, q2 @ right.T, -1)):
        count, centred = len(rows), rows - rows.mean(0)
        change = sign * 2 * centred @ apart + np.square(centred).sum(1) * count / (count - 1)  # (N,)
        change -= count * np.square(directions) @ sizes
        sides.append((change - change.mean()) / count)
    found = Estimate.of(_frechet(x, y, sizes), (generated_clips, sides[0]), (reference_clips, sides[1]))
    return replace(found, lowest=0.0)


def kernel_distance(generated: np.ndarray, reference: np.ndarray) -> float:
    """KAD of features (N, D) and (M, D): 100 times the unbiased squared MMD, around 0 for equal distributions.

    The Gaussian kernel is as wide as the (lower) median distance within the reference. Everything is in float64 and
    computed in blocks: memory grows with N and M, not with their product.

    Raises:
        ValueError: as `frechet_distance`.
    """
    return _kernel(generated, reference)[0]


def kernel_estimate(
    generated: np.ndarray, reference: np.ndarray, generated_clips: Sequence[str], reference_clips: Sequence[str]
) -> "Estimate":
    """`kernel_distance` with each clip's share, at the kernel width of the whole reference."""
    value, *sides = _kernel(generated, reference)
    return Estimate.of(value, (generated_clips, sides[0]), (reference_clips, sides[1]))


def _two_sets(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(rows, np.float64) for rows in (generated, reference))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"expected features (N, D) and (M, D), got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a distance between sets needs at least 2 clips on either side, got {len(x)} and {len(y)}")
    for rows, side in ((x, "generated"), (y, "reference")):
        if bad := np.count_nonzero(~np.isfinite(rows).all(1)):
            raise ValueError(f"{bad} of {len(rows)} {side} features are not finite; look for NaN in their audio")
    return x, y


def _spread(rows: np.ndarray) -> np.ndarray:
    """A with A^T A the unbiased covariance of the rows."""
    return (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)


def _frechet(x: np.ndarray, y: np.ndarray, sizes: np.ndarray) -> float:
    if min(len(x), len(y)) < x.shape[1]:
        warnings.warn(
            f"{min(len(x), len(y))} clips are fewer than the {x.shape[1]} dimensions: the Frechet distance is biased",
            stacklevel=3,
        )
    traces = np.var(x, axis=0, ddof=1).sum() + np.var(y, axis=0, ddof=1).sum()
    return max(float(np.square(x.mean(0) - y.mean(0)).sum() + traces - 2 * sizes.sum()), 0.0)


def _kernel(generated: np.ndarray, reference: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """KAD, and the shares of the rows of either side."""
    x, y = _two_sets(generated, reference)
    x, y = x - y.mean(0), y - y.mean(0)  # small numbers, exact distances
    scale = 2 * median_distance(y) ** 2 + BANDWIDTH_EPSILON

    def sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.zeros(len(a)), np.zeros(len(b))
        for block in _blocks(a, b):
            near = np.exp(-_squared_distances(a[block], b) / scale)
            rows[block] = near.sum(1)
            columns += near.sum(0)
        return rows, columns

    to_y, to_x = sums(x, y)
    within = [(sums(rows, rows)[0] - 1) / (len(rows) - 1) for rows in (x, y)]  # each row's mean, without itself
    across = [to_y / len(y), to_x / len(x)]
    value = within[0].mean() + within[1].mean() - across[0].mean() - across[1].mean()
    shares = [200 * (own - other) / len(own) for own, other in zip(within, across, strict=True)]
    return float(100 * value), *(share - share.mean() for share in shares)


def median_distance(rows: np.ndarray) -> float:
    """The lower median of the n (n - 1) / 2 distances between rows (n, D), exactly, in the memory of one block.

    The bits of numbers that are not negative order as the numbers do: four passes find those of the median, 16 at a
    time, by counting.
    """
    rank = (len(rows) * (len(rows) - 1) // 2 - 1) // 2
    found = np.uint64(0)
    for shift in (48, 32, 16, 0):
        counts = np.zeros(2**16, np.int64)
        for block in _blocks(rows, rows):
            squared = _squared_distances(rows[block], rows[block.start :])
            bits = squared[np.triu(np.ones(squared.shape, bool), 1)].view(np.uint64) >> np.uint64(shift)
            bits = bits[bits >> np.uint64(16) == found]
            counts += np.bincount((bits & np.uint64(0xFFFF)).astype(np.int64), minlength=2**16)
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[digit] - counts[digit])
        found = found << np.uint64(16) | np.uint64(digit)
    return float(np.sqrt(found.view(np.float64)))


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[slice]:
    """Rows of a, so many at a time that their distances to all rows of b fit in a block."""
    step = max(1, BLOCK // len(b))
    return (slice(start, start + step) for start in range(0, len(a), step))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, D) and (M, D) to (N, M)."""
    squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    return np.maximum(squared, 0, out=squared)


# ---- logits


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
    scores = [
        np.exp((np.exp(part) * part).sum(-1).mean() + _entropy(np.exp(part).mean(0))) for _, part in _parts(logits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def inception_estimate(logits: np.ndarray, clips: Sequence[str]) -> "Estimate":
    """The mean of `inception_score` with each clip's share: how the score of its part changes without it.

    Parts of fewer than `SMALLEST_PART` clips do not tell how sure they are: their shares are NaN, so is the interval.
    """
    shares = np.full(len(logits), np.nan)
    for rows, part in _parts(logits):
        if (count := len(rows)) >= SMALLEST_PART:
            p, surprise = np.exp(part), (np.exp(part) * part).sum(-1)
            mean, others = (p.sum(0) - p) / (count - 1), (surprise.sum() - surprise) / (count - 1)
            without = np.exp(others + _entropy(mean))  # (n,)
            shares[rows] = (without.mean() - without) * (count - 1) / count / INCEPTION_SPLITS
    return Estimate.of(inception_score(logits)[0], (clips, shares))


def _parts(logits: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (n,) and log-probabilities (n, C) of each part."""
    count = len(logits)
    if not np.isfinite(logits).all():
        raise ValueError("some logits are not finite; look for NaN in their audio")
    if count < INCEPTION_SPLITS:
        raise ValueError(f"an inception score needs at least {INCEPTION_SPLITS} clips, got {count}")
    order = np.random.RandomState(INCEPTION_SEED).permutation(count)  # the legacy generator, as published
    log_p = log_softmax(logits)[order]
    for i in range(INCEPTION_SPLITS):
        rows = slice(i * count // INCEPTION_SPLITS, (i + 1) * count // INCEPTION_SPLITS)
        yield order[rows], log_p[rows]


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p.clip(min=np.finfo(float).tiny))).sum(-1)


# ---- pairs


def cosine_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of every pair of rows (N, D), (N,) in [-1, 1]; the IB and CLAP scores are their means."""
    a, b = (np.asarray(rows, np.float64) for rows in (first, second))
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"expected pairs of embeddings (N, D), got {a.shape} and {b.shape}")
    lengths = (np.linalg.norm(rows, axis=1).clip(min=COSINE_EPSILON) for rows in (a, b))
    return (a * b).sum(1) / np.prod(list(lengths), axis=0)


def desync(offsets: Sequence[np.ndarray]) -> np.ndarray:
    """Mean absolute offset of each clip in seconds, (N,), from the offsets that its runs found; DeSync is their mean.

    Raises:
        ValueError: a clip without an offset, or with one that is not finite.
    """
    for i, runs in enumerate(offsets):
        if not np.size(runs) or not np.isfinite(runs).all():
            raise ValueError(f"clip {i} of {len(offsets)} has offsets {np.asarray(runs)}: expected one or more numbers")
    return np.array([np.abs(runs).mean() for runs in offsets])


def top_k_share(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of the k true labels of a clip, the share that is among its k highest scores; (N, C) and bool (N, C) to (N,).

    Clips without a true label are NaN: they have nothing to be right about.
    """
    scores, true = np.asarray(scores), np.asarray(true, bool)
    count = true.sum(1)  # (N,)
    rank = (-scores).argsort(1, kind="stable").argsort(1)  # 0 is the highest
    hits = (true & (rank < count[:, None])).sum(1)
    return np.where(count > 0, hits / count.clip(min=1), np.nan)


# ---- how sure, and which system is better


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


@dataclass(frozen=True)
class Estimate:
    """A metric with the share of each clip in its uncertainty.

    Were clip c there n_c times instead of once, the metric would change by the sum of (n_c - 1) shares[c]: exactly for
    a mean over clips, to first order for distances between sets (the infinitesimal jackknife) and the inception score
    (leaving one out). So an interval costs no more than that of a mean, and the two systems of a comparison are
    resampled together.
    """

    value: float
    clips: tuple[str, ...]  # sorted
    shares: np.ndarray  # (clips,) float64; they add up to 0. NaN: not known
    lowest: float = -np.inf  # that the metric can be: an interval ends there, and at the highest
    highest: float = np.inf

    @classmethod
    def of(cls, value: float, *sides: tuple[Sequence[str], np.ndarray]) -> "Estimate":
        """From names and shares of rows; rows of one name belong to one clip."""
        for names, shares in sides:
            if len(names) != len(shares):
                raise ValueError(f"expected a clip's name for each of {len(shares)} rows, got {len(names)}")
        names, index = np.unique([name for names, _ in sides for name in names], return_inverse=True)
        shares = np.bincount(index, np.concatenate([shares for _, shares in sides]), len(names))
        return cls(float(value), tuple(names.tolist()), shares)

    @classmethod
    def mean(cls, clips: Sequence[str], values: np.ndarray) -> "Estimate":
        """Of one value a row, (N,).

        Raises:
            ValueError: no value, or one that is not finite: leave clips out that have none.
        """
        values = np.asarray(values, np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"expected finite values, got {np.count_nonzero(np.isfinite(values))} of {len(values)}")
        found = cls.of(values.mean(), (clips, (values - values.mean()) / len(values)))
        return replace(found, lowest=float(values.min()), highest=float(values.max()))

    def interval(self, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap confidence interval over clips."""
        low, high = bootstrap_interval(
            lambda rows: self.value + self.shares[rows].sum(),
            len(self.clips), level=level, resamples=resamples, seed=seed,
        )  # fmt: skip
        return max(low, self.lowest), min(high, self.highest)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same clips."""

    difference: float  # first minus second
    low: float  # of its 95 % bootstrap interval
    high: float
    p: float  # two-sided, of both systems being exchangeable clip by clip
    clips: int


def compare_systems(first: Estimate, second: Estimate, seed: int = 0) -> Comparison:
    """Is one metric of two systems different beyond the choice of clips?

    Each clip's part of the difference is resampled for the interval; for the p-value (a permutation test) its sign is
    flipped at random, as if the clip's two sounds had been exchanged. Distances between sets are compared to first
    order, as `Estimate` says.

    Raises:
        ValueError: the systems were not measured on the same clips, or on too few.
    """
    if first.clips != second.clips:
        a, b = set(first.clips), set(second.clips)
        raise ValueError(
            f"the systems were measured on different clips ({len(a - b)} only in the first, {len(b - a)} only in the "
            "second); measure both on the common ones"
        )
    count, difference = len(first.clips), first.value - second.value
    parts = difference / count + first.shares - second.shares  # (clips,); they add up to the difference
    if count < 2 or not np.isfinite(parts).all():
        raise ValueError(f"{count} clips are too few to compare this metric")
    low, high = bootstrap_interval(lambda rows: parts[rows].sum(), count, seed=seed)
    rng, flips = np.random.default_rng(seed), []
    for start in range(0, FLIPS, 256):
        kept = rng.integers(0, 2, (min(256, FLIPS - start), count), dtype=np.int8)
        flips.append(2 * kept @ parts - parts.sum())
    extreme = np.abs(np.concatenate(flips)) >= abs(difference) * (1 - 1e-9)  # rounding must not break ties
    return Comparison(difference, low, high, (1 + np.count_nonzero(extreme)) / (1 + FLIPS), count)

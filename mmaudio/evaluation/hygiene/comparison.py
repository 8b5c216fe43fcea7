"""Are two clips the same recording? Their tracks laid over each other at every offset in time."""

from dataclasses import dataclass

import numpy as np

from mmaudio.evaluation.hygiene.fingerprint import FPS, GRID, HOP, Fingerprint, mirrored_motion

SHORTEST_OVERLAP = 2.0  # seconds
SURE_SOUND, SAME_SOUND, LIKE_SOUND = 0.7, 0.5, 0.35  # cosine: by itself, with the same picture, and moving alike
SAME_MOTION, LIKE_MOTION = 0.4, 0.3
SAME_PICTURE, SAME_STILL = 0.9, 0.97  # correlation of the mean pictures
SOUND_EVIDENCE, MOTION_EVIDENCE = 150, 50  # trits
SAME_TIME = 0.3  # seconds by which the offsets of sound and picture may differ
SURROUNDINGS = 4  # pixels to each side; what is larger is the layout of a picture, which many have in common


@dataclass(frozen=True)
class Agreement:
    """Of two tracks where they agree best."""

    cosine: float  # 1: the same, around 0: not related
    evidence: int  # trits that are not 0 in both
    offset: float  # seconds from the beginning of the first to that of the second


NOTHING = Agreement(0.0, 0, 0.0)


@dataclass(frozen=True)
class Match:
    """Two clips that show or sound the same."""

    what: str  # "sound and picture", "sound" or "picture"
    offset: float  # seconds from the beginning of the first to that of the second
    mirrored: bool
    sound: float  # cosine
    motion: float  # cosine
    picture: float  # correlation

    def __str__(self) -> str:
        mirrored = ", mirrored" if self.mirrored else ""
        return (
            f"{self.what}{mirrored}, offset {self.offset:+.2f} s (sound {self.sound:.2f}, motion {self.motion:.2f}, "
            f"picture {self.picture:.2f})"
        )


def compare(one: Fingerprint, two: Fingerprint) -> Match | None:
    """The match of two clips, None if they are different ones.

    Either the sound or the moving picture is the same beyond doubt, or both are alike. A picture in which nothing moves
    counts by itself only where no sound speaks against it: a camera that stands still sees much.
    """
    sound = align(one.sound, two.sound, HOP)
    pictures = {False: likeness(one.picture, two.picture), True: likeness(one.picture, two.picture[:, ::-1])}
    mirrored = pictures[True] > pictures[False]
    picture = pictures[mirrored]
    motion = align(one.motion, mirrored_motion(two.motion) if mirrored else two.motion, 1 / FPS)

    shown = picture >= SAME_PICTURE
    enough = SAME_SOUND if shown else SURE_SOUND
    same_sound = sound.cosine >= enough and sound.evidence >= SOUND_EVIDENCE
    moving = motion.evidence >= MOTION_EVIDENCE
    same_picture = shown and moving and motion.cosine >= SAME_MOTION
    if not (same_sound or same_picture):
        together = abs(sound.offset - motion.offset) <= SAME_TIME
        alike = sound.cosine >= LIKE_SOUND and motion.cosine >= LIKE_MOTION and shown and together
        mute = not one.sound.any() or not two.sound.any()
        still = not one.motion.any() and not two.motion.any() and picture >= SAME_STILL and mute
        if not (alike or still):
            return None
        same_sound = alike
    what = "sound and picture" if same_sound and shown else "sound" if same_sound else "picture"
    offset = sound.offset if same_sound else motion.offset
    return Match(what, offset, mirrored and shown, sound.cosine, motion.cosine, picture)


def align(one: np.ndarray, two: np.ndarray, step: float) -> Agreement:
    """The best offset of two tracks of trits (T, D) and (U, D) whose rows are `step` seconds apart."""
    if not one.any() or not two.any():
        return NOTHING
    shortest = min(round(SHORTEST_OVERLAP / step), len(one), len(two))
    a, b = one.astype(np.float32), two.astype(np.float32)
    offsets = np.arange(shortest - len(b), len(a) - shortest + 1)  # row of `one` on which the first row of `two` lies
    dots, both = (diagonal_sums(x @ y.T)[offsets + len(b) - 1] for x, y in ((a, b), (np.abs(a), np.abs(b))))
    energy_a, energy_b = (np.concatenate([[0], np.cumsum((x**2).sum(1))]) for x in (a, b))
    first, last = np.maximum(offsets, 0), np.minimum(offsets + len(b), len(a))
    norms = (energy_a[last] - energy_a[first]) * (energy_b[last - offsets] - energy_b[first - offsets])
    cosines = dots / np.sqrt(np.maximum(norms, 1))
    best = int((cosines * np.sqrt(both)).argmax())  # little evidence agrees by chance more often than much
    return Agreement(float(cosines[best]), int(both[best]), float(offsets[best] * step))


def diagonal_sums(table: np.ndarray) -> np.ndarray:
    """(T, U) -> (T + U - 1,): sums over t - u = 1 - U, 2 - U, ..., T - 1."""
    rows, columns = table.shape
    # Written into rows that are longer by one, each row of the reversed table moves on by one more.
    skewed = np.zeros((rows, rows + columns), table.dtype)
    skewed[:, :columns] = table[:, ::-1]
    return skewed.ravel()[: rows * (rows + columns - 1)].reshape(rows, -1).sum(0)


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of the details of two mean pictures; 0 where there is none."""
    if not one.size or not two.size:
        return 0.0
    a, b = details(one), details(two)
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def details(picture: np.ndarray) -> np.ndarray:
    """(GRID, GRID) less the mean of the surroundings of each pixel."""
    place = np.arange(GRID)
    near = (np.abs(place[:, None] - place) <= SURROUNDINGS).astype(np.float32)
    near /= near.sum(1, keepdims=True)
    return picture - near @ picture.astype(np.float32) @ near.T

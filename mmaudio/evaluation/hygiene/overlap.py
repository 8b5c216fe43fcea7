"""Pairs of clips that are the same recording: candidates by their codes, each verified by its whole fingerprint."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmaudio.evaluation.hygiene.comparison import Match, compare
from mmaudio.evaluation.hygiene.fingerprint import PICTURE_BITS, SOUND_BITS, mirrored_codes
from mmaudio.evaluation.hygiene.search import CodeIndex
from mmaudio.evaluation.hygiene.store import Store

SOUND_RADIUS, PICTURE_RADIUS = 26, 56  # bits
NEAREST = 8  # candidates of each code
OWN = 16  # more within a set, where the nearest codes are the clip's own
AT_ONCE = 1000  # pairs that are verified with their fingerprints in memory

Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True)
class Codes:
    """The codes of all clips of a set, and whose they are."""

    keys: Sequence[str]  # distinct
    sound: np.ndarray  # uint8 (N, SOUND_BITS / 8)
    sound_clip: np.ndarray  # int64 (N,) places in `keys`
    picture: np.ndarray  # uint8 (M, PICTURE_BITS / 8)
    picture_clip: np.ndarray  # int64 (M,)

    @classmethod
    def read(cls, store: Store, keys: Sequence[str]) -> "Codes":
        place = {key: i for i, key in enumerate(keys)}
        codes, clips = (bytearray(), bytearray()), ([], [])
        counts: tuple[list[int], list[int]] = ([], [])
        for key, *found in store.codes(keys):
            for i, code in enumerate(found):
                codes[i].extend(code.tobytes())
                clips[i].append(place[key])
                counts[i].append(len(code))
        arrays = []
        for i, bits in enumerate((SOUND_BITS, PICTURE_BITS)):
            arrays.append(np.frombuffer(codes[i], np.uint8).reshape(-1, bits // 8))
            arrays.append(np.repeat(np.array(clips[i], np.int64), counts[i]))
        return cls(keys, *arrays)

    @cached_property
    def sound_index(self) -> CodeIndex:
        return CodeIndex(self.sound)

    @cached_property
    def picture_index(self) -> CodeIndex:
        return CodeIndex(self.picture)


def overlaps(
    store: Store, one: Codes, two: Codes, progress: Progress | None = None
) -> Iterator[tuple[int, int, Match | None]]:
    """(Place in `one`, place in `two`, match) of clips that are the same, None for the very same file.

    With `one` and `two` the same object: each pair once, the earlier place first.
    """
    within = one is two
    if not within:
        place = {key: i for i, key in enumerate(one.keys)}
        yield from ((place[key], j, None) for j, key in enumerate(two.keys) if key in place)
    pairs = candidates(one, two, progress)
    for first in range(0, len(pairs), AT_ONCE):
        some = pairs[first : first + AT_ONCE]
        keys = {one.keys[i] for i, _ in some} | {two.keys[j] for _, j in some}
        prints = dict(store.fingerprints(keys))
        for i, j in some:
            if match := compare(prints[one.keys[i]], prints[two.keys[j]]):
                yield int(i), int(j), match
        if progress is not None:
            progress("compare", first + len(some), len(pairs))


def candidates(one: Codes, two: Codes, progress: Progress | None = None) -> np.ndarray:
    """int64 (n, 2), sorted and distinct: pairs of places some of whose codes are near each other."""
    found = []
    searches = [_search(one, two, progress)]
    if one is not two:  # a clip with many copies in one set hides none of them from the other
        searches.append(np.flip(block, 1) for block in _search(two, one, progress))
    for search in searches:
        for pairs in search:
            pairs = np.sort(pairs, axis=1) if one is two else pairs
            same = np.array([one.keys[i] == two.keys[j] for i, j in pairs], bool)
            found.append(pairs[~same])
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *found])
    flat = np.unique(pairs[:, 0] * len(two.keys) + pairs[:, 1])
    return np.stack([flat // len(two.keys), flat % len(two.keys)], axis=1)


def _search(one: Codes, two: Codes, progress: Progress | None) -> Iterator[np.ndarray]:
    """(n, 2) blocks of places whose codes are near, in no order and more than once."""
    wanted = NEAREST + (OWN if one is two else 0)
    queries = [("search by sound", one.sound, one.sound_clip, two.sound_clip, SOUND_RADIUS)]
    for codes in (one.picture, mirrored_codes(one.picture)):
        queries.append(("search by picture", codes, one.picture_clip, two.picture_clip, PICTURE_RADIUS))
    for what, codes, clips, others, radius in queries:
        if not len(codes) or not len(others):
            continue
        index = two.sound_index if radius == SOUND_RADIUS else two.picture_index
        done = 0
        for size, pairs in index.nearest(codes, radius, wanted):
            done += size
            if progress is not None:
                progress(what, done, len(codes))
            yield np.unique(np.stack([clips[pairs[:, 0]], others[pairs[:, 1]]], axis=1), axis=0)


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` things the first one that it hangs together with, by way of these pairs."""
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, j in pairs:
        a, b = find(i), find(j)
        root[max(a, b)] = min(a, b)
    return [find(i) for i in range(count)]

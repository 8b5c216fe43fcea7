"""Captions that stand beside another clip than they were written for: whole stretches shifted, or two swapped."""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 12.0  # nats by which the evidence for a shift must outweigh that against it
OTHERWISE = 4.0  # nats against a shift: a caption that is neither where it should be nor where the shift has it
FARTHEST = 10  # rows that captions which occur often may be shifted by; rare ones by any number
OCCURRENCES = 20  # of a caption that are looked at
SHIFTS = 12  # that are tried, the most frequent ones
FEWEST = 3  # rows


@dataclass(frozen=True)
class Moved:
    """The caption of a row belongs to another row."""

    row: int
    source: int  # of the list that it is compared with: the clip that the caption was written for
    shift: int | None  # rows, the same for all of a stretch; None: two captions changed places


def moved_captions(captions: Sequence[str | None], known: Sequence[str | None], pairs: dict[int, int]) -> list[Moved]:
    """Compare the captions of one list with those of another, of which `pairs` says the row of the same clip.

    A caption that is nowhere in the other list is a rewording, which is nobody's mistake.
    """
    ours, theirs = [_plain(text) for text in captions], [_plain(text) for text in known]
    places = defaultdict(list)
    for row, text in enumerate(theirs):
        if text:
            places[text].append(row)
    rows = [row for row in sorted(pairs) if ours[row] and theirs[pairs[row]]]
    wrong = {row for row in rows if ours[row] != theirs[pairs[row]] and ours[row] in places}

    moved = {}
    votes = Counter(shift for row in wrong for shift in _shifts(places[ours[row]], pairs[row]))
    for shift, count in votes.most_common(SHIFTS):
        if count < FEWEST:
            break
        gains = np.array([_gain(ours, theirs, places, row, pairs[row], shift) for row in rows])
        for first, last in stretches(gains, ENOUGH):
            for row in rows[first:last]:
                if row in wrong and row not in moved and _at(theirs, pairs[row] + shift) == ours[row]:
                    moved[row] = Moved(row, pairs[row] + shift, shift)
    back = {place: row for row, place in pairs.items()}
    for row in sorted(wrong - moved.keys()):
        for place in places[ours[row]][:OCCURRENCES]:
            other = back.get(place)
            if other in wrong and ours[other] == theirs[pairs[row]]:
                moved[row] = Moved(row, place, None)
                break
    return [moved[row] for row in sorted(moved)]


def _plain(text: str | None) -> str:
    return " ".join((text or "").lower().split())


def _shifts(places: list[int], place: int) -> list[int]:
    if len(places) > OCCURRENCES:
        near = bisect_left(places, place - FARTHEST)
        places = places[near : near + OCCURRENCES]
        return [other - place for other in places if other != place and abs(other - place) <= FARTHEST]
    return [other - place for other in places if other != place]


def _at(texts: list[str], place: int) -> str:
    return texts[place] if 0 <= place < len(texts) else ""


def _gain(ours, theirs, places, row: int, place: int, shift: int) -> float:
    """Nats for the shift: a rare caption in the right place says much, a common one little."""
    here, there = ours[row] == theirs[place], ours[row] == _at(theirs, place + shift)
    if here != there:
        surprise = math.log(len(theirs) / len(places[ours[row]]))
        return surprise if there else -max(surprise, OTHERWISE)
    return 0.0 if here else -OTHERWISE


def stretches(gains: np.ndarray, enough: float) -> list[tuple[int, int]]:
    """(First, end) of the runs that gain most, each at least `enough`, that do not overlap."""
    found, spans = [], [(0, len(gains))]
    while spans:
        begin, end = spans.pop()
        if begin == end:
            continue
        total = np.concatenate([[0], np.cumsum(gains[begin:end])])
        lowest = np.minimum.accumulate(total)
        last = int((total - lowest).argmax())
        if total[last] - lowest[last] < enough:
            continue
        first = int(np.flatnonzero(total[: last + 1] == lowest[last])[-1])
        found.append((begin + first, begin + last))
        spans += [(begin, begin + first), (begin + last, end)]
    return sorted(found)

"""Sets of clips checked: each clip by itself, against all others, and against its caption."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mmaudio.evaluation.hygiene.captions import Moved, moved_captions
from mmaudio.evaluation.hygiene.comparison import Match
from mmaudio.evaluation.hygiene.looking import problems
from mmaudio.evaluation.hygiene.overlap import Codes, Progress, groups, overlaps
from mmaudio.evaluation.hygiene.reading import read_clips
from mmaudio.evaluation.hygiene.report import Finding, Overlap, Report
from mmaudio.evaluation.hygiene.sets import ClipSet, source_of
from mmaudio.evaluation.hygiene.store import Store

ID_RULES = {"exact": lambda name: name, "youtube": source_of}


@dataclass(frozen=True)
class Settings:
    min_duration: float = 1.0  # seconds that sound and picture must have
    duration: float = 30.0  # seconds that are looked at, from the clip's start
    workers: int = 1
    ids: str = "exact"  # a name of ID_RULES

    def __post_init__(self):
        if self.ids not in ID_RULES:
            raise ValueError(f"ids must be one of {', '.join(ID_RULES)}, got {self.ids!r}")
        if not (0 < self.min_duration <= self.duration < 1e5) or self.workers < 1:
            raise ValueError(
                f"min_duration {self.min_duration:g}, duration {self.duration:g}, workers {self.workers}: "
                "must be above 0, at least min_duration, at least 1"
            )


@dataclass
class CheckedSet:
    """A set and what is known of its clips."""

    clips: ClipSet
    keys: list[str | None]  # of each clip in the store
    store: Store
    removed: set[int] = field(default_factory=set)  # clips that the cleaned list is without

    @property
    def name(self) -> str:
        return self.clips.name

    @cached_property
    def codes(self) -> Codes:
        return Codes.read(self.store, list(dict.fromkeys(key for key in self.keys if key is not None)))

    @cached_property
    def items_of(self) -> dict[str, list[int]]:
        """Key -> clips with this content."""
        found = defaultdict(list)
        for i, key in enumerate(self.keys):
            if key is not None:
                found[key].append(i)
        return found

    def finding(self, i: int, kind: str, detail: str, other: "CheckedSet | None" = None, j: int = 0) -> Finding:
        where = () if other is None else (other.name, other.clips.items[j].id)
        return Finding(self.name, self.clips.items[i].id, kind, detail, *where)


def check_sets(
    checked: Sequence[ClipSet],
    against: Sequence[ClipSet],
    store: Store,
    settings: Settings,
    progress: Progress | None = None,
) -> Report:
    """Everything at once.

    Args:
        checked: sets to be cleaned. A clip that is in several of them stays in the first one.
        against: sets that keep all their clips, and whose clips must not be in the others: test sets.

    Raises:
        HygieneError: the store cannot be used, or faiss is missing.
    """
    findings: list[Finding] = []
    sets = [_looked_at(clips, store, settings, findings) for clips in (*checked, *against)]
    mine, table = sets[: len(checked)], []
    for place, one in enumerate(mine):
        repeats = _repeated(one, findings, progress)
        table.append(Overlap(one.name, one.name, len(one.clips.items), 0, len(repeats), len(repeats)))
        for two in sets[place + 1 :]:
            table += _shared(one, two, two in mine, settings, findings, progress)
    return Report(findings, table, {one.name: one.removed for one in mine})


def _looked_at(clips: ClipSet, store: Store, settings: Settings, findings: list[Finding]) -> CheckedSet:
    """Each clip by itself."""
    keys, failures = read_clips(clips.items, store, settings.duration, settings.workers)
    found = CheckedSet(clips, keys, store)
    wrong = {key: problems(facts, settings.min_duration) for key, facts in store.facts(found.items_of)}
    for i, key in enumerate(keys):
        own = [("unreadable", failures[i])] if i in failures else wrong.get(key, [])
        findings += [found.finding(i, kind, detail) for kind, detail in own]
        if own:
            found.removed.add(i)
    return found


def _repeated(one: CheckedSet, findings: list[Finding], progress: Progress | None) -> dict[int, int]:
    """Clips of a set that are there already, and which these are."""
    pairs: dict[tuple[int, int], Match | None] = {}
    for items in one.items_of.values():
        pairs |= {(items[0], i): None for i in items[1:]}
    for a, b, match in overlaps(one.store, one.codes, one.codes, progress):
        i, j = sorted(one.items_of[one.codes.keys[place]][0] for place in (a, b))
        pairs[i, j] = match
    first = groups(len(one.keys), pairs)
    repeats = {i: j for i, j in enumerate(first) if i != j}
    why = {}
    for (_, j), match in pairs.items():
        why[j] = why.get(j) or match
    for i, j in repeats.items():
        findings.append(one.finding(i, "duplicate", str(why.get(i) or "the same file"), one, j))
    captions = [item.caption for item in one.clips.items]
    known = [None if i in repeats else caption for i, caption in enumerate(captions)]
    _report_moved(one, one, moved_captions(captions, known, repeats), findings)
    one.removed |= repeats.keys()
    return repeats


def _shared(
    one: CheckedSet, two: CheckedSet, both_cleaned: bool, settings: Settings, findings: list[Finding],
    progress: Progress | None,
) -> list[Overlap]:  # fmt: skip
    """Clips that are in both sets: from the second they are removed if it is cleaned, too, else from the first."""
    rule = ID_RULES[settings.ids]
    ids = {"one": defaultdict(list), "two": defaultdict(list)}
    for name, side in (("one", one), ("two", two)):
        for i, item in enumerate(side.clips.items):
            ids[name][rule(item.id)].append(i)
    same_id = [(items, ids["two"][name]) for name, items in ids["one"].items() if name in ids["two"]]

    same_clip: dict[tuple[int, int], Match | None] = {}
    for a, b, match in overlaps(one.store, one.codes, two.codes, progress):
        left, right = one.items_of[one.codes.keys[a]], two.items_of[two.codes.keys[b]]
        same_clip |= {(i, right[0]): match for i in left} | {(left[0], j): match for j in right}

    by_id = ({i for items, _ in same_id for i in items}, {j for _, items in same_id for j in items})
    by_content = ({i for i, _ in same_clip}, {j for _, j in same_clip})
    loser, keeper, side = (two, one, 1) if both_cleaned else (one, two, 0)
    partner: dict[int, tuple[int, str]] = {}
    for pair, match in same_clip.items():
        partner.setdefault(pair[side], (pair[1 - side], str(match or "the same file")))
    for pair in same_id:
        for i in pair[side]:
            other, detail = partner.get(i, (pair[1 - side][0], ""))
            partner[i] = (other, f"the same id; {detail}".rstrip("; "))
    for i, (j, detail) in sorted(partner.items()):
        findings.append(loser.finding(i, "overlap", detail, keeper, j))
    loser.removed |= partner.keys()

    pairs = {pair[side]: pair[1 - side] for pair in reversed(same_clip)}
    pairs |= {pair[side][0]: pair[1 - side][0] for pair in same_id if len(pair[0]) == len(pair[1]) == 1}
    captions = [[item.caption for item in given.clips.items] for given in (loser, keeper)]
    _report_moved(loser, keeper, moved_captions(*captions, pairs), findings)

    return [
        Overlap(a.name, b.name, len(b.clips.items), len(by_id[k]), len(by_content[k]), len(by_id[k] | by_content[k]))
        for a, b, k in ((one, two, 1), (two, one, 0))
    ]


def _report_moved(one: CheckedSet, two: CheckedSet, moved: list[Moved], findings: list[Finding]) -> None:
    stretch = Counter(clip.shift for clip in moved)
    for clip in moved:
        if clip.shift is None:
            kind, detail = "caption swapped", "has the caption of the other, and the other has this one's"
        else:
            rows = "row" if abs(clip.shift) == 1 else "rows"
            kind = "caption shifted"
            detail = f"by {clip.shift:+d} {rows}, as {stretch[clip.shift] - 1} other captions"
        findings.append(one.finding(clip.row, kind, detail, two, clip.source))
        one.removed.add(clip.row)

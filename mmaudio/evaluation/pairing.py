"""Which generated file belongs to which reference clip, by name, and which of them a metric is about."""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace

CLIP = r"(?P<id>[A-Za-z0-9_-]{11}_[0-9]{6})"  # VGGSound: video id and start second
DECORATED = [re.compile(pattern) for pattern in (CLIP + "-[0-9]+", f"Y{CLIP}[-_][0-9]+", f"[0-9]{{9}}_{CLIP}-[0-9]+")]
# Of these every clip of a side counts, paired or not, as published; all other metrics are about pairs.
WHOLE_SETS = ("FD_VGG", "FD_PANNs", "IS_PANNs")
SHOWN = 5  # names in a message


def clip_id(stem: str) -> str:
    """The id of the clip that a generated file was made for; a name of no known form is the id itself.

    Known are `ID_SSSSSS-k`, `YID_SSSSSS_k` (or `-k`) and `NNNNNNNNN_ID_SSSSSS-k`, by their form: the published
    evaluation goes by the length of the name and so cuts pieces off others.
    """
    for pattern in DECORATED:
        if found := pattern.fullmatch(stem):
            return found["id"]
    return stem


@dataclass(frozen=True)
class Pairs:
    """Generated stems and the reference stem of each, in the order of the generated, and those that pair with nothing.

    Several generated stems may belong to one reference stem.
    """

    generated: tuple[str, ...]
    reference: tuple[str, ...]  # as long as `generated`
    lone_generated: tuple[str, ...] = ()
    lone_reference: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.generated)

    def having(self, stems: Container[str]) -> "Pairs":
        """The pairs whose reference stem is among these: those with a caption or a usable video, say."""
        return self._those(lambda generated, reference: reference in stems)

    def same_name(self) -> "Pairs":
        """The pairs that are called the same: the published KL_PANNs is about these alone."""
        return self._those(str.__eq__)

    def problem(self) -> str | None:
        """One line about the generated names that pair with nothing, for the user."""
        if not self.lone_generated:
            return None
        names = self.lone_generated
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        return f"{len(names)} generated names pair with no reference: {shown}"

    def _those(self, wanted: Callable[[str, str], bool]) -> "Pairs":
        kept = [pair for pair in zip(self.generated, self.reference, strict=True) if wanted(*pair)]
        return replace(self, generated=tuple(g for g, _ in kept), reference=tuple(r for _, r in kept))


def pair(generated: Iterable[str], reference: Iterable[str]) -> Pairs:
    """Pair file stems: a reference of the same name, else the one that `clip_id` names. Sorted by generated stem.

    Raises:
        ValueError: a stem is there twice on one side (`a.wav` and `a.flac`).
    """
    stems, known = _once("generated", generated), set(_once("reference", reference))
    found = {stem: stem if stem in known else clip_id(stem) for stem in stems}
    paired = tuple(stem for stem in stems if found[stem] in known)
    used = {found[stem] for stem in paired}
    return Pairs(
        paired,
        tuple(found[stem] for stem in paired),
        tuple(stem for stem in stems if found[stem] not in known),
        tuple(sorted(known - used)),
    )


def _once(side: str, stems: Iterable[str]) -> list[str]:
    counts = Counter(stems)
    if twice := sorted(stem for stem, count in counts.items() if count > 1):
        raise ValueError(f"{len(twice)} {side} names are there twice, keep one of each: {', '.join(twice[:SHOWN])}")
    return sorted(counts)

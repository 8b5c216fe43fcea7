"""What a check found, as files: findings, the table of overlaps, the cleaned lists."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmaudio.data.parts import write_text
from mmaudio.evaluation.hygiene.sets import ClipSet

FINDINGS, TABLE, NUMBERS = "findings.tsv", "overlap.md", "overlap.json"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a clip."""

    set: str
    id: str
    kind: str
    detail: str
    other_set: str = ""  # where the same clip or the right caption is
    other_id: str = ""


@dataclass(frozen=True)
class Overlap:
    """How many clips of one set are in another."""

    set: str  # that is searched, a training set say
    within: str  # whose clips are looked for in it, a test set say; the same name: clips that are there more than once
    clips: int  # of `within`
    by_id: int
    by_content: int
    either: int

    @property
    def share(self) -> float:
        return self.either / self.clips


@dataclass(frozen=True)
class Report:
    findings: list[Finding]
    overlaps: list[Overlap]
    removed: dict[str, set[int]]  # name of a checked set -> clips that its cleaned list is without


def write_report(folder: Path, checked: Sequence[ClipSet], report: Report) -> list[Path]:
    """All files; returns the paths of the cleaned lists."""
    rows = [("set", "id", "finding", "detail", "other_set", "other_id")]
    rows += [(f.set, f.id, f.kind, f.detail, f.other_set, f.other_id) for f in report.findings]
    write_text(folder / FINDINGS, "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows))
    numbers = [vars(overlap) | {"share": round(overlap.share, 6)} for overlap in report.overlaps]
    write_text(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    write_text(folder / TABLE, overlap_table(report.overlaps))
    paths = []
    for clips in checked:
        paths.append(folder / f"{clips.name}.clean{clips.suffix}")
        clips.write(paths[-1], [i not in report.removed[clips.name] for i in range(len(clips.items))])
    return paths


def overlap_table(overlaps: Sequence[Overlap]) -> str:
    """Markdown: a row for each set that is searched, a column for each whose clips are looked for in it."""
    columns = list(dict.fromkeys(overlap.within for overlap in overlaps))
    sizes = {overlap.within: overlap.clips for overlap in overlaps}
    cells = {(overlap.set, overlap.within): overlap for overlap in overlaps}
    lines = [
        "| clips of ... found in | " + " | ".join(f"{_cell(name)} ({sizes[name]})" for name in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in dict.fromkeys(overlap.set for overlap in overlaps):
        row = [_numbers(cells.get((name, column))) for column in columns]
        lines.append(f"| {_cell(name)} | " + " | ".join(row) + " |")
    lines += [
        "",
        "Clips (share of the column's set): by id / by content. Under its own name: clips that repeat others.",
    ]
    return "\n".join(lines) + "\n"


def _numbers(overlap: Overlap | None) -> str:
    if overlap is None:
        return "-"
    return f"{overlap.either} ({100 * overlap.share:.2f} %): {overlap.by_id} / {overlap.by_content}"


def _cell(name: str) -> str:
    return name.replace("|", "\\|")

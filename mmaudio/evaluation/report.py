"""`report.html`: what came out, in one file that needs nothing else and asks nobody.

Bars with intervals beside the published rows, the scores of all clips sorted (the paper's Figure A1), scores by class,
and the worst and best clips, to be heard and seen beside the true sound (Figure A6).
"""

import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmaudio.data.parts import write_text
from mmaudio.evaluation.charts import Bar, bars, curve, player
from mmaudio.evaluation.features import Sound
from mmaudio.evaluation.published import published_rows
from mmaudio.evaluation.scorecard import METRICS, grouped
from mmaudio.evaluation.scoring import Score

if TYPE_CHECKING:
    from mmaudio.evaluation.run import Evaluation

# Metrics that clips are sorted by, the most telling first.
SORTED_BY = (
    "IB", "DeSync", "KL_PaSST", "KL_PANNs", "CLAP_LAION", "CLAP_MS", "KL_judge", "Onset_F1_100ms", "AV_Align",
    "Judge_kinds", "Audiobox_PQ",
)  # fmt: skip
CURVES, HEARD = 8, 2  # metrics that have a curve, and that choose the clips to be heard
EXTREMES = 3  # clips at either end
CLASSES = 24  # rows of a class table; the ends of it where there are more
FAILURES = 50  # that are listed
PUBLISHED_SECONDS = 8.0  # of the clips that published rows are about
CAPTION = 300  # characters of it that are shown
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(path: Path, found: "Evaluation") -> None:
    """Write the page; some hundred kilobytes, and about a hundred more for each clip that can be heard."""
    style, script = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    sections = [
        _section("Metrics", _metrics(found)),
        _section("Compared with the other run", _comparison(found)),
        _section("Beside published figures", _published(found)),
        _section("All clips, sorted", _curves(found)),
        _section("By class", _classes(found)),
        *(_section(f"Worst and best by {name}", _extremes(found, name)) for name in _telling(found)[:HEARD]),
        _section("Skipped", _skipped(found)),
        _section("Failed clips", _failures(found)),
        _section("Fingerprint", _fingerprint(found)),
    ]
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_title(found)}</title>\n<style>\n{style}</style></head>\n<body><main>\n<h1>{_title(found)}</h1>\n"
        f"<p>{_facts(found)}</p>\n" + "".join(sections) + f"</main>\n<script>\n{script}</script></body></html>\n",
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def _system(found: "Evaluation") -> str:
    made_by = found.fingerprint["made_by"]
    return made_by["variant"] if made_by else "generated sounds"


def _title(found: "Evaluation") -> str:
    return escape(f"{_system(found)}, {found.fingerprint['dataset']}")


def _facts(found: "Evaluation") -> str:
    sounds, seconds = found.fingerprint["sounds"]["count"], found.fingerprint["duration_s"]
    failed = len(found.failed_clips)
    facts = f"{sounds} generated clips of {seconds:g} s; {len(found.scores)} metrics, {len(found.skipped)} skipped"
    return escape(facts + (f"; {failed} clips failed" if failed else ""))


# ---- the table


def _metrics(found: "Evaluation") -> str:
    rows = []
    for name, score in found.scores.items():
        metric = METRICS[name]
        d, notes = metric.digits, "".join(f"<br>{escape(note)}" for note in score.notes)
        span = f"{score.low:.{d}f} to {score.high:.{d}f}" if math.isfinite(score.low) else ""
        truth = "" if score.truth is None else f"{score.truth:.{d}f}"
        arrow = {"lower": "↓", "higher": "↑", "truth": "→"}[metric.better]
        rows.append(
            f'<tr><th scope="row">{escape(name)} {arrow}</th><td class="value">{score.value:.{d}f}</td><td>{span}</td>'
            f'<td>{truth}</td><td>{score.clips}</td><td class="about">{escape(metric.about)}{notes}</td></tr>'
        )
    head = "".join(f"<th>{name}</th>" for name in ("metric", "value", "95 % interval", "true sounds", "clips", ""))
    legend = "↓ lower is better, ↑ higher, → nearer to the true sounds. Intervals: bootstrap over clips."
    return _table(head, rows) + f'<p class="quiet">{legend}</p>'


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _skipped(found: "Evaluation") -> str:
    rows = [
        f'<tr><th scope="row" class="names">{escape(", ".join(names))}</th><td class="about">{escape(skip.reason)}</td>'
        f'<td class="about">{escape(skip.remedy)}</td></tr>'
        for skip, names in grouped(found.skipped).items()
    ]
    head = "<th>not measured</th><th>because</th><th>what to do</th>"
    return _table(head, rows) if rows else ""


def _comparison(found: "Evaluation") -> str:
    if not found.comparison:
        return ""
    rows = []
    for name, result in found.comparison.items():
        if "reason" in result:
            cells = f'<td colspan="3" class="about">{escape(result["reason"])}</td>'
        else:
            d = METRICS[name].digits + 1
            cells = (
                f"<td>{result['difference']:.{d}f}</td><td>{result['low']:.{d}f} to {result['high']:.{d}f}</td>"
                f"<td>{result['p']:.4f}</td>"
            )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in ("metric", "difference", "95 % interval", "p"))
    return _table(head, rows)


# ---- published figures


def _published(found: "Evaluation") -> str:
    """Ours above theirs, for the metrics that both have; nothing where the protocol is another."""
    rows = published_rows(found.fingerprint["dataset"])
    if not rows or found.fingerprint["duration_s"] != PUBLISHED_SECONDS:
        return ""
    charts = []
    for name, score in found.scores.items():
        theirs = [
            Bar(f"{row.system}: {row.source}", row.values[name], ours=False) for row in rows if name in row.values
        ]
        if theirs:
            mine = Bar(f"{_system(found)}, here", score.value, score.low, score.high)
            charts.append(f"<h3>{escape(name)}</h3>{bars([mine, *theirs], METRICS[name].digits)}")
    protocols = "; ".join(dict.fromkeys(row.protocol for row in rows))
    clips = found.fingerprint["sounds"]["count"]
    about = f"Theirs: {protocols}. Here: {clips} clips; distances between sets depend on how many there are."
    return "".join(charts) + f'<p class="quiet">{escape(about)}</p>' if charts else ""


# ---- clips


def _telling(found: "Evaluation") -> list[str]:
    """Metrics with a value for each clip, not all the same, the most telling first."""
    known = [name for name in SORTED_BY if name in found.scores]
    return [name for name in known if len(set(found.scores[name].values.values())) > 1]


def _curves(found: "Evaluation") -> str:
    charts = [
        curve(list(found.scores[name].values.values()), f"{name}: {METRICS[name].about}", METRICS[name].digits)
        for name in _telling(found)[:CURVES]
    ]
    return f'<div class="curves">{"".join(charts)}</div>' if charts else ""


def _classes(found: "Evaluation") -> str:
    kind_of = {sound.id: sound.clip.kind for sound in found.features.sounds if sound.clip and sound.clip.kind}
    charts = []
    for name in _telling(found)[:HEARD] if kind_of else ():
        by_kind: dict[str, list[float]] = {}
        for owner, value in found.scores[name].values.items():
            if owner in kind_of:
                by_kind.setdefault(kind_of[owner], []).append(value)
        rows = [_class_bar(kind, values) for kind, values in by_kind.items()]
        rows.sort(key=lambda bar: bar.value, reverse=METRICS[name].better == "higher")
        shown = rows if len(rows) <= CLASSES else rows[: CLASSES // 2] + rows[-CLASSES // 2 :]
        title = f"{name}, best class first" + ("" if shown is rows else f"; the ends of {len(rows)} classes")
        charts.append(f"<h3>{escape(title)}</h3>{bars(shown, METRICS[name].digits)}")
    return "".join(charts)


def _class_bar(kind: str, values: Sequence[float]) -> Bar:
    """Mean and, from three clips on, the mean's standard error twice on either side."""
    mean = float(np.mean(values))
    error = 2 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 2 else math.nan
    return Bar(f"{kind} ({len(values)})", mean, mean - error, mean + error)


def _extremes(found: "Evaluation", name: str) -> str:
    score, better = found.scores[name], METRICS[name].better
    worst_first = sorted(score.values.items(), key=lambda item: (item[1] if better == "higher" else -item[1], item[0]))
    count = min(EXTREMES, len(worst_first) // 2)
    sounds = {sound.id: sound for sound in found.features.sounds}
    groups = {"Worst": worst_first[:count], "Best": worst_first[::-1][:count]}
    return "".join(
        f"<h3>{title}</h3>" + "".join(_clip(found, name, sounds[owner], score) for owner, _ in chosen)
        for title, chosen in groups.items()
        if chosen
    )


def _clip(found: "Evaluation", name: str, sound: Sound, score: Score) -> str:
    others = [
        f"{other} {found.scores[other].values[sound.id]:.{METRICS[other].digits}f}"
        for other in _telling(found)
        if other != name and sound.id in found.scores[other].values
    ]
    value = f"{name} {score.values[sound.id]:.{METRICS[name].digits}f}"
    caption = sound.clip.caption if sound.clip else ""
    caption = caption[:CAPTION] + ("..." if len(caption) > CAPTION else "")
    duration = found.features.duration
    players = player(sound.path, duration, "generated")
    if sound.clip and sound.clip.reference:
        players += player(sound.clip.reference, duration, "true sound")
    return (
        f"<article><h4>{escape(sound.id)}</h4><p>{escape(caption)}</p>"
        f'<p class="quiet"><b>{escape(value)}</b> {escape(", ".join(others))}</p>'
        f'<div class="pair">{players}</div></article>'
    )


# ---- what else is to be known


def _failures(found: "Evaluation") -> str:
    rows = [
        f"<tr><th scope='row'>{escape(f.clip)}</th><td>{escape(f.where)}</td><td>{escape(f.by)}</td>"
        f'<td class="about">{escape(f.reason)}</td></tr>'
        for f in found.failures[:FAILURES]
    ]
    if not rows:
        return ""
    more = len(found.failures) - len(rows)
    rest = f'<p class="quiet">and {more} more in metrics.json</p>' if more else ""
    return _table("", rows) + rest


def _fingerprint(found: "Evaluation") -> str:
    text = json.dumps(found.fingerprint, indent=2, ensure_ascii=False)
    return f"<details><summary>how these figures were made</summary><pre>{escape(text)}</pre></details>"

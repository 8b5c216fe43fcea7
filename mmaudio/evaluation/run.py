"""The evaluation from beginning to end: sounds, features, scores, and the files that say what came out."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np

from mmaudio.console import UsageError, log
from mmaudio.data.parts import write_text
from mmaudio.evaluation.backbones import BACKBONES, Found, find_backbone
from mmaudio.evaluation.cache import digest
from mmaudio.evaluation.features import SETS, Failure, Features, Skip, rank_and_world
from mmaudio.evaluation.gathering import EvaluateConfig, Gathered, gather
from mmaudio.evaluation.generating import local_device
from mmaudio.evaluation.metrics import INCEPTION_SEED, Estimate, compare_systems
from mmaudio.evaluation.model_free import ALIGNMENT, ONSETS
from mmaudio.evaluation.scorecard import METRICS, grouped, score_all
from mmaudio.evaluation.scoring import Score
from mmaudio.version import __version__

RESULT, CLIPS, REPORT = "metrics.json", "clips.json", "report.html"
PACKAGES = ("torch", "torchaudio", "numpy", "librosa")  # whose versions can move a number
SOME_FAILED = 1
SHOWN = 5  # failures in a message


@dataclass
class Evaluation:
    """All that came out of one run."""

    gathered: Gathered
    features: Features
    scores: dict[str, Score]
    skipped: dict[str, Skip]
    failures: list[Failure]
    fingerprint: dict
    comparison: dict | None = None
    times: dict = field(default_factory=dict)

    @property
    def failed_clips(self) -> list[str]:
        return sorted({failure.clip for failure in self.failures})


def evaluate(config: EvaluateConfig, find: Callable[[str], Found] | None = None) -> int:
    """Make, look at and score; write `metrics.json`, `clips.json` and `report.html`, print the table.

    Args:
        find: gives a backbone by name or raises `Unavailable`; the default looks for packages and weights.

    Returns:
        The exit code: 0, or 1 if more clips failed than `allow_missing`.

    Raises:
        UsageError, DatasetError, CacheError, ExtractionError, WeightError, MediaError: one line for the user.
    """
    config.check()
    names, device = wanted_backbones(config), local_device(config.device)
    other = read_clips(config.compare) if config.compare else None
    began = time.monotonic()
    gathered = gather(config)
    made = time.monotonic()
    features = Features(
        gathered.sounds,
        gathered.references,
        folder=config.out / "features",
        shared=config.shared / gathered.origin,
        duration=config.seconds,
        find=find or (lambda name: find_backbone(name, device, config.weights_dir, config.download)),
    )
    features.extract(names)
    if rank_and_world()[0]:  # the first rank does the rest
        return 0
    extracted = time.monotonic()
    scores, skipped = score_all(features, names)
    found = Evaluation(
        gathered, features, scores, skipped, gathered.failures + features.failures,
        fingerprint(config, gathered, features),
    )  # fmt: skip
    if other is not None:
        found.comparison = compare(found, other)
    found.times = {
        "sounds_s": made - began,
        "features_s": extracted - made,
        "scores_s": time.monotonic() - extracted,
        "features_made": features.made,
    }
    write_results(config.out, found)
    print(table(found), flush=True)
    return conclude(config, found)


def wanted_backbones(config: EvaluateConfig) -> tuple[str, ...]:
    """Those asked for; by default all, of which the judge knows the Stage alone."""
    if config.backbones is None:
        return tuple(name for name in BACKBONES if name != "judge" or config.dataset == "stage")
    if unknown := [name for name in config.backbones if name not in SETS]:
        raise UsageError(f"unknown backbone {unknown[0]!r}: expected some of {','.join(SETS)}, or none")
    return config.backbones


def conclude(config: EvaluateConfig, found: Evaluation) -> int:
    log(f"written: {', '.join(str(config.out / name) for name in (RESULT, CLIPS, REPORT))}")
    failed = found.failed_clips
    if failed:
        log(f"{len(failed)} clips failed:")
        for failure in found.failures[:SHOWN]:
            log(f"  {failure.clip} ({failure.where}, {failure.by}): {failure.reason}")
        if len(found.failures) > SHOWN:
            log(f"  and more, see {config.out / RESULT}")
    if len(failed) > config.allow_missing:
        log(f"error: {len(failed)} clips failed, {config.allow_missing} may; add --allow_missing {len(failed)}")
        return SOME_FAILED
    return 0


# ---- what was done, so that two tables can be told apart


def fingerprint(config: EvaluateConfig, gathered: Gathered, features: Features) -> dict:
    keys = features.keys
    sounds = sorted(f"{sound.id} {sound.clip_id} {keys[sound.path]}" for sound in gathered.sounds)
    data = sorted(f"{c.id} {keys.get(c.reference)} {keys.get(c.video)} {c.times}" for c in gathered.references)
    captions = sorted(f"{sound.id} {sound.clip.caption}" for sound in gathered.sounds if sound.clip)
    return {
        "dataset": config.dataset or "folder",
        "sounds": {"count": len(sounds), "hash": digest("\n".join(sounds))},
        "data": {"count": len(data), "hash": digest("\n".join(data))},
        "captions": {"count": len(captions), "hash": digest("\n".join(captions))},
        "duration_s": config.seconds,
        "crop": "the first duration_s seconds of each clip; each backbone's own crop: docs/evaluation_metrics.md",
        "pairing": "none" if config.unpaired else "by name",
        "made_by": gathered.made_by or None,
        "backbones": features.identities,
        "model_free": {"onsets": ONSETS, "alignment": ALIGNMENT},
        "seeds": {"bootstrap": 0, "inception": INCEPTION_SEED},
        "code": {"version": __version__, "hash": code_hash()},
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def code_hash() -> str:
    """Of the sources of this package: a version number alone does not tell two checkouts apart."""
    folder = Path(__file__).parent
    return digest(*(path.read_bytes() for path in sorted(folder.rglob("*.py"))), size=8)


# ---- files


def write_results(out: Path, found: Evaluation) -> None:
    from mmaudio.evaluation.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CLIPS, json.dumps(clip_scores(found), indent=1, allow_nan=False) + "\n")
    write_report(out / REPORT, found)
    write_text(
        out / RESULT, json.dumps(summary(found), indent=2, allow_nan=False) + "\n"
    )  # last: it says that the run is complete


def summary(found: Evaluation) -> dict:
    """Ready for JSON; two runs on the same data differ in `times` alone."""
    metrics = {}
    for name, score in found.scores.items():
        metrics[name] = {
            "value": score.value, "low": plain(score.low), "high": plain(score.high), "clips": score.clips,
            "true_sounds": score.truth, "better": METRICS[name].better, "about": METRICS[name].about,
            "notes": list(score.notes),
        }  # fmt: skip
    return {
        "metrics": metrics,
        "skipped": {name: asdict(skip) for name, skip in found.skipped.items()},
        "failed": [asdict(failure) for failure in found.failures],
        "comparison": found.comparison,
        "fingerprint": found.fingerprint,
        "times": found.times,
    }


def clip_scores(found: Evaluation) -> dict:
    """What each clip contributes; `--compare` reads it."""
    return {
        "fingerprint": found.fingerprint,
        "metrics": {
            name: {"value": score.value, "values": score.values, "shares": shares(score.estimate)}
            for name, score in found.scores.items()
        },
    }


def shares(estimate: Estimate | None) -> dict[str, float] | None:
    """Clip to its share; None if they are not known."""
    if estimate is None or not np.isfinite(estimate.shares).all():
        return None
    return dict(zip(estimate.clips, estimate.shares.tolist(), strict=True))


def plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ---- two systems


def read_clips(path: Path) -> dict:
    """The `clips.json` of another run, given itself or its folder.

    Raises:
        UsageError: there is none, or something else.
    """
    path = path / CLIPS if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"fingerprint": found["fingerprint"], "metrics": dict(found["metrics"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--compare {path}: is no {CLIPS} of another run ({error})") from error


def compare(found: Evaluation, other: dict) -> dict:
    """Each metric of this run minus the other's, with interval and p-value, or the reason why they do not compare."""
    comparison = {}
    for name, score in found.scores.items():
        try:
            before = comparable(name, found.fingerprint, other)
            if shares(score.estimate) is None:
                raise ValueError("it is of all events together: clips have no shares in it")
            comparison[name] = asdict(compare_systems(score.estimate, before))
        except ValueError as error:
            comparison[name] = {"reason": str(error)}
    return comparison


def comparable(name: str, fingerprint: dict, other: dict) -> Estimate:
    """A metric of the other run; ValueError if there is none, or one that was measured differently."""
    before, theirs, backbone = other["metrics"].get(name), other["fingerprint"], METRICS[name].backbone
    if before is None or not before["shares"]:
        raise ValueError("the other run has no shares of clips in it")
    if theirs["duration_s"] != fingerprint["duration_s"]:
        raise ValueError(f"the other run is about {theirs['duration_s']:g} s of each clip")
    if backbone and theirs["backbones"].get(backbone) != fingerprint["backbones"].get(backbone):
        raise ValueError(f"the other run has another backbone {backbone}")
    clips, each = zip(*sorted(before["shares"].items()), strict=True)
    return Estimate(before["value"], clips, np.array(each))


# ---- the terminal


def table(found: Evaluation) -> str:
    """A line for each metric, and for each reason why others are skipped."""
    lines = [f"{'metric':16s}{'value':>11s}  {'95 % interval':22s}{'clips':>6s}{'true':>10s}  better"]
    for name, score in found.scores.items():
        d = METRICS[name].digits
        span = f"{score.low:.{d}f} .. {score.high:.{d}f}" if math.isfinite(score.low) else "-"
        truth = "" if score.truth is None else f"{score.truth:.{d}f}"
        lines.append(f"{name:16s}{score.value:11.{d}f}  {span:22s}{score.clips:6d}{truth:>10s}  {METRICS[name].better}")
        lines += [f"{'':16s}  note: {note}" for note in score.notes]
    for skip, names in grouped(found.skipped).items():
        lines.append(f"skipped: {', '.join(names)}\n{'':16s}  {skip.reason}\n{'':16s}  {skip.remedy}")
    for name, result in (found.comparison or {}).items():
        if "reason" in result:
            lines.append(f"{name:16s}  not compared: {result['reason']}")
        else:
            d = METRICS[name].digits + 1
            difference, low, high, p = (result[key] for key in ("difference", "low", "high", "p"))
            lines.append(f"{name:16s}  differs by {difference:.{d}f} ({low:.{d}f} .. {high:.{d}f}), p = {p:.4f}")
    return "\n".join(lines)

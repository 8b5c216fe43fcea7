"""The table: every metric by name, what measures it, and which way is better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmaudio.evaluation import scoring
from mmaudio.evaluation.backbones.audioset import MUSIC, SPEECH
from mmaudio.evaluation.features import Features, Skip
from mmaudio.evaluation.judge import KIND_COLUMNS, MATERIAL_COLUMNS
from mmaudio.evaluation.metrics import frechet_estimate, kernel_estimate
from mmaudio.evaluation.model_free import PUBLISHED_TOLERANCE, TOLERANCES, strict_mode
from mmaudio.evaluation.scoring import NO_CAPTIONS, NO_VIDEOS, NotMeasured, Score

TAGGERS = {"PANNs": "panns", "PaSST": "passt", "judge": "judge"}
AESTHETICS = {"PQ": "production quality", "PC": "production complexity", "CE": "enjoyment", "CU": "usefulness"}
LAG_TOLERANCE = 0.1  # seconds


@dataclass(frozen=True)
class Metric:
    """A row of the table."""

    name: str
    backbone: str | None  # None: no network
    better: str  # "lower", "higher", or "truth": nearer to the value of the true sounds
    about: str
    score: Callable[[Features], Score]
    digits: int = 3


def _distances() -> list[Metric]:
    def distance(name: str, backbone: str, estimate: Callable, paired: bool, digits: int = 3) -> Metric:
        kind = "Frechet" if estimate is frechet_estimate else "kernel"
        about = f"{kind} distance of {name.partition('_')[2]} features, {'pairs' if paired else 'all clips'}"
        return Metric(name, backbone, "lower", about, scoring.set_distance(estimate, backbone, paired), digits)

    return [
        distance("FD_VGG", "vggish", frechet_estimate, False),
        distance("FD_PANNs", "panns", frechet_estimate, False, 2),
        distance("FD_PaSST", "passt", frechet_estimate, True, 2),
        distance("FD_judge", "judge", frechet_estimate, False),
        distance("KAD_PANNs", "panns", kernel_estimate, False),
        distance("KAD_PaSST", "passt", kernel_estimate, True),
    ]


def _classes() -> list[Metric]:
    rows = []
    for label, name in TAGGERS.items():
        rows.append(
            Metric(f"KL_{label}", name, "lower", f"KL(true || made) of {label} classes", scoring.divergence(name))
        )
        rows.append(
            Metric(f"IS_{label}", name, "higher", f"inception score of {label} classes", scoring.inception(name), 2)
        )
    for what, classes in {"Speech": SPEECH, "Music": MUSIC}.items():
        about = f"share of clips with {what.lower()} that the true sound has not"
        rows.append(Metric(what, "panns", "lower", about, scoring.intruding(classes)))
    for what, columns in {"kinds": KIND_COLUMNS, "materials": MATERIAL_COLUMNS}.items():
        about = f"share of the {what} of sound that the Stage's judge hears"
        rows.append(Metric(f"Judge_{what}", "judge", "higher", about, scoring.labels(columns)))
    return rows


def _similarities() -> list[Metric]:
    seen, said = scoring.similarity("imagebind", "video", NO_VIDEOS), "cosine of caption and sound"
    return [
        Metric("IB", "imagebind", "higher", "cosine of video and sound", seen),
        Metric("DeSync", "synchformer", "lower", "seconds between picture and sound", scoring.synchrony),
        *(
            Metric(name, backbone, "higher", said, scoring.similarity(backbone, "captions", NO_CAPTIONS))
            for name, backbone in {"CLAP_LAION": "clap_laion", "CLAP_MS": "clap_ms"}.items()
        ),
        *(
            Metric(f"Audiobox_{short}", "audiobox", "higher", about, scoring.aesthetic(i), 2)
            for i, (short, about) in enumerate(AESTHETICS.items())
        ),
    ]


def _onsets() -> list[Metric]:
    published, within = "Greatest Hits protocol as published", f"within {1000 * LAG_TOLERANCE:.0f} ms"
    means = {
        "Onset_Acc": (f"events met within {PUBLISHED_TOLERANCE:g} s", lambda hits: hits.accuracy),
        "Onset_AP": ("average precision of the onsets", lambda hits: hits.average_precision),
        "Onset_F1": ("F1 of the onsets", lambda hits: hits.f1),
    }
    lag = scoring.onset_total(strict_mode(LAG_TOLERANCE), scoring.median_lag)
    return [
        *(
            Metric(name, None, "higher", f"{about}; {published}", scoring.onset_mean("reference", value_of))
            for name, (about, value_of) in means.items()
        ),
        *(
            Metric(
                f"Onset_F1_{1000 * t:.0f}ms", None, "higher", f"F1 of onsets, one to one, within {1000 * t:.0f} ms",
                scoring.onset_total(strict_mode(t), lambda hits: hits.f1),
            )
            for t in TOLERANCES
        ),
        Metric("Onset_lag_ms", None, "truth", f"median of found minus true time, {within}", lag, 1),
        Metric("AV_Align", None, "higher", "onsets and motion peaks that meet, of all", scoring.alignment),
    ]  # fmt: skip


METRICS: dict[str, Metric] = {m.name: m for m in (*_distances(), *_classes(), *_similarities(), *_onsets())}


def score_all(features: Features, backbones: Sequence[str]) -> tuple[dict[str, Score], dict[str, Skip]]:
    """Every metric, measured or skipped, in the table's order; those of unwanted backbones are left out."""
    scores, skipped = {}, {}
    for name, metric in METRICS.items():
        if metric.backbone is not None and metric.backbone not in backbones:
            continue
        if metric.backbone in features.skipped:
            skipped[name] = features.skipped[metric.backbone]
            continue
        try:
            scores[name] = metric.score(features)
        except NotMeasured as nothing:
            skipped[name] = nothing.skip
        except ValueError as error:  # too few clips for it
            skipped[name] = Skip(" ".join(str(error).split()), "evaluate more clips")
    return scores, skipped


def grouped(skipped: dict[str, Skip]) -> dict[Skip, list[str]]:
    """Reason to the metrics that are skipped for it."""
    found: dict[Skip, list[str]] = {}
    for name, skip in skipped.items():
        found.setdefault(skip, []).append(name)
    return found

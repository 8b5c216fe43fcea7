"""Figures that others have published, with what they were measured on, to be shown beside ours and never as ours."""

from collections.abc import Mapping
from dataclasses import dataclass

PROTOCOL = (
    "VGGSound test set, 8 s clips; FD_VGG, FD_PANNs over all clips, the rest over pairs; "
    "AudioSet PANNs Cnn14_16k, VGGish without its last ReLU and PCA, PaSST padded to 10 s, ImageBind-huge, "
    "Synchformer 24-01-04T16-39-21"
)


@dataclass(frozen=True)
class Published:
    """One row of a table, its values by the names of our metrics and in their units: IB as a cosine, not times 100."""

    system: str
    dataset: str  # as `--dataset` names it
    values: Mapping[str, float]
    source: str
    protocol: str


PUBLISHED = (
    Published(
        "small_16k", "vggsound",
        {
            "FD_VGG": 0.79, "FD_PANNs": 5.22, "FD_PaSST": 70.19, "KL_PANNs": 1.65, "KL_PaSST": 1.59,
            "IB": 0.2913, "DeSync": 0.483,
        },
        "Cheng et al., Taming Multimodal Joint Training for High-Quality Video-to-Audio Synthesis (CVPR 2025)",
        PROTOCOL,
    ),
    Published(
        "small_16k", "vggsound",
        {
            "FD_VGG": 0.797, "FD_PANNs": 5.27, "FD_PaSST": 69.5, "KL_PANNs": 1.642, "KL_PaSST": 1.595,
            "IB": 0.292, "DeSync": 0.489,
        },
        "reproduction by a third party, MMAudio issue 90",
        PROTOCOL,
    ),
)  # fmt: skip


def published_rows(dataset: str) -> list[Published]:
    """What is known of a data set; empty for one that nobody has published figures of."""
    return [row for row in PUBLISHED if row.dataset == dataset]

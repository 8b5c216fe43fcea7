"""Captions that are not of their clips, found without another list to compare with: by what is heard.

The Foley Stage's judge knows the kinds of sound of the Stage, and Stage captions name each kind that sounds: so this is
for Stage clips alone.
"""

import re
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from mmaudio.evaluation.hygiene.captions import stretches
from mmaudio.evaluation.hygiene.report import Finding, Report
from mmaudio.evaluation.hygiene.sets import ClipSet, Item
from mmaudio.evaluation.judge import KIND_COLUMNS, Judge, load_judge
from mmaudio.media import MediaError, read_audio
from mmaudio.stage import KINDS
from mmaudio.stage.phrases import KIND_WORDS

UNHEARD = "caption unheard"  # the finding
FARTHEST = 10  # rows
SUREST = 0.95  # the judge is never believed more than that
ENOUGH = 30.0  # nats by which a shift must explain a stretch of clips better than no shift
UNLIKELY = -5.5  # log-likelihood of a caption that is not believed: one kind too many and one missing, for sure
PATTERNS = [re.compile(rf"\b({'|'.join(KIND_WORDS[kind])})\b", re.IGNORECASE) for kind in KINDS]


def add_unheard(checked: Sequence[ClipSet], report: Report, duration: float) -> None:
    """Add captions that name other kinds of sound than are heard to a report.

    Raises:
        WeightError: the judge is missing, or was trained for another Stage.
    """
    judge = load_judge()
    for clips in checked:
        heard = [_heard(judge, item, duration) for item in tqdm(clips.items, "judge", disable=None)]
        fit = Fit(heard, [item.caption for item in clips.items])
        shifted = dict(fit.shifted())
        for row, item in enumerate(clips.items):
            if row in shifted:
                shift = shifted[row]
                detail = f"sounds like the caption {shift:+d} rows away, and so do the clips around it"
                found = Finding(clips.name, item.id, UNHEARD, detail, clips.name, clips.items[row + shift].id)
            elif fit.known[row] and fit.likelihoods(np.array([row]), np.array([row]))[0] < UNLIKELY:
                sounds = ", ".join(kind for kind, p in zip(KINDS, heard[row], strict=True) if p > 0.5) or "nothing"
                found = Finding(clips.name, item.id, UNHEARD, f"what is heard: {sounds}")
            else:
                continue
            report.findings.append(found)
            report.removed[clips.name].add(row)


def _heard(judge: Judge, item: Item, duration: float) -> np.ndarray | None:
    """Probability of each kind; None for a file that cannot be read, which was found already."""
    if item.path is None:
        return None
    try:
        samples, rate = read_audio(item.path, duration, item.start)
        return judge.listen(samples.mean(0).numpy(), rate).probabilities[KIND_COLUMNS]
    except (MediaError, ValueError):
        return None


class Fit:
    """How well captions say what is heard.

    Args:
        heard: probabilities (len(KINDS),) of each clip.
        captions: one for each clip.
    """

    def __init__(self, heard: Sequence[np.ndarray | None], captions: Sequence[str | None]):
        self.known = np.array([p is not None and bool(text) for p, text in zip(heard, captions, strict=True)])
        self.named = np.array([[bool(pattern.search(text or "")) for pattern in PATTERNS] for text in captions])
        sure = np.array([np.zeros(len(KINDS)) if p is None else p for p in heard])
        self.sure = sure.clip(1 - SUREST, SUREST)

    def likelihoods(self, clips: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Logarithms (n,), of the kinds that these captions name if these clips are heard."""
        sure = self.sure[clips]
        return np.where(self.named[texts], np.log(sure), np.log(1 - sure)).sum(1)

    def shifted(self) -> list[tuple[int, int]]:
        """(Row, shift): the clip sounds like the caption of row + shift, in stretches of the same shift."""
        count, found = len(self.known), {}
        for shift in (k for k in range(-FARTHEST, FARTHEST + 1) if k):
            clips = np.arange(max(0, -shift), min(count, count - shift))
            if not len(clips):
                continue
            gains = self.likelihoods(clips, clips + shift) - self.likelihoods(clips, clips)
            gains *= self.known[clips] & self.known[clips + shift]
            for first, end in stretches(gains, ENOUGH):
                total = float(gains[first:end].sum())
                for row in clips[first:end]:
                    if total > found.get(row, (0.0, 0))[0]:
                        found[row] = (total, shift)
        return [(int(row), found[row][1]) for row in sorted(found)]

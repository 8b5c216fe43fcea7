from types import SimpleNamespace

import numpy as np
import pytest

from mmaudio.evaluation.judge import EMBEDDING, LABELS, Verdict, label_mask
from mmaudio.evaluation.stage_report import COLUMNS, Figure, Known, figures, hear, table
from mmaudio.stage import Event

RATE = 16_000


class Oracle:
    """Hears what it is told, in the order of listening."""

    def __init__(self, masks):
        self.rng, self.masks = np.random.default_rng(0), iter(masks)

    def listen(self, audio, sample_rate):
        logits = np.where(next(self.masks), 5.0, -5.0) + self.rng.normal(0, 0.1, len(LABELS))
        return Verdict(logits, logits @ np.random.default_rng(7).normal(0, 1, (len(LABELS), EMBEDDING)))


def clicks(times, seconds=3.0):
    audio = np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE))
    t = np.arange(RATE // 10) / RATE
    for time in times:
        start = round(time * RATE)
        audio[start : start + len(t)] += 0.5 * np.exp(-t / 0.02) * np.sin(2 * np.pi * 1500 * t)
    return audio


@pytest.fixture(scope="module")
def clips():
    rng, names = np.random.default_rng(1), ["metal", "wood", "glass"]
    return [
        Known(i, "", np.sort(rng.choice(np.arange(0.2, 2.8, 0.3), 4, replace=False)), label_mask(("bounce",), (m,)))
        for i, m in enumerate(names * 4)
    ]


def test_true_sound_is_right_in_every_column(clips):
    judge = Oracle([c.labels for c in clips])
    truth = [hear(clicks(c.times), RATE, c, judge) for c in clips]
    found = figures(clips, truth, truth, resamples=20)
    assert list(found) == list(COLUMNS)
    for name in ("accuracy", "AP", "F1 50ms", "F1 100ms", "kind", "material"):
        assert found[name] == Figure(1.0, 1.0, 1.0), name
    assert found["|lag| ms"].value < 5
    assert found["KL"].value == 0
    assert found["FD"].value == pytest.approx(0, abs=1e-6)
    assert 1 < found["IS"].value < 3.1


def test_wrong_sound_is_wrong_in_every_column(clips):
    """Sounds of the clips one further on: other times, other materials, the same kind."""
    truth_judge, wrong = Oracle([c.labels for c in clips]), clips[1:] + clips[:1]
    truth = [hear(clicks(c.times), RATE, c, truth_judge) for c in clips]
    heard = [hear(clicks(w.times + 0.15), RATE, c, Oracle([w.labels])) for w, c in zip(wrong, clips, strict=True)]
    found = figures(clips, heard, truth, resamples=20)
    assert found["F1 100ms"].value == found["accuracy"].value == found["AP"].value == 0
    assert np.isnan(found["|lag| ms"].value)
    assert (found["kind"].value, found["material"].value) == (1, 0)
    assert found["KL"].value > 1
    assert found["kind"].low == found["kind"].high == 1


def test_late_sound_is_late(clips):
    judge = Oracle([c.labels for c in clips] * 2)
    truth = [hear(clicks(c.times), RATE, c, judge) for c in clips]
    late = [hear(clicks(c.times + 0.07), RATE, c, judge) for c in clips]
    found = figures(clips, late, truth, resamples=20)
    assert found["F1 50ms"].value == 0
    assert found["F1 100ms"].value == 1
    assert found["|lag| ms"].value == pytest.approx(70, abs=8)
    assert found["|lag| ms"].low <= found["|lag| ms"].value <= found["|lag| ms"].high


def test_intervals_end_where_figures_do(clips):
    """Most clips are right: resampled means, moved to the estimate, would leave what a share can be."""
    judge = Oracle([c.labels for c in clips])
    truth = [hear(clicks(c.times), RATE, c, judge) for c in clips]
    mixed = Oracle([c.labels for c in (*clips[:-1], clips[0])])
    heard = [hear(clicks(c.times), RATE, c, mixed) for c in clips]
    for side in (truth, heard):
        found = figures(clips, side, truth, resamples=20)
        assert found["material"].high <= 1
        assert min(found["FD"].low, found["KL"].low) >= 0


def test_only_clips_of_sharp_seen_events_have_onsets():
    def clip(*events):
        words = SimpleNamespace(seed=1, caption="", kinds=("bounce",), materials=("wood",), events=events)
        return Known.of(words).times.tolist()

    sharp, later = Event(0.5, "bounce", "wood", 1.0, 0.5, 0.5), Event(1.5, "bounce", "wood", 1.0, 0.5, 0.5)
    assert clip(sharp, later) == [0.5, 1.5]
    assert clip(sharp, Event(1.0, "rain", None, 1.0, 0.5, 0.5, seconds=4.0)) == []
    assert clip(sharp, Event(1.0, "bounce", "wood", 1.0, 0.5, 0.5, seen=False)) == []
    assert clip() == []


def test_clips_without_onsets_or_labels_are_nothing_to_measure():
    clips = [Known(i, "", np.zeros(0), label_mask((), ())) for i in range(3)]
    heard = [hear(clicks([1.0]), RATE, c, Oracle([c.labels])) for c in clips]
    found = figures(clips, heard, heard, resamples=20)
    for name in ("accuracy", "AP", "F1 50ms", "|lag| ms", "kind", "material", "IS"):
        assert np.isnan(found[name].value), name
        assert np.isnan(found[name].low), name
    text = table({"silence": found})
    assert text.splitlines()[1].split()[:5] == ["silence", "-", "-", "-", "-"]


def test_table():
    found = {column: Figure(0.5, 0.25, 0.75) for column in COLUMNS} | {"|lag| ms": Figure(12.34, 10, 14)}
    header, values, spans = table({"a row": found}).splitlines()
    assert header.split("  ")[-1].strip() == "IS"
    assert values.split()[:3] == ["a", "row", "0.500"]
    assert "12.3" in values.split()
    assert spans.split()[0] == "0.250..0.750"
    assert len(header) == len(values) == len(spans)

import itertools
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mmaudio.evaluation.onsets import (
    Hits,
    closest_matching,
    confidences,
    detect_onsets,
    greatest_hits,
    librosa_onsets,
    match_onsets,
    suppress,
)

RATE = 22050
CASES = ["onsets_all_hit", "onsets_mixed", "onsets_run_out", "onsets_dense"]


def clip(golden, name):
    case = golden(name)
    truth = [t for t in case.config["times"] if t < 8]
    return case, case.input("waveform")[: 8 * RATE], np.array(case.outputs["raw_onsets"]) / RATE, np.array(truth)


@pytest.mark.parametrize("name", CASES)
def test_reference_mode_is_the_published_protocol(golden, name):
    case, audio, found, truth = clip(golden, name)
    hits = greatest_hits(found, audio, RATE, truth, mode="reference", tolerance=0.3)
    case.check("labels", hits.labels)
    case.check("confidences", hits.scores)
    for key, value in {"accuracy": hits.accuracy, "ap": hits.average_precision, "f1": hits.f1}.items():
        case.check(key, value)


@pytest.mark.parametrize("name", CASES)
def test_strict_mode(golden, name):
    case, audio, found, truth = clip(golden, name)
    for milliseconds in (50, 100, 300):
        hits = greatest_hits(found, audio, RATE, truth, mode="strict", tolerance=milliseconds / 1000)
        expected = case.outputs["strict"][f"{milliseconds}ms"]
        assert len(hits.lags) == expected["matched"]
        assert hits.accuracy == pytest.approx(expected["recall"])
        assert hits.f1 == pytest.approx(expected["f1"])
        assert np.median(hits.lags) == pytest.approx(expected["median_lag"], rel=1e-5, abs=1e-6)
        assert hits.f1 == match_onsets(found, truth, milliseconds / 1000).f1


@pytest.mark.slow  # librosa compiles its peak picking: 20 s
def test_the_published_detector(golden):
    _, audio, found, _ = clip(golden, "onsets_mixed")
    np.testing.assert_array_equal(librosa_onsets(audio), found)


def test_suppression(golden):
    case = golden("onset_nms")
    for wave, config, scores, kept in (
        ("waveform", "onsets", "confidences", "kept"),
        ("tied", "tied_onsets", "tied_confidences", "tied_later_first"),
    ):
        onsets, audio = np.array(case.config[config]), case.input(wave)
        level = (audio - audio.min()) / (audio.max() - audio.min() + 1e-6)
        case.check(scores, confidences(onsets / RATE, level, RATE) * level.max())
        case.check(kept, onsets[suppress(onsets / RATE, np.array(case.outputs[scores]))])


def test_nothing_to_hear_or_to_find(golden):
    case = golden("onset_guards")
    for name, situation in case.config["situations"].items():
        audio, truth = case.input(situation["waveform"]), np.array([t for t in situation["times"] if t < 8])
        found = np.array([2.0, 5.0]) if situation["waveform"] == "plain" else np.array([])
        if situation["waveform"] == "early":
            found = np.array([1536 / RATE, 2.0, 5.0])
        hits = greatest_hits(found, audio, RATE, truth, mode="reference", tolerance=0.3)
        got, expected = {"accuracy": hits.accuracy, "ap": hits.average_precision, "f1": hits.f1}, case.outputs[name]
        if "fails_with" in expected:
            assert np.isnan(got["ap"])
            assert np.isnan(got["f1"])
        else:
            assert got == pytest.approx(expected)


def test_silence_earns_nothing_in_strict_mode():
    hits = greatest_hits([], np.zeros(RATE), RATE, [0.2, 0.5], mode="strict", tolerance=0.1)
    assert (hits.accuracy, hits.average_precision, hits.f1) == (0, 0, 0)
    assert np.isnan(hits.median_lag)
    with pytest.raises(ValueError, match="unknown mode 'loose'"):
        greatest_hits([], np.zeros(RATE), RATE, [], mode="loose", tolerance=0.1)


def test_average_precision_by_hand():
    # by falling confidence: hit, extra, hit; one true time in three is missed
    hits = Hits(np.array([1.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.5]), np.array([0.01, -0.03]), 3, 3)
    assert hits.average_precision == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert hits.median_lag == pytest.approx(0.02)
    both = Hits.sum([hits, hits])
    assert (both.truths, both.accuracy, both.f1) == (6, hits.accuracy, hits.f1)
    assert both.average_precision == pytest.approx(hits.average_precision)  # ties are one step


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    for _ in range(50):
        labels, scores = rng.integers(0, 2, 12).astype(float), rng.integers(1, 6, 12) / 5  # with ties
        labels[0] = 1
        hits = Hits(labels, scores, np.zeros(int(labels.sum())), int(labels.sum()), int(labels.sum()))
        assert hits.average_precision == pytest.approx(average_precision_score(labels, scores))


def test_closest_matching_is_optimal():
    rng = np.random.default_rng(0)
    for _ in range(40):
        found, truth = (np.sort(rng.uniform(0, 1, rng.integers(0, 5))) for _ in range(2))
        pairs = closest_matching(found, truth, 0.3)
        got = (-len(pairs), sum(abs(found[i] - truth[j]) for i, j in pairs))
        best = (0, 0.0)
        for k in range(1, min(len(found), len(truth)) + 1):
            for chosen in itertools.combinations(range(len(found)), k):
                for order in itertools.permutations(range(len(truth)), k):
                    distances = [abs(found[i] - truth[j]) for i, j in zip(chosen, order, strict=True)]
                    if max(distances) <= 0.3:
                        best = min(best, (-k, sum(distances)))
        assert got == pytest.approx(best)


def test_our_detector_serves_the_protocol(golden):
    _, audio, _, truth = clip(golden, "onsets_all_hit")
    hits = greatest_hits(detect_onsets(audio, RATE), audio, RATE, truth, mode="strict", tolerance=0.05)
    assert (hits.accuracy, hits.average_precision, hits.f1) == (1, 1, 1)
    assert hits.median_lag < 0.01


def test_sound_that_has_no_onsets_to_look_for():
    for audio, problem in (
        (np.zeros((2, RATE)), r"got \(2, 22050\)"),
        (np.full(RATE, np.nan), "22050 of 22050 samples"),
    ):
        with pytest.raises(ValueError, match=problem):
            detect_onsets(audio, RATE)
        with pytest.raises(ValueError, match=problem):
            librosa_onsets(audio)
    assert len(detect_onsets(np.zeros(10), RATE)) == 0


def test_without_librosa_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(ValueError, match=r"needs librosa: pip install 'mmaudio\[eval\]'"):
        librosa_onsets(np.zeros(RATE))


@pytest.mark.parametrize("late", [-0.08, 0.02, 0.2])
def test_shifted_clicks_have_the_lag_they_were_shifted_by(late):
    times = np.arange(0.5, 7.5, 0.7)
    audio = np.random.default_rng(2).normal(0, 1e-3, 8 * RATE)
    for time in times:
        start = round((time + late) * RATE)
        audio[start : start + 400] += np.exp(-np.arange(400) / 80) * np.sin(np.arange(400))
    found = detect_onsets(audio, RATE)
    for tolerance in (0.05, 0.1, 0.3):
        hits = greatest_hits(found, audio, RATE, times, mode="strict", tolerance=tolerance)
        assert hits.accuracy == hits.f1 == (abs(late) < tolerance)
        if hits.accuracy:
            assert np.median(hits.lags) == pytest.approx(late, abs=0.01)

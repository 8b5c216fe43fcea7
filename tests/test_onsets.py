import numpy as np

from mmaudio.evaluation.onsets import Matches, detect_onsets, match_onsets


def test_clicks_are_found_where_they_are():
    rng = np.random.default_rng(0)
    for rate in (16_000, 44_100):
        audio = rng.normal(0, 1e-3, 4 * rate)
        times = [0.5, 1.1, 1.3, 2.75, 3.6]
        for t in times:
            ring = np.exp(-np.arange(rate // 5) / rate / 0.03) * np.sin(2 * np.pi * 900 * np.arange(rate // 5) / rate)
            audio[int(t * rate) : int(t * rate) + len(ring)] += 0.3 * ring
        found = detect_onsets(audio, rate)
        assert match_onsets(found, np.array(times), 0.015) == Matches(5, 0, 0)


def test_silence_and_noise_have_no_onsets():
    assert len(detect_onsets(np.zeros(16_000), 16_000)) == 0
    assert len(detect_onsets(np.random.default_rng(1).normal(0, 0.01, 32_000), 16_000)) == 0


def test_matching_is_one_to_one_and_largest():
    assert match_onsets(np.array([1.0, 1.01]), np.array([1.0]), 0.1) == Matches(1, 0, 1)
    assert match_onsets(np.array([1.05, 1.15]), np.array([1.0, 1.1]), 0.06) == Matches(2, 0, 0)
    assert match_onsets(np.array([]), np.array([1.0, 2.0]), 0.1) == Matches(0, 2, 0)
    assert Matches(2, 1, 1).f1 == 4 / 6
    assert (Matches(1, 0, 2) + Matches(1, 1, 0)) == Matches(2, 1, 2)
    assert Matches().f1 == 1.0

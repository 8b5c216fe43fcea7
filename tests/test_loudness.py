import math

import pytest
import torch

from mmaudio.loudness import integrated_loudness, normalize_loudness, true_peak


def sine(amplitude, seconds=3.0, rate=48_000, hz=997.0):
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(int(seconds * rate)) / rate).unsqueeze(0)


def test_loudness_of_a_full_scale_sine():
    """ITU-R BS.1770: 997 Hz at 0 dBFS in one channel reads -3.01 LUFS."""
    assert integrated_loudness(sine(1.0), 48_000) == pytest.approx(-3.01, abs=0.1)
    assert integrated_loudness(sine(0.1), 48_000) == pytest.approx(-23.01, abs=0.1)
    assert integrated_loudness(sine(0.001), 48_000) == pytest.approx(-63.01, abs=0.1)


def test_true_peak_between_samples():
    rate = 48_000
    phase = torch.pi / 4  # samples of a quarter-rate sine miss its peaks
    wave = torch.sin(2 * math.pi * 0.25 * torch.arange(rate) + phase).unsqueeze(0)
    assert wave.abs().max() < 0.72
    assert true_peak(wave, rate) == pytest.approx(0.0, abs=0.2)


def test_normalisation_reaches_its_target_or_the_peak():
    louder, note = normalize_loudness(sine(0.05), 48_000, -23.0)
    assert integrated_loudness(louder, 48_000) == pytest.approx(-23.0, abs=0.1)
    assert "LUFS" in note
    limited, note = normalize_loudness(sine(0.05), 48_000, 0.0)
    assert true_peak(limited, 48_000) <= -0.95
    assert "true peak" in note


def test_silence_and_short_sounds_are_left_alone():
    for audio in (torch.zeros(1, 48_000), sine(0.5, seconds=0.2)):
        same, note = normalize_loudness(audio, 48_000, -16.0)
        assert torch.equal(same, audio)
        assert "not changed" in note
    with pytest.raises(ValueError, match="between -70 and 0"):
        normalize_loudness(sine(0.5), 48_000, 3.0)

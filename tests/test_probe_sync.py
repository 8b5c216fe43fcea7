"""scripts/probe_sync.py: it finds what features hold, if they are put at their own time."""

import numpy as np
import pytest
import torch
from scripts_loading import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("probe_sync")


def test_planted_onsets_are_found_in_time_and_less_when_stretched(script):
    spec, rng = script.SPEC, np.random.default_rng(0)
    frames = rng.random((64, spec.sync_frames)) < 0.03
    segments = torch.from_numpy(frames).float().unfold(1, spec.sync_segment, spec.sync_step)  # (N, S / 8, 16)
    features = segments.unflatten(2, (-1, 2)).flatten(1, 2)  # (N, S, 2): each token's two frames
    times = [(np.flatnonzero(row) + 0.5) / spec.sync_fps for row in frames]
    began = torch.zeros(len(frames), spec.latent_len)
    for row, seconds in zip(began, times, strict=True):
        row[(seconds * spec.latent_len / spec.duration).astype(int)] = 1
    f1 = {}
    for name, place in script.PLACES.items():
        torch.manual_seed(0)
        probe = script.fit(place(features[:48]), began[:48], epochs=20, name=name)
        with torch.no_grad():
            found = probe(place(features[48:])).sigmoid().numpy()
        f1[name] = script.best_f1(found, times[48:], 0.05)
    assert f1["in time"] > 0.9
    assert f1["stretched"] < 0.7


def test_peaks_are_counted_once_and_only_above_the_bar(script):
    found = np.zeros((1, script.SPEC.latent_len))
    found[0, [100, 101, 150]] = 0.9, 0.8, 0.2
    step = script.SPEC.duration / script.SPEC.latent_len
    assert script.best_f1(found, [np.array([100.5 * step])], 0.05) == 1.0
    assert script.best_f1(found, [np.array([10 * step])], 0.05) == 0.0

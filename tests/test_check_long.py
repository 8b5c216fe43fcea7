"""scripts/check_long.py: its videos are joined exactly, and its measures find what is put into noise."""

import numpy as np
import pytest
import torch
from scripts_loading import load_script

from mmaudio.long import plan
from mmaudio.media import read_video
from mmaudio.stage.export import write_mp4

RATE, SECONDS, SEAMS = 16_000, 30, np.arange(4.0, 30.0, 4.0)


@pytest.fixture(scope="module")
def script():
    return load_script("check_long")


def test_joined_videos_show_their_parts_pictures_in_time(script, tmp_path):
    parts = [tmp_path / f"{seed}.mp4" for seed in (2_000_000, 2_000_001)]
    for path in parts:
        write_mp4(path, script.rendered(int(path.stem), 1.0, 32))
    script.join([*parts, parts[0]], tmp_path / "joined.mp4")
    joined, *alone = (read_video(path, rule="nearest") for path in (tmp_path / "joined.mp4", *parts))
    assert joined.duration == 3.0
    assert joined.sync_index == tuple(range(75))
    assert torch.equal(joined.sync, torch.cat([part.sync for part in (*alone, alone[0])]))


def test_steps_and_clicks_are_found_at_their_seams_and_nowhere_else(script, capsys):
    noise = np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE)
    assert script.seamless("noise", noise, RATE, SEAMS)
    louder, clicking = noise.copy(), noise.copy()
    for k, seam in enumerate(SEAMS):
        at = round(seam * RATE)
        louder[at : at + 4 * RATE] *= 1.4 if k % 2 else 1 / 1.4
        clicking[at:] += 0.8 * (-1) ** k
    for sound, what in ((louder, "level step"), (clicking, "click")):
        assert not script.seamless(what, sound, RATE, SEAMS)
        assert script.seamless(what, sound, RATE, SEAMS + 2)
        assert script.seamless(what, sound, RATE, np.append(SEAMS, SEAMS + 2), cuts=SEAMS)  # those are the film's own
    assert "at 7 seams" in capsys.readouterr().out


def test_where_windows_meet(script):
    windows = plan(100, 40, 10)
    assert windows.starts == (0, 30, 60)
    assert script.overlaps(windows, 10.0) == [3.0, 3.5, 4.0, 6.0, 6.5, 7.0]

"""Frames and sound share one time axis."""

import torch

from mmaudio.evaluation.filmstrip import BANDS, filmstrip


def test_a_click_is_drawn_where_its_frame_is():
    frames = torch.zeros(100, 3, 20, 20, dtype=torch.uint8)
    frames[50:] = 200  # it gets light after two of four seconds
    sound = torch.zeros(1, 64000)
    sound[0, 32000:32200] = torch.sin(torch.arange(200) * 0.8)
    picture = filmstrip(frames, 25.0, sound, 16000, width=400)
    assert picture.shape == (3, 40 + 6 + 2 * BANDS, 400)
    lit = picture[0, :40].float().mean(0)
    loud = picture[0, 46:].float().mean(0)
    assert lit[:199].max() == 0
    assert lit[201:].min() == 200
    assert abs(int(loud.argmax()) - 200) <= 3
    assert loud[:190].max() < 10


def test_sound_that_is_shorter_than_the_video_ends_in_silence():
    picture = filmstrip(torch.zeros(50, 3, 8, 8, dtype=torch.uint8), 25.0, torch.rand(2, 16000) - 0.5, 16000, width=200)
    loud = picture[0, -2 * BANDS :].float().mean(0)
    assert loud[:90].min() > 100
    assert loud[110:].max() < 10

import os

import numpy as np
import pytest
import soundfile
import torch
from mediafiles import RATE, cfr, strongest_frequency, tone, write_video

from mmaudio.media import MediaError, read_audio, write_audio

LOSSY = {".mp3": 0.05, ".ogg": 0.05, ".m4a": 0.05}


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_round_trip(tmp_path, suffix, channels):
    audio = torch.rand(channels, 10_000) * 2 - 1
    path = write_audio(tmp_path / f"x{suffix}", audio, 16_000)
    back, rate = read_audio(path)
    assert rate == 16_000
    assert back.dtype == torch.float32
    assert (back - audio).abs().max() <= 2**-22  # 24 bits
    assert read_audio(write_audio(path, audio[0], 16_000))[0].shape == (1, 10_000)


@pytest.mark.parametrize("suffix", LOSSY)
def test_lossy_round_trip_keeps_time_and_length(tmp_path, suffix):
    sweep = np.sin(np.linspace(0, 60, RATE) ** 2).astype(np.float32)[None] * 0.5
    back, rate = read_audio(write_audio(tmp_path / f"x{suffix}", sweep, RATE))
    assert rate == RATE
    assert back.shape == (1, RATE)
    assert np.corrcoef(back[0], sweep[0])[0, 1] > 0.98


def test_aac_stream(tmp_path):
    back, rate = read_audio(write_audio(tmp_path / "x.aac", tone(1.0), RATE))
    assert rate == RATE
    assert back.shape[1] == pytest.approx(RATE, abs=4096)  # a bare AAC stream does not say how much is padding
    assert strongest_frequency(back, rate) == pytest.approx(440, abs=2)


def test_a_rate_aac_does_not_know_is_resampled(tmp_path):
    back, rate = read_audio(write_audio(tmp_path / "x.m4a", tone(1.0, rate=44_000), 44_000))
    assert (rate, back.shape[1]) == (48_000, 48_000)
    assert strongest_frequency(back, rate) == pytest.approx(440, abs=2)


def test_values_beyond_full_scale_are_clipped(tmp_path):
    back, _ = read_audio(write_audio(tmp_path / "x.wav", torch.tensor([2.0, -3.0, 0.5]), 8000))
    assert back[0].tolist() == pytest.approx([1, -1, 0.5], abs=1e-6)


@pytest.mark.parametrize("suffix", [".wav", ".mp4", ".mkv"])
def test_start_and_duration(folder, suffix):
    if suffix == ".wav":
        path = write_audio(folder / "ramp.wav", np.linspace(-1, 1, 3 * RATE, dtype=np.float32), RATE)
    else:
        path = write_video(folder / f"av{suffix}", cfr(72, 24), sound=True)
    whole, _ = read_audio(path)
    part, rate = read_audio(path, 0.7, 1.3)
    assert rate == RATE
    assert part.shape[1] == round(0.7 * RATE)
    torch.testing.assert_close(part, whole[:, round(1.3 * RATE) : round(1.3 * RATE) + part.shape[1]])
    assert read_audio(path, 100.0, 2.5)[0].shape[1] == whole.shape[1] - round(2.5 * RATE)
    with pytest.raises(MediaError, match="no sound at 9 s"):
        read_audio(path, 1.0, 9.0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("start", [0, 5])
def test_sound_that_begins_late_is_padded(folder, suffix, start):
    path = write_video(folder / f"late{start}{suffix}", cfr(48, 24), sound=True, sound_delay=0.5, start=start)
    audio, rate = read_audio(path)
    onset = int((audio[0].abs() > 0.05).nonzero()[0])
    assert onset / rate == pytest.approx(0.5, abs=0.03)
    assert audio.shape[1] / rate == pytest.approx(2, abs=0.06)


def test_sound_before_the_first_picture_is_cut(folder):
    path = write_video(folder / "early.mkv", [t + 1 for t in cfr(24, 24)], sound=True)
    audio, rate = read_audio(path)
    assert audio.shape[1] / rate == pytest.approx(1.04, abs=0.06)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_a_number(tmp_path, bad):
    audio = torch.zeros(1, 100)
    audio[0, 50] = bad
    for suffix in (".wav", ".m4a"):
        with pytest.raises(MediaError, match="NaN"):
            write_audio(tmp_path / f"x{suffix}", audio, 16_000)
    assert not list(tmp_path.iterdir())
    soundfile.write(tmp_path / "bad.wav", audio.T.numpy(), 16_000, subtype="FLOAT")
    with pytest.raises(MediaError, match="NaN"):
        read_audio(tmp_path / "bad.wav")


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(MediaError, match=r"\.wav, \.flac, \.mp3, \.ogg, \.m4a, \.aac"):
        write_audio(tmp_path / "x.xyz", tone(0.1), RATE)
    with pytest.raises(MediaError, match=r"use \.wav or \.flac"):
        write_audio(tmp_path / "x.mp3", tone(0.1), 12_345)
    for shape in ((0,), (1, 0), (1, 1, 10), (40, 10)):
        with pytest.raises(MediaError, match="shape"):
            write_audio(tmp_path / "x.wav", torch.zeros(shape), RATE)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        write_audio(tmp_path / "folder.wav", tone(0.1), RATE)
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="cannot write it"):
        write_audio(tmp_path / "file" / "x.wav", tone(0.1), RATE)


def test_no_audio_track(folder):
    path = write_video(folder / "silent.mp4", cfr(4, 8))
    with pytest.raises(MediaError, match="no audio track"):
        read_audio(path)


def test_a_cut_wav_gives_what_is_there(tmp_path):
    path = write_audio(tmp_path / "x.wav", tone(1.0), RATE)
    path.write_bytes(path.read_bytes()[:60_000])
    assert 15_000 < read_audio(path)[0].shape[1] < 25_000


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a", ".ogg"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, suffix, full_disk):
    with pytest.raises(MediaError, match="disk is full"), full_disk(10_000):
        write_audio(tmp_path / f"x{suffix}", torch.rand(1, 100_000) * 2 - 1, RATE)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_audio(tmp_path / "x.wav", tone(0.1), RATE)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_audio(path, tone(0.2), RATE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MediaError, match="permission"):
        write_audio(tmp_path / "x.wav", tone(0.1), RATE)


def test_permission_is_named_whoever_runs_this(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MediaError, match="permission denied"):
        write_audio(tmp_path / "x.wav", tone(0.1), RATE)
    assert not list(tmp_path.iterdir())

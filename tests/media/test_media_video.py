"""Frames out of video files: codecs, clocks, turns, cuts and damage."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from mediafiles import RATE, cfr, numbered, numbers_of, tone, tone_frame, write_video

from mmaudio.media import MediaError, mux, probe, read_video

CODECS = {
    "h264_10bit.mp4": {"codec": "libx264", "pix_fmt": "yuv420p10le"},
    "hevc_10bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": Fraction(1, 24)},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8", "time_base": Fraction(1, 100), "fps": 10},
    "h264.ts": {"codec": "libx264"},
    "lossless444.mkv": {"codec": "libx264", "pix_fmt": "yuv444p"},
}


@pytest.mark.parametrize("name", CODECS)
def test_codecs(folder, name):
    options = dict(CODECS[name])
    fps = options.pop("fps", 24)
    path = write_video(folder / name, cfr(fps, fps), size=(128, 96), rate=fps, **options)
    frames = read_video(path, 0.8)
    assert frames.duration == 0.8
    assert frames.clip.shape == (6, 3, 96, 128)
    assert frames.sync.shape == (20, 3, 96, 128)
    assert frames.warnings == ()
    assert numbers_of(frames.sync) == list(frames.sync_index)
    assert numbers_of(frames.clip) == list(frames.clip_index)
    assert frames.sync.dtype == torch.uint8


@pytest.mark.parametrize("rule", ["first", "nearest"])
@pytest.mark.parametrize(("fps", "seconds"), [(5, 2), (24, 1), (25, 1), (30, 1)])
def test_constant_rates(folder, rule, fps, seconds):
    path = write_video(folder / f"cfr{fps}.mp4", cfr(fps * seconds, fps), rate=fps)
    frames = read_video(path, rule=rule)
    for rate, index, pictures in ((8, frames.clip_index, frames.clip), (25, frames.sync_index, frames.sync)):
        assert numbers_of(pictures) == list(index)
        for slot, source in enumerate(index):
            if rule == "first":  # at or after the slot, by less than a frame and the slip of the accumulated slot
                assert Fraction(slot, rate) <= Fraction(source, fps) <= Fraction(slot + 1e-9) / rate + Fraction(1, fps)
            else:
                assert source == max(
                    n for n in range(fps * seconds) if Fraction(n, fps) < (slot + Fraction(1, 2)) / rate
                )
    assert frames.duration <= seconds
    assert frames.duration >= seconds - 1 / fps - 1 / 8
    if rule == "nearest":
        assert frames.duration == seconds  # the last frame counts with its full length


@pytest.mark.parametrize("frames", [120, 89, 232])  # at 8 fps 38.4, 28.48 and 74.24; 25 * 9.28 is a little below 232
def test_a_video_exactly_as_long_as_asked_gives_all_its_frames(folder, frames):
    path = write_video(folder / f"odd{frames}.mp4", cfr(frames, 25), rate=25)
    found = read_video(path, frames / 25, rule="nearest")
    assert (len(found.sync), len(found.clip), found.duration) == (frames, frames * 8 // 25, frames / 25)
    assert found.warnings == ()
    assert read_video(path, (frames + 1) / 25, rule="nearest").duration < frames / 25  # one frame is missing


def test_variable_frame_rate_is_placed_by_time(folder):
    times = [Fraction(n, 1000) for n in (0, 10, 45, 130, 131, 200, 480, 481, 482, 900, 960, 1500, 1510, 1620, 2000)]
    path = write_video(folder / "vfr.mp4", times, time_base=Fraction(1, 1000))
    frames = read_video(path, rule="nearest")
    for slot, number in enumerate(numbers_of(frames.clip)):
        assert number == max(n for n, t in enumerate(times) if t < Fraction(2 * slot + 1, 16))
    frames = read_video(path)
    for slot, number in enumerate(numbers_of(frames.clip)):
        assert number == next(n for n, t in enumerate(times) if t >= Fraction(slot, 8))


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_the_first_frame_is_time_zero_wherever_the_clock_starts(folder, suffix):
    path = write_video(folder / f"offset{suffix}", cfr(24, 24), start=5)
    frames = read_video(path)
    assert numbers_of(frames.clip) == [0, 3, 6, 9, 12, 15, 18][: len(frames.clip)]
    assert len(frames.clip) == 7
    assert probe(path).duration == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("rotation", [90, 180, -90])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation(folder, rotation, suffix):
    upright = write_video(folder / "upright.mp4", cfr(8, 8), rate=8)
    path = write_video(folder / f"turned{rotation}{suffix}", cfr(8, 8), rate=8, rotation=rotation)
    seen = []
    frames = read_video(path, clip_transform=lambda x: seen.append(x.shape) or x)
    stored = read_video(upright).clip
    turns = rotation // 90
    expected = torch.rot90(stored, turns, (2, 3))  # the file asks for counter-clockwise degrees
    assert frames.rotation == rotation % 360
    assert (frames.height, frames.width) == tuple(expected.shape[2:])
    assert set(seen) == {expected.shape[1:]}  # a transform sees upright frames
    torch.testing.assert_close(frames.clip, expected)
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (frames.width, frames.height, frames.rotation)


@pytest.mark.parametrize("rule", ["first", "nearest"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("start", [0.5, 2.0, 3.3])
def test_start(folder, rule, suffix, start):
    path = folder / f"long{suffix}"
    if not path.exists():
        codec = {"options": {"g": "20", "bf": "2"}}
        if suffix == ".avi":
            codec = {"codec": "mpeg4", "time_base": Fraction(1, 25)}
        write_video(path, cfr(125, 25), rate=25, **codec)
    frames = read_video(path, 1.0, start, rule=rule)
    assert frames.duration == 1.0
    exact = Fraction(str(start))
    for slot, number in enumerate(numbers_of(frames.clip)):
        if rule == "first":
            assert number == next(n for n in range(125) if Fraction(n, 25) - exact >= Fraction(slot, 8))
        else:
            assert number == max(n for n in range(125) if Fraction(n, 25) - exact < Fraction(2 * slot + 1, 16))


def test_start_beyond_the_end(clip):
    with pytest.raises(MediaError, match="no frame at 5 s"):
        read_video(clip, 1.0, 5.0)


def test_a_shorter_clip_shortens_the_duration_and_says_so(clip):
    frames = read_video(clip, 8.0)
    assert frames.duration == min(len(frames.sync) / 25, 8)
    assert 1.8 < frames.duration <= 2
    assert len(frames.warnings) == 1
    assert "8 s" in frames.warnings[0]
    assert read_video(clip).warnings == ()


def test_very_short_video(folder):
    path = write_video(folder / "short.mp4", cfr(9, 30), rate=30)
    frames = read_video(path)
    assert 0.2 < frames.duration <= 0.3
    assert len(frames.sync) == int(25 * frames.duration)
    assert len(frames.clip) == int(8 * frames.duration)


def test_two_frames_give_empty_tensors_rather_than_an_error(folder):
    frames = read_video(write_video(folder / "two.mp4", cfr(2, 60), rate=60))
    assert frames.clip.shape[0] == 0
    assert frames.sync.shape[0] == 1


def test_decoding_stops_once_both_rates_are_filled(folder):
    path = write_video(folder / "stop.mp4", cfr(240, 24))
    seen = []
    frames = read_video(path, 1.0, progress=lambda done, total: seen.append((done, total)))
    assert frames.duration == 1.0
    assert seen[-1][0] <= 1.05
    assert seen[-1][1] == 1.0
    assert all(a[0] < b[0] for a, b in pairwise(seen))
    read_video(path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (pytest.approx(239 / 24), pytest.approx(10, abs=0.1))


def test_a_picture_is_transformed_once_however_often_it_is_shown(folder):
    path = write_video(folder / "slow.mp4", cfr(10, 5), rate=5)
    calls = {"clip": 0, "sync": 0}

    def counting(name):
        def transform(frame):
            calls[name] += 1
            return frame[:, :8, :8]

        return transform

    frames = read_video(path, clip_transform=counting("clip"), sync_transform=counting("sync"))
    assert calls == {"clip": 10, "sync": 10}
    assert frames.clip.shape[1:] == frames.sync.shape[1:] == (3, 8, 8)
    assert len(frames.sync) > 40


def test_high_dynamic_range_is_mapped(folder):
    size, grey = (64, 64), 0.5
    context = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    path = folder / "pq.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx265", rate=8, options={"x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p10le"
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        for _ in range(8):
            frame = av.VideoFrame(*size, "yuv420p10le")
            for plane, level in zip(frame.planes, (64 + round(876 * grey), 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, level, "<u2").tobytes())
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    frames = read_video(path)
    # PQ 0.5 is 92 cd/m2, which a screen of 203 cd/m2 shows as 0.45 of its light: code 0.67. Untouched it were 0.5.
    assert float(frames.clip.float().mean()) / 255 == pytest.approx(0.67, abs=0.06)
    assert frames.clip.shape[1:] == (3, 64, 64)


def test_a_transparent_animation_shows_white_behind(folder):
    from PIL import Image

    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 16, 32))
    other = picture.copy()
    other.paste(0, (0, 0, 20, 32))
    path = folder / "transparent.gif"
    picture.save(path, save_all=True, append_images=[other, picture], duration=200, transparency=0, disposal=2)
    frames = read_video(path)
    assert frames.clip[0, :, 4, 4].tolist() == [255, 255, 255]
    assert frames.clip[0, :, 4, 28].tolist() == [0, 0, 255]


def test_truncated_transport_stream_is_used_as_far_as_it_goes(folder):
    path = write_video(folder / "whole.ts", cfr(96, 24))
    cut = folder / "cut.ts"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    frames = read_video(cut, 4.0)
    assert 1 < frames.duration < 3.5
    assert frames.warnings


def test_truncated_mp4_with_its_index_in_front(folder):
    plain = write_video(folder / "plain.mp4", cfr(96, 24), options={"bf": "0"})
    path = mux(plain, tone(4.0), RATE, folder / "front.mp4").path  # mux puts the index in front
    cut = folder / "front_cut.mp4"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 7 // 10])
    frames = read_video(cut)
    assert 1 < frames.duration < 3.9
    assert any("header" in line or "damaged" in line for line in frames.warnings)


def spoiled(source, target, begin, end):
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = np.random.default_rng(0).bytes(last - first)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".webm"])
def test_damage_in_the_middle(folder, suffix):
    codec = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}} if suffix == ".webm" else {}
    path = write_video(folder / f"sound_before{suffix}", cfr(120, 24), size=(96, 64), **codec)
    frames = read_video(spoiled(path, folder / f"damaged{suffix}", 0.6, 0.7))
    assert frames.duration >= 1
    assert frames.warnings
    assert numbers_of(frames.clip)[:3] == [0, 3, 6]


def test_damage_from_the_start_on(folder):
    path = write_video(folder / "before.webm", cfr(48, 24), codec="libvpx-vp9", options={"cpu-used": "8"})
    with pytest.raises(MediaError, match=r"damaged|decoded"):
        read_video(spoiled(path, folder / "hopeless.webm", 0.3, 1.0))


def test_stills_and_sounds_are_refused(folder, clip):
    one = write_video(folder / "one.mp4", cfr(1, 24))
    with pytest.raises(MediaError, match="still picture"):
        read_video(one)
    with av.open(str(folder / "sound.m4a"), "w") as out:
        audio = out.add_stream("aac", rate=44_100, layout="mono")
        out.mux(audio.encode(tone_frame(1.0, 0.0)))
        out.mux(audio.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        read_video(folder / "sound.m4a")


def test_arguments(clip):
    with pytest.raises(ValueError, match="rule"):
        read_video(clip, rule="last")
    for duration in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="duration"):
            read_video(clip, duration)
    with pytest.raises(ValueError, match="start"):
        read_video(clip, start=-1.0)


def test_pictures_are_what_was_drawn(folder):
    path = write_video(folder / "exact.mkv", cfr(3, 8), rate=8, pix_fmt="yuv444p", options={"qp": "0"})
    frames = read_video(path)
    expected = torch.from_numpy(numbered(1)).permute(2, 0, 1)
    assert (frames.clip[1].int() - expected.int()).abs().max() <= 4

"""Sound into videos: the pictures stay bit for bit, and the file plays everywhere."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from mediafiles import RATE, cfr, decoded, strongest_frequency, tone, video_packets, write_video

from mmaudio.media import MediaError, mux, probe, read_audio, read_image, read_video, still_video
from mmaudio.media.encode import AAC_RATES

AAC_FRAME = 1024 / RATE
VFR = [Fraction(n, 1000) for n in (0, 10, 45, 130, 131, 200, 480, 481, 482, 900, 960, 1500, 1510, 1620, 2000)]
COUNT = 36
SOURCES = {
    "h264_bframes.mp4": {"options": {"bf": "3"}},
    "h264_bframes.mkv": {"options": {"bf": "3"}},
    "h264.ts": {"options": {"bf": "3"}},
    "offset.mkv": {"options": {"bf": "3"}, "start": 5},
    "vfr.mp4": {"times": VFR, "time_base": Fraction(1, 1000)},
    "rotated.mp4": {"rotation": 90},
    "hevc10.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": Fraction(1, 24)},
}


def make(folder, name):
    options = dict(SOURCES[name])
    path = folder / "mux" / name  # other tests have clips of these names, too
    path.parent.mkdir(exist_ok=True)
    return path if path.exists() else write_video(path, options.pop("times", cfr(COUNT, 24)), size=(64, 64), **options)


def shifts(times):
    return [float(t - times[0]) for t in times]


def audio_seconds(path):
    audio, rate = read_audio(path)
    return audio.shape[1] / rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", SOURCES)
def test_pictures_are_copied_bit_for_bit(folder, name, suffix):
    source = make(folder, name)
    result = mux(source, tone(2.0), RATE, folder / "copies" / f"{name}{suffix}")
    assert result.picture_copied
    assert result.path == folder / "copies" / f"{name}{suffix}"
    assert not [note for note in result.notes if "cannot hold" in note]
    before, after = decoded(source), decoded(result.path)
    assert len(before) == len(after) == len(SOURCES[name].get("times", range(COUNT)))
    for (_, old), (_, new) in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert shifts([t for t, _ in after]) == pytest.approx(shifts([t for t, _ in before]), abs=0.0011)
    if not name.endswith(".ts"):  # a transport stream marks pictures by start codes, other containers by lengths
        assert video_packets(result.path) == video_packets(source)
    assert probe(result.path).rotation == probe(source).rotation
    frames, expected = read_video(result.path, 1.0), read_video(source, 1.0)
    assert (frames.clip_index, frames.sync_index) == (expected.clip_index, expected.sync_index)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("name", ["h264_bframes.mp4", "vfr.mp4", "offset.mkv"])
def test_sound_is_as_long_as_the_video(folder, name, seconds):
    source = make(folder, name)
    result = mux(source, tone(seconds), RATE, folder / "length.mp4")
    with av.open(str(result.path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        length = float(video.duration * video.time_base)
        if name == "vfr.mp4":  # its header counts to the last decoding time; the last picture is shown later
            length = float(max(p.pts + p.duration for p in container.demux(video) if p.size) * video.time_base)
        assert float(audio.duration * audio.time_base) == pytest.approx(length, abs=AAC_FRAME)
        assert float(audio.start_time * audio.time_base) == pytest.approx(0, abs=1e-6)
    samples, rate = read_audio(result.path)
    assert strongest_frequency(samples[:, : int(0.45 * rate)], rate) == pytest.approx(440, abs=3)
    if seconds < 1:
        assert samples[:, int(0.6 * rate) :].abs().max() < 1e-3  # silence


@pytest.mark.parametrize("name", ["h264_bframes.mp4", "h264_bframes.mkv", "h264.ts", "offset.mkv", "vp9.webm"])
def test_duration_cuts_both(folder, name):
    source = make(folder, name)
    whole, result = decoded(source), mux(source, tone(2.0), RATE, folder / "cut.mp4", duration=1.0)
    frames = decoded(result.path)
    assert 24 <= len(frames) <= 27  # all before the cut, and at most the depth of the B-frames over it
    for (_, old), (_, new) in zip(whole[:24], frames[:24], strict=True):
        np.testing.assert_array_equal(old, new)
    length = probe(result.path).duration
    assert 0.998 <= length <= 1.0 + 3.5 / 24  # Matroska rounds to milliseconds
    assert audio_seconds(result.path) == pytest.approx(length, abs=AAC_FRAME)


def test_sound_is_in_step(folder):
    """A click at 1.000 s is found there."""
    audio = np.zeros((1, 2 * RATE), np.float32)
    audio[0, RATE : RATE + 20] = 0.9
    for name, suffix in (
        ("h264_bframes.mp4", ".mp4"),
        ("offset.mkv", ".mkv"),
        ("h264.ts", ".mov"),
        ("vp9.webm", ".webm"),
    ):
        result = mux(make(folder, name), audio, RATE, folder / f"click{suffix}")
        samples, rate = read_audio(result.path)
        assert int(samples[0].abs().argmax()) / rate == pytest.approx(1.0, abs=0.002), suffix


def test_stereo_and_odd_rates(folder, clip):
    stereo = np.concatenate([tone(2.0, 440), tone(2.0, 880)])
    for suffix, rate in ((".mp4", RATE), (".webm", RATE), (".mp4", 16_000), (".mkv", 44_000)):
        source = make(folder, "vp9.webm")
        result = (
            mux(source, stereo, RATE, folder / f"stereo{suffix}")
            if rate == RATE
            else mux(
                source, np.concatenate([tone(2.0, 440, rate), tone(2.0, 880, rate)]), rate, folder / f"odd{suffix}"
            )
        )
        samples, found = read_audio(result.path)
        assert found == (48_000 if suffix == ".webm" or rate not in AAC_RATES else rate)
        assert strongest_frequency(samples[:1], found) == pytest.approx(440, abs=2)
        assert strongest_frequency(samples[1:], found) == pytest.approx(880, abs=2)


def test_hevc_gets_the_tag_apple_wants(folder):
    for suffix in (".mp4", ".mov"):
        result = mux(make(folder, "hevc10.mp4"), tone(2.0), RATE, folder / f"tag{suffix}")
        with av.open(str(result.path)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_the_index_is_in_front(clip, folder):
    data = mux(clip, tone(2.0), RATE, folder / "front_index.mp4").path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_metadata_and_chapters(clip, folder):
    chaptered = folder / "chapters.mkv"
    with av.open(str(clip)) as source, av.open(str(chaptered), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        out.metadata["title"] = "bars"
        chapter = {"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
        out.set_chapters([chapter])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    for suffix in (".mp4", ".mkv"):
        with av.open(str(mux(chaptered, tone(1.0), RATE, folder / f"chaptered{suffix}").path)) as container:
            assert container.metadata["title" if "title" in container.metadata else "TITLE"] == "bars"
            assert [c["metadata"]["title"] for c in container.chapters()] == ["one"]


@pytest.mark.parametrize(("source", "dest", "kept"), [(".mkv", ".mkv", 2), (".mp4", ".mp4", 2), (".mkv", ".mp4", 0)])
def test_subtitles(folder, source, dest, kept):
    path = write_video(folder / f"subtitled{source}", cfr(24, 24), subtitles=True)
    result = mux(path, tone(1.0), RATE, folder / f"subtitled_out{dest}")
    with av.open(str(result.path)) as container:
        streams = container.streams.subtitles
        packets = [p for p in container.demux(streams) if p.size > 2] if streams else []
        assert [b"line" in bytes(p) for p in packets] == [True] * kept
    assert any("subtitles" in note for note in result.notes) == (kept == 0)


def test_the_original_sound_is_replaced_or_mixed_in(clip, folder):
    ours = tone(2.0, 1000)
    replaced = mux(clip, ours, RATE, folder / "replaced.mp4")
    assert "replaced" in replaced.notes[0]
    with av.open(str(replaced.path)) as container:
        assert len(container.streams.audio) == 1

    def level(path, frequency):
        samples, rate = read_audio(path)
        spectrum = torch.fft.rfft(samples[0, :rate].double()).abs() * 2 / rate
        return float(spectrum[frequency - 3 : frequency + 4].max())

    assert level(replaced.path, 440) < 0.002
    mixed = mux(clip, ours, RATE, folder / "mixed.mp4", mix_original=-6)
    assert level(mixed.path, 1000) == pytest.approx(0.25, rel=0.1)
    assert level(mixed.path, 440) == pytest.approx(0.125, rel=0.1)
    assert any("-6 dB" in note for note in mixed.notes)
    loud = mux(clip, ours, RATE, folder / "loud.mp4", mix_original=20)
    assert any("quieter" in note for note in loud.notes)
    silent = mux(make(folder, "vfr.mp4"), ours, RATE, folder / "silent_mix.mp4", mix_original=0)
    assert any("no sound of its own" in note for note in silent.notes)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "source", "asked"),
    [
        ("prores_ks", "yuv422p10le", ".mov", ".mp4"),
        ("libx264", "yuv420p", ".mp4", ".webm"),
        ("ffv1", "yuv420p", ".mkv", ".mov"),
    ],
)
def test_matroska_takes_what_the_container_cannot(folder, codec, pix_fmt, source, asked):
    path = write_video(folder / f"fall_{codec}{source}", cfr(24, 24), codec=codec, pix_fmt=pix_fmt)
    dest = folder / f"fallback_{codec}{asked}"
    result = mux(path, tone(1.0), RATE, dest)
    assert result.path == dest.with_suffix(".mkv")
    assert result.path.exists()
    assert not dest.exists()
    assert any("Matroska" in note for note in result.notes)
    assert video_packets(result.path) == video_packets(path)


def test_the_fallback_never_replaces_the_source(tmp_path):
    path = write_video(tmp_path / "take.mkv", cfr(8, 8), codec="ffv1")
    before = path.read_bytes()
    with pytest.raises(MediaError, match="is the source itself"):
        mux(path, tone(1.0), RATE, tmp_path / "take.mov")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_animation_with_odd_sides(folder, suffix):
    gif = {"codec": "gif", "pix_fmt": "rgb8", "time_base": Fraction(1, 100), "rate": 10}
    path = write_video(folder / "odd.gif", cfr(10, 10), size=(65, 49), **gif)
    result = mux(path, tone(3.0), RATE, folder / f"odd{suffix}")
    assert not result.picture_copied
    assert any("encoded" in note for note in result.notes)
    info = probe(result.path)
    assert (info.width, info.height) == (66, 50)
    assert info.duration == pytest.approx(1.0, abs=0.02)
    assert audio_seconds(result.path) == pytest.approx(1.0, abs=0.03)
    frames = decoded(result.path)
    assert [float(t) for t, _ in frames] == pytest.approx([n / 10 for n in range(10)], abs=0.002)
    source = decoded(path)
    for (_, old), (_, new) in zip(source, frames, strict=True):
        assert np.abs(old.astype(int) - new[:49, :65].astype(int)).mean() < 20
    assert probe(mux(path, tone(3.0), RATE, folder / f"odd_cut{suffix}", duration=0.5).path).duration == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_still_video(folder, suffix):
    picture = torch.zeros(3, 47, 65, dtype=torch.uint8)
    picture[0] = 200
    result = still_video(picture, tone(1.5), RATE, folder / f"still{suffix}")
    info = probe(result.path)
    assert (info.kind, info.width, info.height, info.fps) == ("video", 66, 48, 25)
    assert info.duration == pytest.approx(1.52, abs=0.02)
    assert audio_seconds(result.path) == pytest.approx(1.52, abs=0.03)
    shown = read_image(result.path)
    assert (shown[:, 20, 30].int() - torch.tensor([200, 0, 0])).abs().max() < 12


def test_a_picture_file_becomes_a_still_video(folder, tmp_path):
    from PIL import Image

    Image.new("RGB", (2400, 1000), (10, 200, 30)).save(tmp_path / "wide.png")
    result = mux(tmp_path / "wide.png", tone(1.0), RATE, tmp_path / "wide.mp4", duration=0.4)
    assert (probe(result.path).width, probe(result.path).height) == (1920, 800)
    assert probe(result.path).duration == pytest.approx(0.4, abs=0.01)
    assert any("scaled down" in note for note in result.notes)
    one = write_video(tmp_path / "one.mp4", cfr(1, 24))
    assert probe(mux(one, tone(0.4), RATE, tmp_path / "held.mp4").path).duration == pytest.approx(0.4, abs=0.01)


def test_mux_refuses(clip, folder, tmp_path):
    with pytest.raises(MediaError, match=r"\.mp4, \.m4v, \.mov, \.mkv, \.webm"):
        mux(clip, tone(1.0), RATE, tmp_path / "x.avi")
    with pytest.raises(MediaError, match="is the source itself"):
        mux(clip, tone(1.0), RATE, clip)
    with pytest.raises(MediaError, match="NaN"):
        mux(clip, torch.full((1, 100), float("nan")), RATE, tmp_path / "x.mp4")
    with pytest.raises(MediaError, match="shape"):
        mux(clip, torch.zeros(2, 3, 100), RATE, tmp_path / "x.mp4")
    (tmp_path / "there.mp4").write_bytes(b"precious")
    with pytest.raises(MediaError, match="exists already"):
        mux(clip, tone(1.0), RATE, tmp_path / "there.mp4", overwrite=False)
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="cannot write it"):
        mux(clip, tone(1.0), RATE, tmp_path / "file" / "x.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_leaves_nothing_behind(clip, tmp_path, suffix, full_disk):
    for size in (0, 8_000):
        with pytest.raises(MediaError, match="disk is full"), full_disk(size):
            mux(clip, np.random.default_rng(0).uniform(-1, 1, (1, 2 * RATE)), RATE, tmp_path / f"x{suffix}")
        assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing_behind(clip, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mux(clip, tone(1.0), RATE, tmp_path / "x.mp4")
    assert not list(tmp_path.iterdir())


def test_damaged_source_is_copied_as_far_as_it_goes(folder):
    path = write_video(folder / "whole_for_mux.ts", cfr(96, 24))
    cut = folder / "cut_for_mux.ts"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    result = mux(cut, tone(4.0), RATE, folder / "cut_mux.mp4")
    assert 1 < probe(result.path).duration < 3.5

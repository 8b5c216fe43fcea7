"""What a file is, which files were meant, and files that are not what they seem."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from mediafiles import cfr, tone, tone_frame, write_video
from PIL import Image

from mmaudio.media import MediaError, find_videos, mux, probe, read_audio, read_image, read_video, write_audio


def test_video(clip):
    info = probe(clip)
    assert (info.kind, info.width, info.height, info.rotation) == ("video", 64, 48, 0)
    assert (info.fps, info.has_audio, info.codec, info.sample_rate) == (Fraction(24), True, "h264", 44_100)
    assert info.duration == pytest.approx(2, abs=0.01)


def test_one_frame_is_an_image_in_any_container(folder):
    for suffix in (".mp4", ".mkv", ".gif"):
        codec = {"codec": "gif", "pix_fmt": "rgb8"} if suffix == ".gif" else {}
        path = write_video(folder / f"one{suffix}", cfr(1, 10), time_base=Fraction(1, 100), **codec)
        info = probe(path)
        assert (info.kind, info.width, info.height, info.duration) == ("image", 64, 48, None)
        assert read_image(path).shape == (3, 48, 64)


def test_pictures(folder):
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff"):
        path = folder / f"picture{suffix}"
        Image.new("RGB", (30, 20)).save(path)
        info = probe(path)
        assert (info.kind, info.width, info.height, info.has_audio) == ("image", 30, 20, False)


def test_audio(folder):
    path = write_audio(folder / "tone.flac", tone(1.5), 44_100)
    info = probe(path)
    assert (info.kind, info.has_audio, info.width, info.sample_rate) == ("audio", True, None, 44_100)
    assert info.duration == pytest.approx(1.5)


def test_live_recording_without_a_length_in_its_header(folder):
    path = folder / "live.webm"
    with av.open(str(path), "w", container_options={"live": "1"}) as out:
        video = out.add_stream("libvpx-vp9", rate=10, options={"cpu-used": "8", "deadline": "realtime"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(12):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    assert probe(path).duration == pytest.approx(1.2, abs=0.01)  # counted, since the header does not tell
    assert read_video(path).duration == pytest.approx(1.1, abs=0.1)


def cover_art(folder, suffix):
    """Sound with a picture attached, as music players make it."""
    path = folder / f"cover{suffix}"
    with av.open(str(path), "w", format="mp3" if suffix == ".mp3" else "mp4") as out:
        audio = out.add_stream("libmp3lame" if suffix == ".mp3" else "aac", rate=44_100, layout="mono")
        picture = out.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
        out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        out.mux(audio.encode(tone_frame(1.0, 0)))
        out.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp3", ".m4a"])
def test_cover_art_is_no_video(folder, suffix):
    path = cover_art(folder, suffix)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert probe(path).kind == "audio"
    with pytest.raises(MediaError, match="no video stream"):
        read_video(path)
    with pytest.raises(MediaError, match="no video stream"):
        mux(path, tone(1), 44_100, folder / "x.mp4")
    assert read_audio(path)[0].shape[1] == pytest.approx(44_100, abs=2500)


def test_a_tag_that_is_no_duration_is_ignored(folder):
    path = write_video(folder / "tagged.mkv", cfr(24, 24))
    said = b"00:00:01.000000000"
    data = path.read_bytes()
    assert data.count(said) == 1
    path.write_bytes(data.replace(said, b"0:0:1e" + b"9" * 12))  # as a fraction it has a million million digits
    assert probe(path).duration == pytest.approx(1.0, abs=0.05)


def hostile(folder):
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "art.txt").write_text("this is not a video\n" * 50)
    (folder / "random.mp4").write_bytes(np.random.default_rng(1).bytes(20_000))
    playlist = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "http://127.0.0.1:9/a.ts", "#EXT-X-ENDLIST"]
    (folder / "playlist.mp4").write_text("\n".join(playlist))
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    whole = write_video(folder / "whole.mp4", cfr(24, 24))
    (folder / "no_index.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "folder.mp4").mkdir()
    whole.unlink()
    return ["missing.mp4", *sorted(p.name for p in folder.iterdir())]


@pytest.mark.parametrize("reader", [probe, read_video, read_audio, read_image], ids=lambda f: f.__name__)
def test_hostile_files_give_one_line_with_the_path(tmp_path, reader):
    for name in hostile(tmp_path):
        with pytest.raises(MediaError) as caught:
            reader(tmp_path / name)
        message = str(caught.value)
        assert "\n" not in message, message
        assert str(tmp_path / name) in message, message
        assert ";" in message or reader is read_audio, message  # what to do about it


def test_hostile_sources_of_mux(tmp_path):
    for name in hostile(tmp_path):
        with pytest.raises(MediaError):
            mux(tmp_path / name, tone(1), 44_100, tmp_path / "out" / "out.mp4")
    assert not (tmp_path / "out").exists()


def test_find_videos(tmp_path):
    for name in ("clip10.mp4", "clip2.MP4", "clip1.gif", "a.png", "notes.txt", ".hidden.mp4", "odd [1].mkv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.webm").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    names = lambda *given: [p.name for p in find_videos(given)]  # noqa: E731
    everything = ["a.png", "clip1.gif", "clip2.MP4", "clip10.mp4", "odd [1].mkv"]
    assert names(tmp_path) == everything
    assert names(str(tmp_path / "*.mp4")) == ["clip10.mp4"]
    assert names(str(tmp_path / "**" / "*.webm")) == ["deep.webm"]
    assert names(tmp_path / "odd [1].mkv") == ["odd [1].mkv"]  # a name with brackets is a name first
    assert names(tmp_path / "notes.txt", tmp_path / "a.png", tmp_path) == ["notes.txt", *everything]  # each once
    for wrong in (tmp_path / "none.mp4", tmp_path / "empty", str(tmp_path / "*.avi")):
        with pytest.raises(MediaError, match=r"none\.mp4|empty|avi"):
            find_videos([wrong])


def test_importing_is_cheap():
    code = "import sys, mmaudio.media; print([m for m in ('torchvision', 'torchaudio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

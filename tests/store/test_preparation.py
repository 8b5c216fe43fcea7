"""From files to what the encoders take: the reference's numbers, and picture and sound in step."""

import dataclasses
from fractions import Fraction

import av
import fill
import numpy as np
import pytest
import soundfile
import torch

from mmaudio.data.encoding import Encoders
from mmaudio.data.manifest import ManifestRow
from mmaudio.data.preparation import SEGMENT_SECONDS, ClipError, Preparation, cut, partition, resample, to_mono
from mmaudio.media import MediaError
from mmaudio.variants import VARIANTS

TINY = VARIANTS["tiny_16k"]
RATE = 16_000
FPS = 25


# ---- the reference's numbers


@pytest.mark.parametrize("case_id", ["audio_prep_44k_to_16k", "audio_prep_48k_to_44k"])
def test_golden_sound(kit, case_id):
    case = kit.case(case_id)
    c = case["config"]
    t = np.arange(c["samples"]) / c["sr"]
    sweep = torch.from_numpy(np.sin(2 * np.pi * (180 + 3500 * t) * t).astype(np.float32))
    samples = torch.stack([sweep, 0.5 * fill.tensor("audio_prep", (c["samples"],), c["seed"])])
    mono = to_mono(samples, peak_normalise=True)
    resampled = resample(mono, c["sr"], c["target_sr"])
    assert len(resampled) == kit.json(case)["resampled_length"]
    kit.compare(case, {"mono_normalised": mono[::7], "resampled": resampled})


def test_golden_partition(kit):
    golden = kit.json(kit.case("partition"))
    rows = [
        [f"{name}_{i}", name, first, end]
        for name, file in golden["files"].items()
        for i, (first, end) in enumerate(partition(file["samples"], file["sampling_rate"]))
    ]
    assert rows == golden["rows"]


# ---- sound


def test_levels():
    samples = torch.tensor([[0.5, -0.2], [0.1, -0.2]])
    assert torch.equal(to_mono(samples, peak_normalise=False), torch.tensor([0.3, -0.2]))
    assert torch.allclose(to_mono(samples, peak_normalise=True), torch.tensor([0.95, -0.2 / 0.3 * 0.95]))
    for normalise in (True, False):
        with pytest.raises(ClipError, match="silent"):
            to_mono(torch.full((2, 10), 1e-6), normalise)


def test_rates_without_a_small_ratio_are_refused_before_they_fill_the_memory():
    with pytest.raises(ClipError, match="44099 Hz cannot be resampled to 16000 Hz"):
        resample(torch.zeros(10), 44_099, 16_000)


def test_cut():
    wave = torch.arange(1.0, 6.0)
    assert cut(wave, 3, 3).tolist() == [1, 2, 3]
    assert cut(wave, 7, 5).tolist() == [1, 2, 3, 4, 5, 0, 0]
    with pytest.raises(ClipError, match="5 samples of sound after resampling, needs 6"):
        cut(wave, 7, 6)


def audio_row(folder, wave, rate=RATE, start=0.0):
    soundfile.write(folder / "a.wav", wave, rate, subtype="FLOAT")
    return ManifestRow("a", folder / "a.wav", start=start)


def noise(seconds, rate=RATE, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


def test_long_audio_gives_segments_at_the_level_of_the_whole_file(tmp_path):
    wave = noise(20)
    wave[:100] *= 2
    wave[100:] /= 4  # only the first segment has the peak
    prepared = Preparation(TINY, video=False)(audio_row(tmp_path, wave))
    assert prepared.ids == ["a_0", "a_1"]
    assert prepared.waveforms.shape == (2, 128_000)
    assert prepared.clip is None
    scaled = torch.from_numpy(wave / np.abs(wave).max() * 0.95)
    first = 20 * RATE - int(SEGMENT_SECONDS * RATE)
    assert torch.allclose(prepared.waveforms, torch.stack([scaled[:128_000], scaled[first : first + 128_000]]))


def test_audio_settings(tmp_path):
    wave = noise(45)
    row = audio_row(tmp_path, wave)
    assert len(Preparation(TINY, video=False)(row).ids) == 5
    plain = Preparation(TINY, video=False, peak_normalise=False, max_segments=1)(row)
    assert plain.ids == ["a_0"]
    assert torch.equal(plain.waveforms[0], torch.from_numpy(wave[:128_000]))
    later = Preparation(TINY, video=False, peak_normalise=False)(ManifestRow("a", row.path, start=36.5))
    assert later.ids == ["a_0"]
    assert torch.equal(later.waveforms[0], torch.from_numpy(wave[584_000 : 584_000 + 128_000]))


def test_silent_segments_are_rejected_alone(tmp_path):
    wave = noise(30)
    wave[: 9 * RATE] = 0
    prepared = Preparation(TINY, video=False)(audio_row(tmp_path, wave))
    assert prepared.ids == ["a_1", "a_2"]
    [(name, reason)] = prepared.rejected
    assert name == "a_0"
    assert "silent from 0.00 s on" in reason


@pytest.mark.parametrize(
    ("wave", "start", "message"),
    [
        (noise(8.09), 0, "has 8.09 s of sound, needs 8.1 s"),
        (noise(12), 4, "has 8.00 s of sound from 4 s on, needs 8.1 s"),
        (noise(9) * 0, 0, "is silent"),
    ],
)
def test_unusable_audio(tmp_path, wave, start, message):
    with pytest.raises(ClipError, match=message) as error:
        Preparation(TINY, video=False)(audio_row(tmp_path, wave, start=start))
    assert str(error.value).startswith(str(tmp_path / "a.wav"))


# ---- video


def picture(index):
    """(48, 64, 3): grey level and stripe position say which frame it is."""
    image = np.full((48, 64, 3), 40 + index % 200, np.uint8)
    image[:, index % 60 : index % 60 + 4] = 255
    return image


def write_clip(path, wave, frames=205, start=Fraction(0), sound_delay=Fraction(0), sound=True):
    """Pictures at 25 fps and lossless sound, both from `start` on the file's clock, the sound `sound_delay` later."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=FPS, options={"qscale": "2"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        track = out.add_stream("alac" if path.suffix == ".mp4" else "flac", rate=RATE, layout="mono") if sound else None
        if track:
            track.format = "s16p" if path.suffix == ".mp4" else "s16"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i + round(start * FPS), Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if track:
            pcm = (wave * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format=track.format.name, layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round((start + sound_delay) * RATE)
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return ManifestRow("v", path)


VIDEO = Preparation(TINY, video=True, peak_normalise=False)


@pytest.fixture(scope="module")
def sound():
    return noise(8.2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, sound):
    return VIDEO(write_clip(tmp_path_factory.mktemp("clips") / "plain.mkv", sound))


def test_a_clip_is_exactly_eight_seconds(plain, sound):
    assert plain.ids == ["v"]
    assert plain.waveforms.shape == (1, 128_000)
    assert plain.clip.shape == (64, 3, 64, 64)
    assert plain.sync.shape == (200, 3, 64, 64)
    assert np.abs(plain.waveforms[0].numpy() - sound[:128_000]).max() < 1e-4


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_clock_that_does_not_start_at_zero_changes_nothing(tmp_path, plain, sound, suffix):
    late = VIDEO(write_clip(tmp_path / f"late{suffix}", sound, start=Fraction(5)))
    assert torch.equal(late.waveforms, plain.waveforms)
    assert torch.equal(late.clip, plain.clip)
    assert torch.equal(late.sync, plain.sync)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_that_begins_later_than_the_picture_is_heard_later(tmp_path, plain, sound, suffix):
    """Half a second after the first frame, in a file whose clock starts at 5 s as well: latents of the shifted clip."""
    late = write_clip(tmp_path / f"late{suffix}", sound, start=Fraction(5), sound_delay=Fraction(1, 2))
    shifted = write_clip(tmp_path / "shifted.mkv", np.concatenate([np.zeros(RATE // 2, np.float32), sound]))
    late, shifted = VIDEO(late), VIDEO(shifted)
    codec = Encoders(TINY, torch.device("cpu")).codec
    assert torch.equal(codec.encode(late.waveforms).mean, codec.encode(shifted.waveforms).mean)
    assert not torch.allclose(late.waveforms, plain.waveforms, atol=0.1)
    assert torch.equal(late.clip, plain.clip)


def test_start_moves_picture_and_sound_alike(tmp_path, sound):
    whole = np.concatenate([noise(1, seed=7), sound])
    row = write_clip(tmp_path / "whole.mkv", whole, frames=230)
    late = VIDEO(ManifestRow("v", row.path, start=1.0))
    assert np.abs(late.waveforms[0].numpy() - sound[:128_000]).max() < 1e-4
    every = VIDEO(row)
    assert torch.equal(late.sync[:175], every.sync[25:])
    assert torch.equal(late.clip[:56], every.clip[8:])


def test_the_last_frame_is_held_for_one_slot_at_most(tmp_path, sound):
    """7.96 s of picture and sound will do; of 7.92 s of picture, 63 whole eighths of a second count."""
    held = VIDEO(write_clip(tmp_path / "a.mkv", sound[: round(7.96 * RATE)], frames=199))
    assert held.sync.shape[0] == 200
    assert torch.equal(held.sync[199], held.sync[198])
    assert not torch.equal(held.sync[198], held.sync[197])
    assert held.clip.shape[0] == 64
    assert held.waveforms[0, 127_360:].abs().max() == 0
    with pytest.raises(ClipError, match=r"has 7.88 s of video from 0 s on, needs 8 s"):
        VIDEO(write_clip(tmp_path / "b.mkv", sound, frames=198))
    with pytest.raises(ClipError, match=r"has 127200 samples of sound after resampling, needs 127360"):
        VIDEO(write_clip(tmp_path / "c.mkv", sound[: round(7.95 * RATE)], frames=200))


def test_official_rates_take_a_clip_of_exactly_eight_seconds(tmp_path, sound):
    """353280 samples at 44.1 kHz are 8.011 s."""
    row = write_clip(tmp_path / "a.mkv", sound[: 8 * RATE], frames=200)
    variant = dataclasses.replace(VARIANTS["small_44k"], clip=TINY.clip, sync=TINY.sync)  # small frames, to be quick
    prepared = Preparation(variant, video=True)(row)
    assert prepared.waveforms.shape == (1, 353_280)
    assert prepared.waveforms[0, 352_800:].abs().max() == 0
    assert len(prepared.clip) == 64


def test_videos_that_cannot_be_used(tmp_path, sound):
    with pytest.raises(MediaError, match="has no audio track"):
        VIDEO(write_clip(tmp_path / "mute.mkv", sound, sound=False))
    with pytest.raises(ClipError, match="silent"):
        VIDEO(write_clip(tmp_path / "silent.mkv", sound * 0))
    with pytest.raises(MediaError, match="no video stream"):
        VIDEO(audio_row(tmp_path, sound))
    with pytest.raises(MediaError, match="there is no such file"):
        VIDEO(ManifestRow("v", tmp_path / "none.mp4"))


def test_of_a_video_in_an_audio_manifest_the_sound_is_taken(tmp_path, sound):
    prepared = Preparation(TINY, video=False, peak_normalise=False)(write_clip(tmp_path / "a.mkv", sound))
    assert prepared.ids == ["v_0"]
    assert np.abs(prepared.waveforms[0].numpy() - sound[:128_000]).max() < 1e-4

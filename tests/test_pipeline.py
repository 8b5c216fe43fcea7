"""The pipeline on small real clips, with the bundled weights."""

import gc
import weakref

import numpy as np
import pytest
import torch

import mmaudio
from mmaudio.media import MediaError, read_audio, read_video
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

STEPS = 2


@pytest.fixture(scope="module")
def pipe():
    return mmaudio.load("tiny_16k", device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "ball.mp4"
    write_mp4(path, render_clip(2_000_000, size=96, duration=2, audio=False))
    return path


def test_video_and_prompt(pipe, clip, tmp_path):
    seen = []
    generation = pipe(
        video=clip, prompt="a ball bounces", num_steps=STEPS, progress=lambda stage, done, total: seen.append(stage)
    )[0]
    assert generation.audio.shape == (1, 32_000)
    assert generation.audio.dtype == torch.float32
    assert 1e-4 < generation.audio.abs().max() <= 1
    assert (generation.sample_rate, generation.seed, generation.variant) == (16_000, 42, "tiny_16k")
    assert generation.duration == pytest.approx(2.0, abs=0.01)
    order = list(dict.fromkeys(seen))
    assert order == ["decode", "CLIP", "sync", "text", "conditions", "solve", "VAE", "vocoder"]
    assert set(order) <= set(pipe.timings)
    sound = generation.save(tmp_path / "a.flac")
    assert read_audio(sound)[0].shape == (1, 32_000)
    video = generation.save_video(tmp_path / "a.mp4")
    assert video.picture_copied
    assert "<audio" in generation._repr_html_()
    with pytest.raises(MediaError, match="exists"):
        generation.save(tmp_path / "a.flac", overwrite=False)


def test_same_seed_same_result_alone_and_in_a_batch(pipe, clip):
    alone, again = (pipe(video=clip, prompt="wood", num_steps=STEPS, seed=43)[0] for _ in range(2))
    assert torch.equal(alone.latents, again.latents)
    assert torch.equal(alone.audio, again.audio)
    batch = pipe(video=clip, prompt="wood", num_steps=STEPS, seed=42, num_samples=4)
    assert [g.seed for g in batch] == [42, 43, 44, 45]
    assert (batch[1].latents - alone.latents).abs().max() <= 1e-4
    assert (batch[0].latents - alone.latents).abs().max() > 0.1


def test_words_alone_never_load_a_vision_tower(clip):
    pipe = mmaudio.Pipeline("tiny_16k", device="cpu")
    generation = pipe(prompt="a glass bottle is struck", num_steps=STEPS, duration=1.5)[0]
    assert generation.audio.shape == (1, 24_000)
    assert set(pipe._parts) - {"network", "few_step"} == {"codec", "clip_text"}
    with pytest.raises(MediaError, match="without a video file"):
        generation.save_video("out.mp4")


def test_prompt_picture_and_guidance_matter(pipe, clip):
    options = {"num_steps": STEPS, "duration": 1.5}

    def latents(**changes):
        return pipe(**{"video": clip, "prompt": "metal", **options, **changes})[0].latents

    base = latents()
    for changes in (
        {"prompt": "rubber"},
        {"negative_prompt": "rubber"},
        {"mask_away_clip": True},
        {"cfg_strength": 1.0},
        {"solver": "midpoint"},
        {"video": None},
        {"seed": 1},
    ):
        assert (latents(**changes) - base).abs().max() > 1e-3, changes


def test_low_memory_keeps_one_part_and_gives_the_same(pipe, clip, monkeypatch):
    small = mmaudio.Pipeline("tiny_16k", device="cpu", low_memory=True)
    alive, most, load_part = weakref.WeakSet(), [], small.part

    def part(name):
        module = load_part(name)
        alive.add(module)
        gc.collect()
        most.append(len(alive))
        return module

    monkeypatch.setattr(small, "part", part)
    a = small(video=clip, prompt="wood", num_steps=STEPS)[0]
    b = pipe(video=clip, prompt="wood", num_steps=STEPS)[0]
    assert max(most) == 1
    assert not small._parts
    assert (a.latents - b.latents).abs().max() <= 1e-4


def test_frames_in_memory_are_as_good_as_a_file(pipe, clip):
    from_file = pipe(video=clip, prompt="wood", num_steps=STEPS)[0]
    frames = read_video(clip, rule=pipe.variant.frame_rule)
    from_frames = pipe(video=frames, prompt="wood", num_steps=STEPS)[0]
    assert (from_file.latents - from_frames.latents).abs().max() <= 1e-4
    from_frames.audio *= 0.5  # the user's own tensor
    with pytest.raises(ValueError, match="already read"):
        pipe(video=read_video(clip), duration=1.0)


def test_picture(pipe, tmp_path):
    from PIL import Image

    path = tmp_path / "still.png"
    Image.fromarray(render_clip(3, size=64, duration=1, audio=False).video[0]).save(path)
    generation = pipe(image=path, prompt="wood", num_steps=STEPS, duration=1.0)[0]
    assert generation.is_picture
    result = generation.save_video(tmp_path / "still.mp4")
    assert read_video(result.path).duration >= 0.9
    tensor = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    again = pipe(image=tensor, prompt="wood", num_steps=STEPS, duration=1.0)[0]
    assert torch.equal(again.latents, generation.latents)
    assert again.save_video(tmp_path / "tensor.mp4").path.exists()
    with pytest.raises(MediaError, match="too narrow"):
        pipe(image=torch.zeros(3, 2, 200, dtype=torch.uint8))


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), 0.4, 10_000])
def test_senseless_durations(pipe, duration):
    with pytest.raises(ValueError, match="duration"):
        pipe(prompt="x", duration=duration)


@pytest.mark.parametrize(
    "options",
    [{"num_steps": 0}, {"num_samples": 0}, {"cfg_strength": float("nan")}, {"solver": "magic"}, {"seed": -1}],
)
def test_senseless_options(pipe, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        pipe(prompt="x", duration=1, **{"num_steps": 1, **options})


def test_cancelling(pipe, clip):
    class Cancelled(Exception):
        pass

    def stop(stage, done, total):
        if stage == "solve" and done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        pipe(video=clip, prompt="x", num_steps=5, progress=stop)


def test_reduced_precision_keeps_the_tables_in_float32(clip):
    low = mmaudio.Pipeline("tiny_16k", device="cpu", dtype=torch.bfloat16)
    generation = low(video=clip, prompt="wood", num_steps=STEPS)[0]
    assert torch.isfinite(generation.audio).all()
    network = low.part("network")
    assert network.dtype == torch.bfloat16
    assert network.t_embed.freqs.dtype == torch.float32


def test_list_variants():
    rows = {row.name: row for row in mmaudio.list_variants()}
    assert rows["tiny_16k"].weights == "bundled"
    assert rows["small_16k"].parameters == 157_283_644
    assert rows["large_44k_v2"].parameters == 1_030_575_608
    assert "NC" in rows["large_44k"].licence

"""What only a GPU can show; skipped, visibly, without one."""

import pytest
import torch

import mmaudio
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

pytestmark = pytest.mark.gpu


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, render_clip(2_000_000, size=96, duration=2, audio=False))
    return path


def test_float32_agrees_with_the_cpu(clip):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    latents = []
    for device in ("cpu", "cuda"):
        pipe = mmaudio.load("tiny_16k", device=device, dtype=torch.float32)
        inputs = pipe.read(clip)
        conditional, _ = pipe.conditions(pipe.encode(inputs, "wood"), inputs.spec)
        t = torch.full((1,), 0.5, device=device)
        noise = torch.randn(1, inputs.spec.latent_len, 20, generator=torch.Generator().manual_seed(0)).to(device)
        with torch.inference_mode():
            latents.append(pipe.part("network").velocity(noise, t, conditional).cpu())
    assert (latents[0] - latents[1]).abs().max() < 1e-3


def test_bfloat16_is_the_default_and_close(clip):
    low = mmaudio.load("tiny_16k", device="cuda")
    assert low.dtype == torch.bfloat16
    full = mmaudio.load("tiny_16k", device="cuda", dtype=torch.float32)
    a, b = (pipe(video=clip, prompt="wood", cfg_strength=1.0)[0] for pipe in (low, full))
    assert torch.isfinite(a.audio).all()
    assert a.audio.shape == b.audio.shape


def test_compiled_with_cuda_graphs_it_gives_the_same(clip, capsys):
    plain, compiled = (mmaudio.load("tiny_16k", device="cuda", dtype=torch.float32, compile=c) for c in (False, True))
    for _ in range(2):  # the second time every graph is replayed
        a, b = (pipe(video=clip, prompt="wood", num_steps=4)[0] for pipe in (plain, compiled))
        assert (a.latents - b.latents).abs().max() < 1e-3
    said = capsys.readouterr().err
    assert "flow network: compiled" in said
    assert "goes on without it" not in said

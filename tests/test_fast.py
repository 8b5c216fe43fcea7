"""What is swapped in for speed gives what it stands for, to rounding."""

import dataclasses

import pytest
import torch
from torch import nn

import mmaudio
from mmaudio import flow, loading
from mmaudio.codec import fast_vocoder
from mmaudio.codec.codec import AudioCodec
from mmaudio.codec.fast_vocoder import AntiAliasedSnake, ChannelsLastConv, Upsampling, fast_bigvgan
from mmaudio.codec.mel import MEL_16K, MelSpectrogram
from mmaudio.codec.vae import VAE, VAEConfig
from mmaudio.codec.vocoder import BigVGANConfig, GriffinLim, GriffinLimConfig, build_bigvgan, fold_weight_norm
from mmaudio.fast_conv import FastConv1d, FastConv1dChannelsFirst, suits, toom_cook
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K

NETWORK = MMAudioConfig(
    latent_dim=4, hidden_dim=128, num_heads=2, joint_blocks=2, fused_blocks=1, clip_dim=8, sync_dim=8, text_dim=8
)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return randomised(MMAudio(NETWORK))


@pytest.fixture(scope="module")
def branches(network):
    """Two samples of one clip, and their unconditional branch."""
    g = torch.Generator().manual_seed(1)
    clip, sync, text = (torch.randn(1, n, 8, generator=g).expand(2, -1, -1) for n in (64, 192, 77))
    with torch.inference_mode():
        return network.encode_conditions(clip, sync, text, SPEC_16K), network.null_conditions(2, SPEC_16K)


@pytest.mark.parametrize("taps", [3, 4])
def test_toom_cook_is_exact_for_whole_numbers(taps):
    a, g, b = toom_cook(4, taps)
    x, w = torch.arange(1.0, 4 + taps, dtype=torch.float64) ** 2, torch.tensor([3.0, -1.0, 2.0, 5.0]).double()[:taps]
    assert a.shape[1] == 4 + taps - 1  # the products that are left of 4 * taps
    direct = torch.stack([(w * x[j : j + taps]).sum() for j in range(4)])
    torch.testing.assert_close(a @ ((g @ w) * (b @ x)), direct, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("kernel", [3, 5, 7, 11])
@pytest.mark.parametrize(("length", "dilation"), [(1, 1), (37, 1), (64, 3), (50, 5)])
def test_fast_convolution(kernel, length, dilation):
    torch.manual_seed(kernel)
    conv = nn.Conv1d(24, 16, kernel, padding=dilation * (kernel // 2), dilation=dilation).requires_grad_(False)
    x = torch.randn(2, 24, length)
    wanted = conv.double()(x.double()).float()
    conv.float()
    fast = FastConv1dChannelsFirst(conv.weight, conv.bias, dilation)(x)
    torch.testing.assert_close(fast, wanted, rtol=0, atol=2e-5)
    assert torch.equal(FastConv1d(conv.weight, conv.bias, dilation)(x.mT), fast.mT)


def test_what_suits():
    assert suits(nn.Conv1d(128, 256, 7, padding=9, dilation=3))
    for other in (
        nn.Linear(128, 128),
        nn.Conv1d(128, 64, 3, padding=1),
        nn.Conv1d(128, 128, 1),
        nn.Conv1d(128, 128, 4, padding=2),
        nn.Conv1d(128, 128, 3),
        nn.Conv1d(128, 128, 3, padding=1, stride=2),
        nn.Conv1d(256, 256, 3, padding=1, groups=2),
    ):
        assert not suits(other), other


@torch.inference_mode()
def test_fast_vocoder(monkeypatch):
    config = BigVGANConfig(
        mel=MEL_16K, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), final_tanh=True, upsample_initial_channel=256
    )
    torch.manual_seed(0)
    vocoder = fold_weight_norm(build_bigvgan(config)).eval().requires_grad_(False)
    for name, parameter in vocoder.named_parameters():
        if name.endswith((".alpha", ".beta")):  # ones otherwise, once they are exponentiated
            nn.init.normal_(parameter, std=0.3)
    mel = torch.randn(2, 80, 13)
    wanted = vocoder(mel)
    assert 0.01 < wanted.abs().max() < 0.99  # neither silent nor at tanh's ends
    monkeypatch.setattr(fast_vocoder, "BLOCK", 1024)  # 8 frames of the first layers
    kinds = [type(module) for module in fast_bigvgan(vocoder).modules()]
    for kind in (AntiAliasedSnake, ChannelsLastConv, FastConv1dChannelsFirst, Upsampling):
        assert kind in kinds
    torch.testing.assert_close(vocoder(mel), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(8, 4, 2), (4, 2, 1), (7, 3, 2), (3, 3, 0)])
@torch.inference_mode()
def test_upsampling(kernel, stride, padding):
    torch.manual_seed(kernel)
    conv = nn.ConvTranspose1d(6, 5, kernel, stride, padding, bias=kernel != 3)
    x = torch.randn(2, 6, 9)
    torch.testing.assert_close(Upsampling(conv)(x), conv(x), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_fast_vae():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(mel_dim=128, latent_dim=20, width=64)).fold()  # levels of 64, 128 and 256 channels
    vae.decoder.learnable_gain.fill_(0.5)
    codec = AudioCodec(MelSpectrogram(MEL_16K), vae, GriffinLim(GriffinLimConfig(MEL_16K)))
    latents = torch.randn(2, 9, 20)
    wanted = codec.decode_mel(latents)
    loading.speed_up(codec)
    assert sum(isinstance(module, FastConv1d) for module in vae.decoder.modules()) == 4 + 2 * 6 + 1
    torch.testing.assert_close(codec.decode_mel(latents), wanted, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_sharing_modulations_changes_nothing(network, branches):
    conditional, null = branches
    x, t = torch.randn(2, SPEC_16K.latent_len, 4), torch.full((4,), 0.3)
    wanted = network.velocity(x.repeat(2, 1, 1), t, conditional.concat(null))
    shared = conditional.shared().concat(null.shared())
    assert len(conditional.shared().rows) == 192  # sync tokens of both samples together
    assert len(null.shared().rows) < 192
    for latents in (x, x.repeat(2, 1, 1)):
        torch.testing.assert_close(network.velocity(latents, t, shared), wanted, rtol=0, atol=1e-5)
    one = dataclasses.replace(NETWORK, sync_use="none")
    network = randomised(MMAudio(one))
    null = network.null_conditions(2, SPEC_16K)
    torch.testing.assert_close(network.velocity(x, t[:2], null.shared()), network.velocity(x, t[:2], null))


@torch.inference_mode()
def test_fast_network(network, branches):
    def solved(network):
        return flow.euler(flow.guided(network, *branches, 4.5), torch.ones(2, SPEC_16K.latent_len, 4), 2)

    fast = MMAudio(NETWORK).eval()
    fast.load_state_dict(network.state_dict())
    loading.speed_up(fast)
    assert sum(isinstance(module, FastConv1d) for module in fast.modules()) == 3 + 4 * 3 + 4  # input, latents, CLIP
    assert fast.dtype == torch.float32
    torch.testing.assert_close(solved(fast), solved(network), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "swapped"), [({}, True), ({"low_memory": True}, False), ({"dtype": torch.bfloat16}, False)]
)
def test_what_the_pipeline_speeds_up(monkeypatch, options, swapped):
    monkeypatch.setattr(loading, "load_network", lambda *args: MMAudio(NETWORK))
    network = mmaudio.Pipeline("tiny_16k", device="cpu", **options).part("network")
    assert any(isinstance(module, FastConv1d) for module in network.modules()) == swapped

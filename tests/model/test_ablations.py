"""The switches of MMAudioConfig: each changes what it says and nothing else."""

import dataclasses
import json

import pytest
import torch

from mmaudio.model.layers import MLP, ConvMLP, nearest_exact_index, rope_table
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import CONFIG_KEY, WeightError, save_safetensors

SPEC = SPEC_16K.with_duration(2.0)
FULL = MMAudioConfig(
    latent_dim=4, hidden_dim=32, num_heads=2, joint_blocks=2, fused_blocks=1, clip_dim=6, sync_dim=8, text_dim=6
)
SWITCHES = [
    {"sync_use": "none"},
    {"sync_use": "sum"},
    {"aligned_rope": False},
    {"conv_mlp": False},
    {"missing": "zeros"},
    {"missing": "learned"},
]


def network_of(**switches) -> MMAudio:
    """Random where a new network is zero, for zero gates hide what the blocks do."""
    torch.manual_seed(0)
    network = MMAudio(dataclasses.replace(FULL, **switches))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.2, generator=generator)
    return network


def features(batch: int = 2, **changes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(batch, *shape, generator=generator)

    return {
        "latent": normal(SPEC.latent_len, FULL.latent_dim), "t": normal().sigmoid(),
        "clip": normal(SPEC.clip_len, FULL.clip_dim), "sync": normal(SPEC.sync_len, FULL.sync_dim),
        "text": normal(FULL.text_len, FULL.text_dim),
    } | changes  # fmt: skip


def velocity(network: MMAudio, **changes) -> torch.Tensor:
    return network(**features(**changes), spec=SPEC)


UNUSED = {f"joint_blocks.1.{stream}_block.attn.q_norm.weight" for stream in ("clip", "text")}  # the last gives k and v


@pytest.mark.parametrize("switches", [{}, *SWITCHES], ids=str)
def test_every_parameter_that_is_trained_learns(switches):
    network = network_of(**switches)
    some = torch.tensor([True, False])
    velocity(network, no_clip=some, no_sync=some, no_text=some).square().mean().backward()
    learns = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns == {name for name, p in network.named_parameters() if p.requires_grad} - UNUSED


def test_without_sync_features_they_do_not_matter():
    other = features()["sync"].flip(1)
    full, none = network_of(), network_of(sync_use="none")
    assert not torch.allclose(velocity(full), velocity(full, sync=other))
    torch.testing.assert_close(velocity(none), velocity(none, sync=other), rtol=0, atol=0)


def test_summed_sync_features_are_visual_tokens_and_modulate_nothing():
    full, summed = (network_of(sync_use=use) for use in ("modulate", "sum"))
    x = {name: features()[name] for name in ("clip", "sync", "text")}
    conditions, plain = summed.encode_conditions(**x, spec=SPEC), full.encode_conditions(**x, spec=SPEC)
    assert not conditions.sync.any()
    tokens = (x["sync"].unflatten(1, (-1, 8)) + full.sync_pos_emb).flatten(1, 2)
    visual = plain.clip[:, nearest_exact_index(SPEC.clip_len, SPEC.sync_len)]
    torch.testing.assert_close(conditions.clip, visual + full.sync_input_proj(tokens))
    assert not torch.allclose(velocity(summed), velocity(summed, sync=x["sync"].flip(1)))
    head = FULL.hidden_dim // FULL.num_heads
    aligned = rope_table(SPEC.sync_len, head, SPEC.latent_len / SPEC.sync_len)
    torch.testing.assert_close(conditions.clip_rope, aligned, rtol=0, atol=0)


def test_default_rope_counts_visual_tokens():
    x = {name: features()[name] for name in ("clip", "sync", "text")}
    aligned, default = (network_of(aligned_rope=on) for on in (True, False))
    a, b = (network.encode_conditions(**x, spec=SPEC) for network in (aligned, default))
    torch.testing.assert_close(b.clip_rope, b.latent_rope[: SPEC.clip_len], rtol=0, atol=0)
    torch.testing.assert_close(a.latent_rope, b.latent_rope, rtol=0, atol=0)
    assert not torch.allclose(velocity(aligned), velocity(default))


def test_plain_mlps_have_as_many_parameters_and_do_not_see_neighbours():
    conv, plain = network_of(), network_of(conv_mlp=False)
    assert not any(isinstance(module, ConvMLP) for module in plain.modules())
    assert sum(isinstance(m, MLP) for m in plain.modules()) == sum(isinstance(m, MLP | ConvMLP) for m in conv.modules())
    count, expected = (sum(p.numel() for p in network.parameters()) for network in (plain, conv))
    assert count == expected
    x = torch.randn(1, 9, FULL.hidden_dim)
    y = x.clone()
    y[:, 4] += 1
    for network, touched in ((conv, True), (plain, False)):
        ffn = network.fused_blocks[0].ffn
        assert (ffn(x) - ffn(y))[:, 5].any().item() is touched


@pytest.mark.parametrize(
    ("missing", "visual", "text"), [("default", True, False), ("zeros", False, False), ("learned", True, True)]
)
def test_what_missing_modalities_are(missing, visual, text):
    network = network_of(missing=missing)
    assert [p.requires_grad for p in (network.empty_clip_feat, network.empty_sync_feat)] == [visual, visual]
    assert network.empty_string_feat.requires_grad is text
    zeros = {name: torch.zeros_like(features()[name]) for name in ("clip", "sync", "text")}
    everything = torch.ones(2, dtype=torch.bool)
    gone = velocity(network, no_clip=everything, no_sync=everything, no_text=everything)
    assert torch.allclose(gone, velocity(network, **zeros)) is (missing == "zeros")


def test_a_file_says_what_its_network_is(tmp_path):
    changed = dataclasses.replace(TINY_16K.network, sync_use="sum", aligned_rope=False, missing="zeros")
    metadata = network_metadata(dataclasses.replace(TINY_16K, network=changed))
    path = tmp_path / "net.safetensors"
    save_safetensors(path, {"x": torch.zeros(1)}, metadata)
    assert get_variant(path).network == changed
    written = json.loads(metadata[CONFIG_KEY])
    for name in ("sync_use", "aligned_rope", "conv_mlp", "missing"):
        del written[name]
    save_safetensors(path, {"x": torch.zeros(1)}, metadata | {CONFIG_KEY: json.dumps(written)})
    assert get_variant(path).network == TINY_16K.network, "files from before there were switches"
    save_safetensors(path, {"x": torch.zeros(1)}, metadata | {CONFIG_KEY: '{"missing": "random"}'})
    with pytest.raises(WeightError, match="missing is 'random', expected one of default, zeros, learned"):
        get_variant(path)

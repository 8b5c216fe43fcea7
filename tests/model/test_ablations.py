"""The switches of MMAudioConfig: each changes what it says and nothing else."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from mmaudio.model.layers import MLP, ConvMLP, nearest_exact_index, rope_table, sync_frame_index
from mmaudio.model.network import MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K, SPEC_44K
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import CONFIG_KEY, WeightError, save_safetensors

SPEC = SPEC_16K.with_duration(2.0)
FULL = MMAudioConfig(
    latent_dim=4, hidden_dim=32, num_heads=2, joint_blocks=2, fused_blocks=1, clip_dim=6, sync_dim=8, text_dim=6
)
SWITCHES = [
    {"sync_use": "none"},
    {"sync_use": "sum"},
    {"sync_in_time": True},
    {"sync_in_time": True, "sync_use": "none"},
    {"unit_variance": True},
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


@pytest.mark.parametrize("spec", [SPEC_16K, SPEC_44K, SPEC_16K.with_duration(0.64), SPEC_44K.with_duration(5.3)])
def test_sync_features_in_time_are_of_the_frame_that_is_seen(spec):
    index = sync_frame_index(spec)
    assert len(index) == spec.latent_len
    segment, within = index // 16, index % 16
    middles = (torch.arange(spec.latent_len) + 0.5).double() * spec.mel_per_latent * spec.hop_length
    last = 8 * spec.sync_segments + 7  # what follows is in no segment
    assert torch.equal(8 * segment + within, (25 * middles / spec.sample_rate).long().clamp(max=last))
    inner = (segment > 0) & (segment < spec.sync_segments - 1)
    assert ((within[inner] >= 4) & (within[inner] < 12)).all()


@pytest.mark.parametrize("moment", [0.3, 1.0, 1.7])
def test_a_moment_s_sync_features_modulate_that_moment(moment):
    """What a stretched sequence does not: there the two segments that see a moment put it at two other ones."""
    found = {}
    for in_time in (False, True):
        network = network_of(sync_in_time=in_time)
        sync = features(batch=1)["sync"]
        changed = sync.clone()
        for segment in range(SPEC.sync_segments):
            token = int(25 * moment - 8 * segment) // 2
            if 0 <= token < 8:
                changed[:, 8 * segment + token] += 5.0
        other = {name: features(batch=1)[name] for name in ("clip", "text")}
        one, two = (network.encode_conditions(sync=x, **other, spec=SPEC).sync for x in (sync, changed))
        found[in_time] = ((one - two)[0].abs().amax(1) > 0).nonzero().squeeze(1) * SPEC.duration / SPEC.latent_len
    width = (2 / 25) / 2 + 4 * SPEC.duration / SPEC.latent_len  # of the token and of the convolutions, to each side
    assert (found[True] - moment).abs().max() < width + 0.08
    assert (found[False] - moment).abs().max() > width + 0.08


def test_unit_variance_lets_words_and_pictures_be_heard():
    """Of a new network of real size. Features of length 1 are all but lost in two SwiGLU units."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"clip": (SPEC.clip_len, 64), "text": (77, 64)}
    one, two = (
        {name: F.normalize(torch.randn(1, *shape, generator=generator), dim=-1) for name, shape in shapes.items()}
        for _ in range(2)
    )
    sync = torch.zeros(1, SPEC.sync_len, 128)
    moved = {}
    for on in (False, True):
        torch.manual_seed(0)
        network = MMAudio(dataclasses.replace(TINY_16K.network, unit_variance=on))
        a, b = (network.encode_conditions(sync=sync, **x, spec=SPEC).global_c for x in (one, two))
        moved[on] = (a - b).std()
    assert moved[False] < 1e-3 < 0.05 < moved[True] < 2


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
    for name in ("sync_use", "sync_in_time", "unit_variance", "aligned_rope", "conv_mlp", "missing"):
        del written[name]
    save_safetensors(path, {"x": torch.zeros(1)}, metadata | {CONFIG_KEY: json.dumps(written)})
    before = dataclasses.replace(TINY_16K.network, sync_in_time=False, unit_variance=False)
    assert get_variant(path).network == before, "files from before there were switches"
    save_safetensors(path, {"x": torch.zeros(1)}, metadata | {CONFIG_KEY: '{"missing": "random"}'})
    with pytest.raises(WeightError, match="missing is 'random', expected one of default, zeros, learned"):
        get_variant(path)

"""LoRA: nothing at the start, the same merged as not, strict files, and it learns."""

import copy
import json

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mmaudio.model.lora import DEFAULT_TARGETS, add_lora, load_adapter, lora_state, merged_state, save_adapter
from mmaudio.model.network import SIZES, MMAudio, MMAudioConfig
from mmaudio.sequence import SPEC_16K
from mmaudio.weights import CONFIG_KEY, WeightError, read_metadata, read_state, save_safetensors

CONFIG = MMAudioConfig(20, 64, 2, joint_blocks=2, fused_blocks=1, clip_dim=16, sync_dim=24, text_dim=16)
SPEC = SPEC_16K.with_duration(1.0)


def network(config=CONFIG):
    torch.manual_seed(0)
    net = MMAudio(config)
    for name, parameter in net.named_parameters():  # zero gates would hide the blocks
        if "adaLN" in name or name.startswith("final_layer.conv"):
            nn.init.normal_(parameter, std=0.05)
    return net


def adapted(**options):
    """A network with adapters that are not zero any more."""
    net = network()
    add_lora(net, **({"rank": 3, "alpha": 6.0, "generator": torch.Generator().manual_seed(1)} | options))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.05)
    return net


def inputs(config=CONFIG):
    g = torch.Generator().manual_seed(2)
    shapes = [(SPEC.latent_len, 20), (), (SPEC.clip_len, config.clip_dim), (SPEC.sync_len, config.sync_dim)]
    shapes.append((config.text_len, config.text_dim))
    return [torch.randn(2, *shape, generator=g) for shape in shapes]


@torch.no_grad()
def output(net):
    return net(*inputs(), SPEC)


def test_nothing_changes_at_the_start():
    net = network()
    before = output(net)
    names = add_lora(net, rank=4)
    assert torch.equal(output(net), before)
    assert "joint_blocks.0.latent_block.attn.qkv" in names
    assert "joint_blocks.0.clip_block.linear1" in names
    assert "joint_blocks.0.text_block.ffn.w1" in names
    assert "fused_blocks.0.ffn.w3" in names
    # 3 streams of 5 layers, of which the last joint block's CLIP and text streams have qkv only; 5 of a fused block
    assert len(names) == 15 + (5 + 1 + 1) + 5


def test_merged_equals_unmerged():
    net = adapted()
    plain = MMAudio(CONFIG)
    plain.load_state_dict(merged_state(net.state_dict()))  # strict: the official layout
    assert (output(net) - output(network())).abs().max() > 1e-2
    torch.testing.assert_close(output(plain), output(net), rtol=0, atol=1e-5)
    assert merged_state(plain.state_dict()).keys() == plain.state_dict().keys()


def test_only_adapters_learn():
    net = adapted()
    net(*inputs(), SPEC).square().mean().backward()
    with_gradient = {name for name, p in net.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in net.named_parameters() if p.requires_grad}
    assert with_gradient == {name for name, _ in net.named_parameters() if name.endswith(("lora_A", "lora_B"))}
    assert all(net.get_parameter(name).grad.abs().max() > 0 for name in with_gradient)


def test_it_learns_and_leaves_the_base_alone():
    net = network()
    frozen = {name: value.clone() for name, value in net.state_dict().items()}
    names = add_lora(net, rank=2, generator=torch.Generator().manual_seed(1))
    target = output(adapted())
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(12):
        loss = (net(*inputs(), SPEC) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    merged = merged_state(net.state_dict())
    changed = {key.removesuffix(".weight") for key, value in merged.items() if not torch.equal(value, frozen[key])}
    assert changed == set(names)


@pytest.mark.parametrize("targets", [[r"^final_layer\.conv$"], ["clip_input_proj.0", r"attn\.qkv"]])
def test_targets(targets):
    names = add_lora(net := network(), 1, targets=targets)
    assert all(any(t.strip("^$").replace("\\", "") in name for t in targets) for name in names)
    assert len(lora_state(net.state_dict())) == 2 * len(names)
    if len(targets) == 1:
        assert names == ["final_layer.conv"]


@pytest.mark.parametrize(
    ("rank", "targets", "says"),
    [(0, [], "rank"), (2, ["qkv", "no_such_layer"], "'no_such_layer' fits no"), (2, ["("], "regular expression")],
)
def test_bad_arguments(rank, targets, says):
    net = network()
    with pytest.raises(ValueError, match=says):
        add_lora(net, rank, targets=targets)
    assert net.state_dict().keys() == MMAudio(CONFIG).state_dict().keys()
    assert net.audio_input_proj[0].weight.requires_grad


# ---- files


@pytest.fixture
def adapter(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, adapted().state_dict(), CONFIG, "toy")
    return path


def test_round_trip(adapter):
    net = network()
    load_adapter(net, adapter)
    torch.testing.assert_close(output(net), output(adapted()), rtol=0, atol=1e-5)
    metadata = read_metadata(adapter)
    assert (metadata["rank"], metadata["alpha"], metadata["variant"]) == ("3", "6", "toy")
    shapes = {key: tuple(value.shape) for key, value in read_state(adapter).items()}
    assert shapes["fused_blocks.0.attn.qkv.lora_A.weight"] == (3, 64)  # as peft writes them
    assert shapes["fused_blocks.0.linear1.lora_A.weight"] == (3, 64, 3)
    assert shapes["fused_blocks.0.linear1.lora_B.weight"] == (64, 3, 1)


def test_strength_and_several(adapter, tmp_path):
    base, once, twice, none = (network() for _ in range(4))
    load_adapter(once, adapter, strength=0.5)
    for _ in range(2):
        load_adapter(twice, adapter, strength=0.25)
    load_adapter(none, adapter, strength=0.7)
    load_adapter(none, adapter, strength=-0.7)
    torch.testing.assert_close(output(twice), output(once), rtol=0, atol=1e-5)
    torch.testing.assert_close(output(none), output(base), rtol=0, atol=1e-5)
    key = "fused_blocks.0.linear1.weight"
    half = merged_state(adapted().state_dict())[key] - base.state_dict()[key]
    torch.testing.assert_close(once.state_dict()[key] - base.state_dict()[key], half / 2, rtol=1e-4, atol=1e-6)


def test_half_precision_base(adapter):
    net = network().to(torch.bfloat16)
    load_adapter(net, adapter)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


def rewrite(path, metadata=None, **changes):
    """The file again with other metadata and entries; None drops one."""
    state = {k: v for k, v in (read_state(path) | changes).items() if v is not None}
    save_safetensors(path, state, {k: v for k, v in (read_metadata(path) | (metadata or {})).items() if v is not None})


def config_with(**changes):
    return {CONFIG_KEY: json.dumps({**vars(CONFIG), **changes})}


QKV = "fused_blocks.0.attn.qkv"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "truncated"),
        (lambda p: p.write_text("I am no file of weights"), "not a weight file"),
        (lambda p: p.unlink(), "cannot read"),
        (lambda p: rewrite(p, {"part": None}), "no LoRA adapter"),
        (lambda p: rewrite(p, {"alpha": None}), "metadata"),
        (lambda p: rewrite(p, {"rank": "0"}), "metadata"),
        (lambda p: rewrite(p, {CONFIG_KEY: "[]"}), "metadata"),
        (lambda p: rewrite(p, config_with(hidden_dim=448)), "made for toy with hidden_dim 448, this network has 64"),
        (lambda p: rewrite(p, config_with(v2=True)), "v2 True"),
        (lambda p: rewrite(p, **{f"{QKV}.lora_B.weight": None}), "no pair"),
        (lambda p: rewrite(p, **{f"{QKV}.lora_A.weight": torch.zeros(3, 65)}), "do not fit"),
        (lambda p: rewrite(p, **{f"{QKV}.lora_C.weight": torch.zeros(3)}), "unexpected"),
        (lambda p: rewrite(p, **{f"x.lora_{n}.weight": torch.zeros(3, 3) for n in "AB"}), "does not have"),
    ],
)
def test_bad_files(adapter, spoil, says):
    spoil(adapter)
    net = network()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(WeightError, match=says) as error:
        load_adapter(net, adapter)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_disk_full(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WeightError, match="No space left"):
        save_adapter(tmp_path / "a.safetensors", adapted().state_dict(), CONFIG, "toy")
    assert list(tmp_path.iterdir()) == []


# ---- wrapped


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def compare_gradients(plain, net):
    for (name, a), (other, b) in zip(plain.named_parameters(), net.named_parameters(), strict=True):
        assert name == other
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(whole(b.grad), a.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_shared_and_sharded(strategy, process_group):
    plain, net = adapted(), adapted()
    call = net
    if strategy == "ddp":
        call = DistributedDataParallel(net)
    else:
        for block in (*net.joint_blocks, *net.fused_blocks):
            fully_shard(block)
        fully_shard(net)
    for function in (plain, call):
        function(*inputs(), SPEC).square().mean().backward()
    compare_gradients(plain, net)
    state = {name: whole(value) for name, value in net.state_dict().items()}
    torch.testing.assert_close(merged_state(state), merged_state(plain.state_dict()))


def test_compiled():
    """One graph, without a break."""
    x, condition = torch.randn(2, 2, 9, CONFIG.hidden_dim, generator=torch.Generator().manual_seed(0))
    blocks = [adapted().fused_blocks[0] for _ in range(2)]
    for function in (blocks[0], torch.compile(blocks[1], backend="aot_eager", fullgraph=True)):
        function(x, condition, None).square().mean().backward()
    compare_gradients(*blocks)


def test_default_targets_fit_every_official_size():
    for name in ("small_16k", "large_44k_v2"):
        with torch.device("meta"):
            net = MMAudio(SIZES[name])
            names = add_lora(net, 8)
        blocks = SIZES[name].joint_blocks * 15 - 8 + SIZES[name].fused_blocks * 5
        assert len(names) == blocks
        assert all(p.is_meta for p in net.parameters())
    assert len(DEFAULT_TARGETS) == 3

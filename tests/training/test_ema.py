"""Post-hoc EMA: against the reference's numbers, against calculus, and through files, checkpoints and shards."""

import logging

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from fill import tensor
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mmaudio.training.ema import (
    PostHocEMA,
    beta,
    gamma,
    inner_product,
    open_snapshots,
    sigma_rel,
    synthesis_weights,
    synthesize,
)
from mmaudio.weights import WeightError, read_metadata, read_state, save_safetensors


def walk(steps, seed=22, size=10):
    """Weights after steps 1, 2, ... of a training that walks at random, and a constant."""
    theta = tensor("ema.init", (size,), seed)
    for k in range(steps):
        theta = theta + 0.1 * tensor(f"ema.step.{k}", (size,), seed)
        yield {"w": theta, "constant": torch.full((3,), 0.7)}


def trained(folder, steps=200, every=20, **options):
    ema = None
    for state in walk(steps):
        ema = ema or PostHocEMA(state, **options)
        ema.update(state)
        if ema.updates % every == 0:
            ema.snapshot(folder, ema.averages(), metadata={"variant": "toy"})
    return ema


# ---- the reference's numbers


def reference_folder(folder, kit):
    """The golden's training, its snapshots written as the reference implementation writes them."""
    case, rows = kit.case("ema_toy"), {"online": [], "ema0": [], "ema1": []}
    ema = None
    for k, state in enumerate(walk(case["config"]["steps"], case["config"]["seed"]), start=1):
        ema = ema or PostHocEMA(state, case["config"]["sigma_rels"], correction="reference")
        ema.update(state)
        rows["online"].append(state["w"])
        for i, average in enumerate(ema.averages()):
            rows[f"ema{i}"].append(average["w"].clone())
            if k % case["config"]["checkpoint_every"] == 0:
                content = {f"ema_model.{name}": value.clone() for name, value in average.items()}
                torch.save(content | {"_extra_state": {"initted": True, "step": k}}, folder / f"{i}.{k}.pt")
    return {name: torch.stack(values) for name, values in rows.items()}


def test_golden(kit, tmp_path):
    case = kit.case("ema_toy")
    expected = kit.json(case)
    for sigma, g in expected["gammas"].items():
        assert gamma(float(sigma)) == pytest.approx(g, rel=case["json_rtol"])
    for t, betas in enumerate(expected["beta_used_by_first_5_updates"], start=1):
        ours = [beta(t, gamma(sigma), correction="reference") for sigma in case["config"]["sigma_rels"]]
        assert ours == pytest.approx(betas, rel=case["json_rtol"])
    kit.compare(case, reference_folder(tmp_path, kit))

    snapshots = open_snapshots(tmp_path)
    assert [snapshot.path.name for snapshot in snapshots] == expected["checkpoint_files"]
    profiles = [(snapshot.step, snapshot.sigma_rel) for snapshot in snapshots]
    outputs = {}
    for sigma in case["config"]["synthesize"]:
        for step in case["config"]["synthesize_at"]:
            name = f"synth_sigma{sigma}_step{step or 'last'}"
            outputs[name] = synthesize(tmp_path, sigma, step)["w"]
            weights = synthesis_weights(profiles, step or 200, sigma, "reference")
            outputs[f"weights_{name}"] = weights
            assert weights.sum().item() == pytest.approx(expected["sum_of_weights"][name], rel=case["json_rtol"])
    kit.compare(case, outputs)


def test_the_reference_snapshots_can_be_synthesised_exactly_too(kit, tmp_path):
    reference_folder(tmp_path, kit)
    as_it_does, ours = synthesize(tmp_path, 0.08, 120), synthesize(tmp_path, 0.08, 120, correction="exact")
    assert not torch.allclose(as_it_does["constant"], torch.full((3,), 0.7), atol=1e-4)
    torch.testing.assert_close(ours["constant"], torch.full((3,), 0.7))
    torch.testing.assert_close(ours["w"], as_it_does["w"], atol=0.02, rtol=0)


# ---- calculus


def test_gamma_and_sigma_rel_are_inverse():
    for sigma in (0.001, 0.03, 0.05, 0.1, 0.15, 0.2, 12**-0.5):
        assert sigma_rel(gamma(sigma)) == pytest.approx(sigma)
    assert gamma(12**-0.5) == pytest.approx(0, abs=1e-9)
    for sigma in (0, -0.1, 0.29, float("nan")):
        with pytest.raises(ValueError, match="sigma_rel must be"):
            gamma(sigma)


@pytest.mark.parametrize("update_every", [1, 5])
def test_the_average_is_the_profile(update_every):
    """Weights that are one unit vector per step make the shares of the steps visible: the profile's integrals."""
    steps = 40
    ema = PostHocEMA({"w": torch.zeros(steps)}, [0.1, 12**-0.5], update_every)
    for k in range(steps):
        ema.update({"w": torch.eye(steps)[k]})
    ends = torch.arange(0, steps + 1, update_every, dtype=torch.float64) / steps
    for sigma, average in zip(ema.sigma_rels, ema.averages(), strict=True):
        shares = (ends ** (gamma(sigma) + 1)).diff().float()
        torch.testing.assert_close(average["w"][update_every - 1 :: update_every], shares)
        assert average["w"].sum().item() == pytest.approx(1)


def test_inner_product_is_the_integral():
    tau = torch.linspace(0, 1, 100_001, dtype=torch.float64)

    def profile(t, g):
        return torch.where(tau <= t, (g + 1) * tau**g / t ** (g + 1), 0.0)

    for (ta, ga), (tb, gb) in (((0.4, 3.0), (0.9, 7.0)), ((0.9, 7.0), (0.4, 3.0)), ((0.5, 2.0), (0.5, 6.0))):
        integral = torch.trapezoid(profile(ta, ga) * profile(tb, gb), tau).item()
        arguments = (torch.tensor(x, dtype=torch.float64) for x in (ta, ga, tb, gb))
        assert inner_product(*arguments).item() == pytest.approx(integral, rel=1e-3)


@pytest.mark.parametrize("sigma", [0.07, 0.15])
def test_synthesis_is_what_would_have_been_tracked(tmp_path, sigma):
    trained(tmp_path, every=10)
    direct = trained(tmp_path / "direct", every=120, sigma_rels=[sigma])
    at_120 = read_state(tmp_path / "direct" / "0.120.safetensors")
    tracked = {120: at_120, 200: direct.averages()[0]}
    scale = (tracked[200]["w"] - list(walk(200))[-1]["w"]).abs().mean()  # what averaging changes at all
    for step, expected in tracked.items():
        got = synthesize(tmp_path, sigma, step)
        assert (got["w"] - expected["w"]).abs().max() < 0.01 * scale  # another sigma_rel, 10 % off, makes 0.16
        assert torch.equal(got["constant"], torch.full((3,), 0.7))


def test_later_snapshots_do_not_matter(tmp_path):
    trained(tmp_path / "long")
    trained(tmp_path / "short", steps=120)
    assert torch.equal(synthesize(tmp_path / "long", 0.07, 120)["w"], synthesize(tmp_path / "short", 0.07)["w"])


def test_a_stored_profile_is_returned_as_it_is(tmp_path):
    ema = trained(tmp_path)
    for sigma, average in zip(ema.sigma_rels, ema.averages(), strict=True):
        assert torch.equal(synthesize(tmp_path, sigma)["w"], average["w"])
    stored = read_state(tmp_path / "1.60.safetensors")
    assert torch.equal(synthesize(tmp_path, 0.1, 60)["w"], stored["w"])


def test_a_warning_far_outside_of_what_is_stored(tmp_path, caplog):
    trained(tmp_path)
    with caplog.at_level(logging.WARNING):
        synthesize(tmp_path, 0.07)
        assert not caplog.messages
        synthesize(tmp_path, 0.01)
    assert "sigma_rel 0.01 is far from the stored 0.05, 0.1" in caplog.messages[0]


# ---- networks, checkpoints, shards


def test_frozen_parameters_and_half_precision():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)).to(torch.bfloat16)
    frozen = network[1].weight.clone()
    ema = PostHocEMA(network.state_dict())
    for _ in range(4):
        nn.init.normal_(network[0].weight)
        ema.update(network.state_dict())
    average = ema.averages()[0]
    assert all(value.dtype == torch.float32 for value in average.values())
    assert torch.equal(average["1.weight"], frozen.float())
    assert not torch.equal(average["0.weight"], network[0].weight.float())


def test_update_every_as_the_reference_counts():
    """Updates happen at the first, third, fifth call; the first copies."""
    ema = PostHocEMA({"w": torch.zeros(1)}, [0.05], update_every=2, correction="reference")
    seen = []
    for k in range(1, 6):
        ema.update({"w": torch.tensor([float(k)])})
        seen.append(ema.averages()[0]["w"].item())
    stays = [beta(t, gamma(0.05), 2, "reference") for t in (3, 5)]
    third = 3 + stays[0] * (1 - 3)
    assert seen == pytest.approx([1, 1, third, third, 5 + stays[1] * (third - 5)])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_resumed_is_bit_equal_to_undisturbed(tmp_path):
    whole = trained(tmp_path / "whole", steps=30)
    resumed = None
    for k, state in enumerate(walk(30)):
        if k in (0, 17):
            fresh = PostHocEMA({name: torch.zeros_like(value) for name, value in state.items()})
            if k == 17:
                dcp.save(resumed.state_dict(), checkpoint_id=tmp_path / "checkpoint", no_dist=True)
                saved = fresh.state_dict()
                dcp.load(saved, checkpoint_id=tmp_path / "checkpoint", no_dist=True)
                fresh.load_state_dict(saved)
            resumed = fresh
        resumed.update(state)
    assert resumed.updates == whole.updates == 30
    for a, b in zip(whole.averages(), resumed.averages(), strict=True):
        assert torch.equal(a["w"], b["w"])


@pytest.mark.parametrize("changed", [{"sigma_rels": [0.05, 0.15]}, {"update_every": 2}, {"correction": "reference"}])
def test_a_checkpoint_of_other_settings_is_refused(changed):
    state = next(walk(1))
    with pytest.raises(ValueError, match="cannot be mixed"):
        PostHocEMA(state, **changed).load_state_dict(PostHocEMA(state).state_dict())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sigma_rels": [0.05, 0.4]}, "sigma_rel"),
        ({"sigma_rels": [0.1, 0.1]}, "differ"),
        ({"update_every": 0}, "update_every"),
        ({"correction": "none"}, "correction"),
    ],
)
def test_senseless_settings(options, says):
    with pytest.raises(ValueError, match=says):
        PostHocEMA(next(walk(1)), **options)


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_tensors(tmp_path, process_group):
    """FSDP's tensors are averaged as plain ones are, and stay sharded."""
    networks = [nn.Sequential(nn.Linear(5, 3), nn.SiLU(), nn.Linear(3, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    fully_shard(networks[1])
    emas = []
    for network in networks:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        emas.append(PostHocEMA(network.state_dict()))
        for step in range(4):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            network(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            emas[-1].update(network.state_dict())
    for plain, sharded in zip(*(ema.averages() for ema in emas), strict=True):
        for name, value in sharded.items():
            assert isinstance(value, DTensor)
            torch.testing.assert_close(value.full_tensor(), plain[name])
    gathered = ({name: value.full_tensor() for name, value in average.items()} for average in emas[1].averages())
    emas[1].snapshot(tmp_path, gathered)
    torch.testing.assert_close(synthesize(tmp_path, 0.05)["0.weight"], emas[0].averages()[0]["0.weight"])


# ---- bad folders


def test_update_every_that_does_not_divide_the_snapshots_step(tmp_path):
    trained(tmp_path, every=10, update_every=4)
    assert {snapshot.step for snapshot in open_snapshots(tmp_path)} == {k - k % 4 for k in range(10, 201, 10)}


def replace(folder, name, state=None, metadata=None):
    old = folder / name
    save_safetensors(old, state or read_state(old), read_metadata(old) | (metadata or {}))


def truncated(folder):
    path = folder / "1.60.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def truncated_pt(folder):
    torch.save({"ema_model.w": torch.zeros(1000), "_extra_state": {"initted": True, "step": 220}}, folder / "0.220.pt")
    (folder / "0.220.pt").write_bytes((folder / "0.220.pt").read_bytes()[:-700])


def other_profile(folder):
    torch.save({"ema_model.w": torch.zeros(1), "_extra_state": {"initted": True, "step": 20}}, folder / "2.20.pt")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no snapshots"),
        (truncated, "1.60.safetensors: truncated"),
        (truncated_pt, "0.220.pt: truncated"),
        (other_profile, "profiles"),
        (lambda folder: replace(folder, "1.60.safetensors", {"v": torch.zeros(1)}), "other tensors"),
        (lambda folder: replace(folder, "0.40.safetensors", metadata={"correction": "reference"}), "two trainings"),
        (lambda folder: replace(folder, "0.40.safetensors", metadata={"step": "41"}), "made at step 41"),
        (lambda folder: replace(folder, "0.40.safetensors", metadata={"sigma_rel": "x"}), "metadata"),
        (lambda folder: replace(folder, "1.40.safetensors", metadata={"sigma_rel": "0.05"}), "same profile and step"),
    ],
)
def test_bad_folders(tmp_path, spoil, says):
    trained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(WeightError, match=says) as error:
        synthesize(tmp_path, 0.07)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sigma", "step", "says"), [(0.5, None, "sigma_rel"), (0.07, 220, "no snapshot"), (0.1, 7, "near")]
)
def test_bad_questions(tmp_path, sigma, step, says):
    trained(tmp_path)
    with pytest.raises(ValueError, match=says):
        synthesize(tmp_path, sigma, step)

"""Distillation: where it starts, what it learns where the truth is known, and what its file is to those who use it."""

import dataclasses
import math
import shlex
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from mediatasks import draw
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small import NETWORK, SMALL, SmallSource
from test_command import make_store
from torch import nn

import mmaudio
from mmaudio import flow, long
from mmaudio.cli import demo
from mmaudio.data.sampler import Item
from mmaudio.editing import Given
from mmaudio.loading import load_network
from mmaudio.model.network import MMAudio
from mmaudio.training.command import run
from mmaudio.training.config import DataConfig, DataEntry, EMAConfig, OptimizerConfig, TrainConfig
from mmaudio.training.task import Nets
from mmaudio.training.tasks import distill
from mmaudio.training.tasks.distill import FewStepLoss, GuidanceLoss, Teacher
from mmaudio.training.tasks.flow import build as build_flow
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import save_safetensors

ROOT = Path(__file__).parents[2]
SLIM = dataclasses.replace(TINY_16K.network, hidden_dim=32, num_heads=1, joint_blocks=1, fused_blocks=1)


def network_of(config) -> MMAudio:
    """Random where a new network is zero, for zero gates hide what the blocks do."""
    torch.manual_seed(1)
    network = MMAudio(config)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and not parameter.any() and not name.startswith("interval_proj"):
            nn.init.normal_(parameter, std=0.1)
    network.freeze_constants()
    return network


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("features") / "store")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A teacher for tiny_16k's features."""
    path = tmp_path_factory.mktemp("weights") / "slim.safetensors"
    variant = dataclasses.replace(TINY_16K, network=SLIM)
    save_safetensors(path, network_of(SLIM).state_dict(), network_metadata(variant))
    return path


@pytest.fixture
def settings(store, weights, tmp_path):
    def make(start=weights, exp_id="run", until=2, **options) -> TrainConfig:
        return TrainConfig(
            exp_id=exp_id,
            output=str(tmp_path / "output"),
            weights=str(start),
            task={"name": "distill", **options},
            data=DataConfig(train=[DataEntry(store=str(store))]),
            steps=until,
            batch_size=2,
            num_workers=0,
            log_every=1,
            optimizer=OptimizerConfig(lr=1e-3, warmup=0, schedule="constant"),
            ema=EMAConfig(snapshot_every=0),
        )

    return make


FEW = {"steps": [1, 2], "teacher_steps": 2}


# ---- where it starts


@pytest.mark.parametrize("stage", distill.STAGES)
def test_the_student_starts_as_its_teacher(settings, weights, stage):
    task = distill.build(settings(stage=stage), torch.device("cpu"))
    teacher, network = load_network(get_variant(weights)), task.network
    added = {"interval_proj.weight"} if stage == "few_step" else set()
    assert set(network.state_dict()) - set(teacher.state_dict()) == added
    assert network.config == dataclasses.replace(SLIM, guidance=4.5, few_step=stage == "few_step")
    assert not network.latent_mean.requires_grad
    batch = task.train.__getitems__([Item(0, 0), Item(1, 1)])
    features = task.loss.features(batch, draw(batch))
    x, t = torch.randn(batch.mean.shape), torch.tensor([0.0, 0.4])
    until = {"until": torch.tensor([1.0, 0.65])} if added else {}
    torch.testing.assert_close(network(x, t, **features, **until), teacher(x, t, **features), rtol=0, atol=1e-6)


def test_an_interval_of_no_length_adds_nothing():
    config = dataclasses.replace(NETWORK, few_step=True)
    network = network_of(config)
    nn.init.normal_(network.interval_proj.weight)
    conditions = network.null_conditions(2, SMALL.spec)
    x, t = torch.randn(2, SMALL.spec.latent_len, NETWORK.latent_dim), torch.tensor([0.1, 0.8])
    now, same, later = (network.velocity(x, t, conditions, until) for until in (None, t, t + 0.2))
    assert torch.equal(now, same)
    assert not torch.allclose(now, later)


# ---- what it learns


def train(loss, network: nn.Module, steps: int, lr: float, rows: int, draws: int) -> list:
    """The losses' parts by step; so many different draws take turns."""
    optimizer = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batch = SmallSource(rows).__getitems__([Item(row, row) for row in range(rows)])
    record = []
    for step in range(steps):
        losses = loss(Nets(network), batch, draw(batch, step % draws))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        schedule.step()
        record.append(losses.parts)
    return record


class TwoPoints:
    """A teacher of which all is known: every latent number is drawn from two Gaussians, about -1.5 and 1."""

    MEANS, STD = torch.tensor([-1.5, 1.0]), 0.4

    def velocity(self, features) -> flow.Velocity:
        def velocity(t, x):
            spread = (1 - t) ** 2 + (t * self.STD) ** 2
            off = x[..., None] - t * self.MEANS
            likely = (-off.square() / (2 * spread)).softmax(-1)
            return (likely * (self.MEANS + (t * self.STD**2 - (1 - t)) / spread * off)).sum(-1)

        return velocity


class Pointwise(nn.Module):
    """A student of every number by itself; it starts as the velocity zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))
        self.config = dataclasses.replace(NETWORK, few_step=True)

    def forward(self, latent, t, *, until, **features):
        t, until = (x[:, None, None].expand_as(latent) for x in (t, until))
        return self.layers(torch.stack([latent, t, until], -1)).squeeze(-1)

    def velocity(self, latent, t, conditions, until):
        return self(latent, t, until=until)


def test_few_steps_reach_where_the_flow_leads():
    teacher, student = TwoPoints(), Pointwise()
    loss = FewStepLoss(Teacher(network_of(NETWORK), 1.0), SMALL, 0.0, False, "cpu", [1, 2, 4], 16)
    loss.teacher = teacher
    train(loss, student, steps=300, lr=1e-2, rows=1, draws=300)
    x0 = torch.randn(1, 500, 4, generator=torch.Generator().manual_seed(7))
    velocity = teacher.velocity({})
    truth = flow.euler(velocity, x0, 200)
    assert (truth < -0.5).float().mean() == pytest.approx(0.5, abs=0.1), "there are both kinds"

    def error(x):
        return (x - truth).square().mean().sqrt().item()

    for steps, times in ((1, 4), (2, 2), (4, 1)):
        with torch.no_grad():
            ours = flow.euler(flow.averaged(student, None, 1 / steps), x0, steps)
        assert times * error(ours) < error(flow.euler(velocity, x0, steps)), steps


def test_one_pass_takes_over_the_guidance():
    teacher = network_of(NETWORK).eval().requires_grad_(False)
    student = distill.student(teacher, dataclasses.replace(NETWORK, guidance=3.0))
    loss = GuidanceLoss(Teacher(teacher, 3.0), SMALL, 0.1, False, "cpu")
    batch = SmallSource(2).__getitems__([Item(row, row) for row in range(2)])
    features = loss.features(batch, draw(batch))
    x, t = torch.randn(batch.mean.shape), torch.tensor([0.3, 0.9])
    conditions, null = teacher.encode_rows(**features), teacher.null_conditions(2, SMALL.spec)
    wanted = 3 * teacher.velocity(x, t, conditions) - 2 * teacher.velocity(x, t, null)  # written out once more
    torch.testing.assert_close(loss.teacher.velocity(features)(t, x), wanted)
    first, *_, last = train(loss, student, steps=30, lr=1e-3, rows=2, draws=1)
    assert last["error"] < first["error"] / 2


def test_targets_are_averages_of_the_teacher_s_way():
    teacher = network_of(NETWORK).requires_grad_(False)
    loss = FewStepLoss(Teacher(teacher, 2.0), SMALL, 0.0, False, "cpu", [1, 2, 4], 4)
    batch = SmallSource(4).__getitems__([Item(row, row) for row in range(4)])
    calls = []

    def network(x, t, *, until, **features):
        calls.append((x, t, until, features))
        return torch.zeros_like(x, requires_grad=True)

    losses = loss(Nets(network), batch, draw(batch))
    [(x, t, until, features)] = calls
    torch.testing.assert_close((until - t).view(3, 4)[:, 0], torch.tensor([1.0, 0.5, 0.25]))
    whole = slice(0, 4)  # the rows of one step
    assert torch.equal(t[whole], torch.zeros(4))
    rows = {name: value[whole] for name, value in features.items() if name != "spec"} | {"spec": SMALL.spec}
    end = flow.euler(Teacher(teacher, 2.0).velocity(rows), x[whole], 4)
    torch.testing.assert_close(losses.parts["error_1"], (end - x[whole]).square().mean())
    assert set(losses.parts) == {"error_1", "error_2", "error_4"}
    begins = {
        round(4 * begin) for step in range(40) for begin in (loss.intervals(draw(batch, step))[0][2] / 4).tolist()
    }
    assert begins == {0, 1, 2, 3}, "every quarter has its turn"


# ---- what its file is


def evaluations(monkeypatch) -> list:
    """(batch, until - t) of every evaluation of a network from now on."""
    seen, velocity = [], MMAudio.velocity

    def counted(self, latent, t, conditions, until=None):
        seen.append((len(latent), None if until is None else round((until - t)[0].item(), 4)))
        return velocity(self, latent, t, conditions, until)

    monkeypatch.setattr(MMAudio, "velocity", counted)
    return seen


def test_both_stages_from_the_command_to_sound(settings, capsys, monkeypatch, tmp_path):
    assert run(settings(exp_id="guided", stage="guidance", guidance=3.0)) == 0
    guided = Path(capsys.readouterr().out.strip())
    assert guided.name == "tiny_16k_guided.safetensors"
    assert run(settings(guided.parent.parent, exp_id="few", **FEW)) == 0
    few = Path(capsys.readouterr().out.strip())
    variant = get_variant(few)
    assert (variant.base, variant.network.guidance, variant.network.few_step) == ("tiny_16k", 3.0, True)
    assert load_file(few)["interval_proj.weight"].any()

    seen = evaluations(monkeypatch)
    pipe = mmaudio.load(few, device="cpu")
    [made] = pipe(prompt="a bell", negative_prompt="hum", duration=1, num_steps=2)
    assert seen == [(1, 0.5), (1, 0.5)]
    assert made.audio.isfinite().all()
    assert [note.partition(" is not used: ")[0] for note in made.notes[:1]] == ["cfg_strength 4.5"]
    assert made.notes[1].startswith("negative prompts are not used")
    assert not pipe(prompt="a bell", duration=1, num_steps=1, cfg_strength=3.0)[0].notes
    assert demo(["--variant", str(guided), "--prompt", "x", "--num_steps", "1", "--output", str(tmp_path / "o")]) == 0
    assert seen[-1] == (1, None)
    assert "cfg_strength 4.5 is not used: tiny_16k_guided has a guidance of 3 in it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="which solver heun cannot use: take euler"):
        pipe(prompt="a bell", duration=1, num_steps=1, solver="heun")
    assert run(settings(few, exp_id="again")) == 2
    assert "for few steps already" in capsys.readouterr().err


def test_few_steps_of_an_edit_and_of_a_long_video(monkeypatch):
    config = dataclasses.replace(SLIM, guidance=3.0, few_step=True)
    network = network_of(config).requires_grad_(False)
    nn.init.normal_(network.interval_proj.weight)
    pipe = mmaudio.Pipeline(dataclasses.replace(TINY_16K, network=config), "cpu", parts={"network": network})
    spec = TINY_16K.spec.with_duration(2)
    shape = (spec.latent_len, config.latent_dim)
    conditions, null = pipe.conditions((None,) * 4, spec)
    x1 = torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    given = Given(x1, torch.zeros(spec.latent_len, dtype=torch.bool), strength=0.5)
    made = pipe.solve(conditions, null, spec, [5], num_steps=4, given=given)
    x = (x1 + flow.initial_noise([5], shape, device="cpu", dtype=torch.float32)) / 2
    for t in (0.5, 0.75):  # two of four steps are left
        x = x + 0.25 * network.velocity(x, torch.tensor([t]), conditions, torch.tensor([t + 0.25]))
    torch.testing.assert_close(made, x, rtol=1e-4, atol=1e-4)

    seen = evaluations(monkeypatch)
    windows = long.plan(2 * spec.latent_len, spec.latent_len, 20)
    count = len(windows.starts)
    long.solve(pipe, windows, [pipe.conditions((None,) * 4, spec, count)], [5], 2, 4.5, "euler", None)
    assert seen == [(count, 0.5)] * 2


def test_a_resumed_run_ends_as_one_that_was_not_stopped(settings):
    whole, parted = settings(exp_id="whole", **FEW), settings(exp_id="parted", until=1, **FEW)
    for config in (whole, parted, dataclasses.replace(parted, steps=2)):
        assert run(config) == 0
    name = "checkpoints/step_00000002/tiny_16k_few_step.safetensors"
    one, other = (load_file(Path(config.output) / config.exp_id / name) for config in (whole, parted))
    assert all(torch.equal(x, other[key]) for key, x in one.items())
    assert one["interval_proj.weight"].any()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stage": "both"}, "task.stage must be one of guidance, few_step, got 'both'"),
        ({"guidance": 0.5}, "at least 1, which is none, got 0.5"),
        ({"guidance": math.inf}, "at least 1, which is none, got inf"),
        ({"steps": [1, 3]}, r"divisors of task.teacher_steps=16, got \[1, 3\]"),
        ({"steps": []}, "divisors of"),
        ({"steps": [0]}, "divisors of"),
        ({"teacher_steps": 0}, "divisors of task.teacher_steps=0"),
        ({"seconds": 0.5}, "task.seconds is 0.5, expected"),
        ({"stage": "guidance", "seconds": 9}, "task.seconds is 9, expected"),
        ({"teacher": 3}, "task distill: Key 'teacher'"),
        ({"start": "none"}, "unknown variant 'none'"),
    ],
)
def test_settings_that_make_no_sense(settings, options, says):
    with pytest.raises(ValueError, match=says) as error:
        distill.build(settings(**options), torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_weights_that_are_no_teacher(settings, tmp_path):
    config = settings()
    for changes, says in (
        ({"weights": None}, "needs weights=NAME or FILE"),
        ({"variant": "small_16k"}, "were made for tiny_16k, not for variant small_16k"),
    ):
        with pytest.raises(ValueError, match=says):
            distill.build(dataclasses.replace(config, **changes), torch.device("cpu"))
    own = dataclasses.replace(SLIM, guidance=3.0)
    path = tmp_path / "guided.safetensors"
    metadata = network_metadata(dataclasses.replace(TINY_16K, network=own))
    save_safetensors(path, network_of(own).state_dict(), metadata)
    with pytest.raises(ValueError, match="guidance in them already: go on with"):
        distill.build(settings(path, stage="guidance"), torch.device("cpu"))
    with pytest.raises(ValueError, match="weights of guided have 3 in them"):
        distill.build(settings(path, guidance=4.5), torch.device("cpu"))
    assert distill.build(settings(path), torch.device("cpu")).loss.teacher.strength == 0
    for start, network in ((path, {}), ("tiny_16k", {"few_step": True})):
        task = {"name": "flow", "network": network}
        with pytest.raises(ValueError, match="train its teacher, then task=distill"):
            build_flow(dataclasses.replace(settings(start), task=task), torch.device("cpu"))


def composed(words: list[str]) -> TrainConfig:
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_object(compose("train", words))


def test_every_option_is_written_down_with_its_default():
    config = composed(["task=distill", "data=my_clips", "weights=tiny_16k"])
    assert config.task == {"name": "distill"} | dataclasses.asdict(distill.Options())
    assert (config.batch_size, config.optimizer.schedule) == (128, "cosine")


def test_the_commands_of_the_page():
    text = (ROOT / "docs" / "few_steps.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python train.py ")]
    assert len(lines) == 4
    for words in lines:
        distill.check(distill.Options(**{k: v for k, v in composed(words).task.items() if k != "name"}))

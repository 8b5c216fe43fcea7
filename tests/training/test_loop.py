"""The loop on a task of no size: order of things, resuming, stopping, skipping, keeping. Ranks: test_ranks.py."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import ToySource, toy_config, toy_loss, toy_task

from mmaudio.data.sampler import Item, derived_seed
from mmaudio.training import loop
from mmaudio.training.checkpoint import CheckpointError
from mmaudio.training.distributed import ranks
from mmaudio.training.loop import TrainingError
from mmaudio.training.task import Draw, Nets


@pytest.fixture
def run(tmp_path):
    """Train a toy in `tmp_path / name`; the folder, the result, and what was said."""

    def go(name: str = "run", task=None, **changes):
        folder, said = tmp_path / name, []
        config = toy_config(**changes)
        with ranks("cpu", 60, config.strategy) as here:
            result, step = loop.train(task or toy_task(), config, here, folder, said.append)
        return folder, result, step, said

    return go


def lines(folder: Path, kind: str = "train") -> dict[int, dict]:
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == kind]
    assert steps == sorted(set(steps)), "every step once, in order"
    return {row["step"]: row for row in rows if row["kind"] == kind}


def same(a: Path, b: Path) -> bool:
    x, y = load_file(a), load_file(b)
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_a_run_from_start_to_end(run):
    folder, result, step, _ = run()
    assert (result, step) == (folder / "weights" / "toy.safetensors", 12)
    stats = lines(folder)
    assert list(stats) == list(range(12))
    assert stats[11]["loss"] < 0.8 * stats[0]["loss"]
    assert stats[0]["lr"] == pytest.approx(0.02 / 4)
    assert {"loss", "error", "lr", "grad_norm", "samples_per_second", "data_wait", "skipped", "memory"} <= set(stats[5])
    assert list(lines(folder, "validation")) == [5, 10, 12]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [f"step_{n:08d}" for n in (4, 8, 12)]
    assert len(list((folder / "ema").iterdir())) == 4  # two profiles at steps 6 and 12
    assert any((folder / "tensorboard").iterdir())
    network = toy_task().network
    network.load_state_dict(load_file(result))


def test_a_finished_run_does_nothing_more(run):
    folder, result, _, _ = run()
    before = load_file(result), (folder / "stats.jsonl").read_text()
    _, _, step, said = run()
    assert step == 12
    assert "going on from" in said[0]
    assert all(torch.equal(x, before[0][name]) for name, x in load_file(result).items())
    assert (folder / "stats.jsonl").read_text() == before[1]


@pytest.mark.parametrize("critic", [False, True])
def test_a_stopped_run_goes_on_bit_for_bit(run, critic):
    whole, expected, _, _ = run("whole", toy_task(critic=critic))
    calls = 0

    def interrupting(nets, batch, draw):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy_loss(nets, batch, draw)

    task = toy_task(critic=critic)
    task.loss = interrupting
    _, result, step, _ = run("halves", task)
    assert (result, step) == (None, 7)
    folder, result, step, said = run("halves", toy_task(critic=critic))
    assert step == 12
    assert "step 7" in said[0]
    assert same(result, expected)
    a, b = lines(folder), lines(whole)
    assert {k: v["loss"] for k, v in a.items()} == {k: v["loss"] for k, v in b.items()}
    last = "checkpoints/step_00000012/toy.safetensors"
    assert same(folder / last, whole / last)


def test_the_signal_handler_is_put_back(run):
    before = signal.getsignal(signal.SIGTERM)
    run(steps=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_accumulation_changes_nothing(run):
    a, b = lines(run("one", accumulation=1)[0]), lines(run("four", accumulation=4)[0])
    for step in a:
        assert b[step]["loss"] == pytest.approx(a[step]["loss"], rel=1e-5)


def test_loss_by_time(run):
    task = toy_task()

    def with_bins(nets, batch, draw):
        losses = toy_loss(nets, batch, draw)
        losses.by_time = torch.tensor([[8.0, 0.0], [2.0, 0.0]])
        return losses

    task.loss = with_bins
    folder = run(task=task, accumulation=2)[0]
    assert lines(folder)[0]["by_time"] == [4.0, None]
    assert lines(folder, "validation")[5]["by_time"] == [4.0, None]
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.value for event in board.Scalars("train_by_time/00")] == [4.0] * 12
    assert "train_by_time/01" not in board.Tags()["scalars"]


def test_numbers_that_join_later_are_means_too(run):
    every = lines(run("every", toy_task(critic=True))[0])
    fourth = lines(run("fourth", toy_task(critic=True), log_every=4)[0])
    assert "critic" not in every[2]  # it plays from step 3 on
    assert fourth[3]["critic"] == pytest.approx(every[3]["critic"])


def test_bad_steps_are_skipped_and_counted(run):
    source = ToySource(bad=(3,))
    folder, result, _, said = run(task=toy_task(source), steps=10)  # two epochs of five batches: two bad steps
    stats = lines(folder)
    assert stats[9]["skipped"] == 2
    assert sum("clip3" in line for line in said) == 2
    assert all(torch.isfinite(x).all() for x in load_file(result).values())
    assert [step for step in stats if "loss" not in stats[step]] == [
        int(line.split()[1].rstrip(":")) for line in said if "skipped" in line
    ]


def test_many_bad_steps_stop_the_run_with_its_last_good_state(run, tmp_path):
    good = toy_task()

    def failing(nets, batch, draw):
        losses = toy_loss(nets, batch, draw)
        losses.total = losses.total * (torch.nan if draw.step >= 5 else 1.0)
        return losses

    good.loss = failing
    with pytest.raises(TrainingError, match=r"3 steps in a row were not finite.*step_00000008"):
        run(task=good, max_bad_steps=3)
    kept = tmp_path / "run/checkpoints/step_00000008/toy.safetensors"
    assert same(kept, run("short", steps=5)[0] / "checkpoints/step_00000005/toy.safetensors")
    _, _, step, _ = run(task=toy_task())  # mended: goes on
    assert step == 12


def test_only_the_last_checkpoints_stay(run):
    folder = run(checkpoint_every=2, keep_checkpoints=2)[0]
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step_00000010", "step_00000012"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "unlist"])
def test_a_damaged_checkpoint_is_passed_over(run, damage):
    folder, result, _, _ = run("whole")
    expected = load_file(result)
    newest = folder / "checkpoints" / "step_00000012"
    victim = next((newest / "state").glob("*.distcp"))
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "remove":
        victim.unlink()
    else:
        (newest / "files.json").write_text("{")
    _, _, _, said = run("whole")
    assert "damaged" in said[0]
    assert "step 8" in said[1]
    assert all(torch.equal(x, expected[name]) for name, x in load_file(result).items())


def test_half_written_ones_are_never_loaded(run):
    folder = run(steps=4)[0]
    half = folder / "checkpoints" / ".step_00000008.tmp"
    (half / "state").mkdir(parents=True)
    _, _, step, said = run(steps=8)
    assert "step 4" in said[0]
    assert step == 8
    assert not half.exists()


@pytest.mark.parametrize(("where", "name"), [(dcp, "save"), (loop, "save_safetensors")], ids=["state", "weights"])
def test_disk_full_at_a_checkpoint_keeps_the_older_ones(run, monkeypatch, tmp_path, full_disk, where, name):
    real, saves = getattr(where, name), 0

    def second_time_full(*args, **kwargs):
        nonlocal saves
        saves += 1
        with full_disk(64) if saves == 2 else contextlib.nullcontext():
            return real(*args, **kwargs)

    monkeypatch.setattr(where, name, second_time_full)
    with pytest.raises(CheckpointError, match=r"step_00000008: cannot be written \(.*make room"):
        run()
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000004"]
    monkeypatch.undo()
    assert run()[2] == 12


def test_a_checkpoint_of_another_network_is_refused(run):
    run(steps=4)
    other = toy_task()
    other.network.layer = torch.nn.Linear(4, 16, bias=False)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        run(task=other, steps=8)


def test_changed_settings_are_named(run):
    run(steps=4)
    _, _, _, said = run(steps=8, seed=1)
    assert "changed since: steps, seed" in said[0]


def test_validation_is_the_mean_over_all_rows(run):
    folder = run(steps=1)[0]
    network = toy_task().network
    network.load_state_dict(load_file(folder / "checkpoints/step_00000001/toy.safetensors"))
    source, total = toy_task().validation, 0.0
    seed = derived_seed(toy_config().seed, loop.VALIDATION_STREAM)
    for number, rows in enumerate([range(32), range(32, 37)]):
        draw = Draw(seed, number, 32, slice(0, len(rows)), "cpu")
        batch = source.__getitems__([Item(row, 0) for row in rows])
        total += toy_loss(Nets(network), batch, draw).total.item() * len(rows)
    assert lines(folder, "validation")[1]["loss"] == pytest.approx(total / 37, rel=1e-6)


def test_contrastive_tasks_refuse_accumulation(run):
    task = toy_task()
    task.can_accumulate = False
    with pytest.raises(ValueError, match="accumulation=1"):
        run(task=task, accumulation=2)


@pytest.mark.parametrize("critic", [False, True])
def test_training_goes_on_where_nothing_can_be_compiled(run, monkeypatch, tmp_path, critic):
    expected = load_file(run("plain", toy_task(critic=critic), steps=6)[1])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    task = toy_task(critic=critic)
    task.blocks = lambda network: ()  # all of it at once, which takes a C++ compiler
    with torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/g++")}):
        _, result, _, said = run("compiled", task, compile=True, steps=6)
    assert sum("torch.compile does not work here, training goes on without it: " in line for line in said) == 1
    assert all(torch.equal(x, expected[name]) for name, x in load_file(result).items())


def test_compiled_training_learns_the_same(run):
    plain, compiled = lines(run("plain")[0]), lines(run("compiled", compile=True)[0])
    for step in plain:
        assert compiled[step]["loss"] == pytest.approx(plain[step]["loss"], rel=1e-4)


def test_too_large_a_batch(run):
    with pytest.raises(ValueError, match="40 clips, less than one batch of 64"):
        run(batch_size=64)


def test_unknown_names(run):
    with pytest.raises(ValueError, match="precision must be"):
        run(precision="half")
    with pytest.raises(ValueError, match="strategy must be"):
        run(strategy="zero")

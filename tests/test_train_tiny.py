"""The training script of the bundled model runs, stops, resumes and packs; a few steps on a few clips."""

import importlib.util
from pathlib import Path

import pytest
import torch

import mmaudio

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_tiny.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_tiny", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_part_trains_and_the_result_generates(script, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"

    def run(command, *arguments):
        script.main(
            [
                command,
                "--work",
                str(work),
                "--clips",
                "3",
                "--workers",
                "1",
                "--batch",
                "2",
                "--out",
                str(out),
                *arguments,
            ]
        )

    run("render")
    run("render")  # nothing left to do
    for part in ("clip", "sync", "vae", "vocoder"):
        run(part, "--minutes", "0.01")
    run("extract")
    run("flow", "--minutes", "0.01")
    before = torch.load(work / "flow.pt", weights_only=True)
    run("flow", "--minutes", str(before["elapsed"] / 60 + 0.01))
    after = torch.load(work / "flow.pt", weights_only=True)
    assert after["step"] > before["step"] >= 1
    assert after["elapsed"] > before["elapsed"]
    run("pack")
    pipe = mmaudio.load("tiny_16k", device="cpu", weights_dir=out)
    audio = pipe(prompt="a metal ball bounces", duration=1, num_steps=1)[0].audio
    assert audio.shape == (1, 16_000)
    assert torch.isfinite(audio).all()


def test_a_loss_that_is_not_finite_stops_the_run(script, tmp_path):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(SystemExit, match="not finite at step 0"):
        script.fit("x", tmp_path, 1.0, model, lambda rng: {"loss": model.weight.sum() * float("nan")}, lr=1e-3)
    assert not list(tmp_path.iterdir())


def test_motion_energy_sees_what_moves(script):
    frames = torch.zeros(1, 16, 3, script.SIZE, script.SIZE)
    frames[:, 8:, :, :16, :16] = 1.0  # the first patch jumps once
    energy = script.motion_energy(frames)
    assert energy.shape == (1, 16, (script.SIZE // 16) ** 2)
    assert energy[0, 8, 0] > 2
    energy[0, 8, 0] = 0
    assert energy.abs().max() == 0

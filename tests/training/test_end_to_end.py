"""From media to sound by the commands that users type: extract, train on two ranks, die, go on, average, listen."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmaudio.media import write_audio
from mmaudio.stage import render_clip
from mmaudio.stage.export import export

ROOT = Path(__file__).parents[2]
CLIPS, STEPS = 8, 30


def command(*words: str, cwd: Path, **popen) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, text=True, stderr=subprocess.PIPE, **popen)


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    export(range(CLIPS), folder / "videos", split="train", size=64)
    (folder / "sounds").mkdir()
    lines = ["id\tpath\tcaption\n"]
    for seed in range(100, 100 + CLIPS):
        clip = render_clip(seed, duration=8.2, video=False)
        write_audio(folder / "sounds" / f"{seed}.flac", torch.from_numpy(clip.audio)[None], clip.sample_rate)
        lines.append(f"s{seed}\t{seed}.flac\t{clip.caption}\n")
    (folder / "sounds" / "manifest.tsv").write_text("".join(lines))
    return folder


def test_from_media_to_sound(work):
    for name, manifest in (("videos", "videos/manifest.tsv"), ("sounds", "sounds/manifest.tsv")):
        script = str(ROOT / "scripts" / "extract_features.py")
        finish(
            command(
                script, f"manifest={manifest}", f"output=data/{name}", "variant=tiny_16k", "num_workers=0", cwd=work
            )
        )
    stores = "data.train=[{store: data/videos, weight: 2}, {store: data/sounds}]"
    train = [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(ROOT / "train.py")),
        *("exp_id=small", "variant=tiny_16k", "data=my_clips", stores, "data.validation=[{store: data/sounds}]"),
        *(f"steps={STEPS}", "batch_size=4", "num_workers=0", "log_every=1", "validate_every=15", "checkpoint_every=10"),
        *("optimizer.lr=1e-3", "optimizer.warmup=3", "ema.snapshot_every=10", "precision=bf16"),
    ]
    run = work / "output" / "small"
    first = command(*train, cwd=work)
    end = time.monotonic() + 240
    while not (run / "checkpoints" / "step_00000010").exists():
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)
    workers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()  # torchrun's: each its own group
    assert len(workers) == 2
    for pid in (first.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    first.communicate()

    errors = finish(command(*train, cwd=work, stdout=subprocess.DEVNULL))
    assert re.search(r"going on from .* at step [12]0\b", errors), errors
    rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == STEPS
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [15, STEPS]

    result = run / "weights" / "tiny_16k_network.safetensors"
    longer = work / "longer.safetensors"
    script = str(ROOT / "scripts" / "synthesize_ema.py")
    finish(command(script, str(run), "--sigma_rel", "0.08", "--output", str(longer), cwd=work))
    a, b = load_file(result), load_file(longer)
    assert a.keys() == b.keys()
    assert any(not torch.equal(a[name], b[name]) for name in a)
    with safe_open(longer, "pt") as file:
        assert file.metadata()["variant"] == "tiny_16k"
    for weights in (result, longer):
        demo = [str(ROOT / "demo.py"), "--variant", str(weights), "--prompt", "a bell", "--num_steps", "1"]
        finish(command(*demo, "--duration", "1", "--output", f"sound_{weights.stem}", cwd=work))
        assert (work / f"sound_{weights.stem}" / "a_bell.flac").stat().st_size > 1000

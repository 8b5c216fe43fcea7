"""`train.py`: what it makes of good settings and what it says to bad ones."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import mmaudio
from mmaudio.data.sampler import Split
from mmaudio.data.store import FeatureBatch, StoreRow, write_store
from mmaudio.loading import load_network
from mmaudio.model.lora import load_adapter
from mmaudio.model.network import SIZES, MMAudio
from mmaudio.training.command import run
from mmaudio.training.config import (
    DataConfig,
    DataEntry,
    EMAConfig,
    LoRAConfig,
    OptimizerConfig,
    PreviewConfig,
    TrainConfig,
)
from mmaudio.training.distributed import Ranks
from mmaudio.training.loop import Meter, Stop, TrainingState
from mmaudio.training.task import Task
from mmaudio.training.tasks.flow import FlowLoss
from mmaudio.variants import TINY_16K, get_variant, network_metadata
from mmaudio.weights import find, fingerprint

ROOT = Path(__file__).parents[2]
RESULT = "tiny_16k_network.safetensors"


def make_store(path: Path, *, codec: str | None = None, bad_row: int | None = None) -> Path:
    """Six rows of noise in tiny_16k's sizes."""
    spec, c, g = TINY_16K.spec, TINY_16K.network, torch.Generator().manual_seed(2)

    def noise(*shape):
        return torch.randn(*shape, generator=g)

    def row(i: int) -> StoreRow:
        mean = noise(spec.latent_len, c.latent_dim)
        std = torch.full_like(mean, 0.1)
        return StoreRow(
            f"r{i}", "a bell", mean, std, noise(spec.clip_len, c.clip_dim), noise(spec.sync_len, c.sync_dim)
        )

    texts = [(text, noise(c.text_len, c.text_dim)) for text in ("", "a bell")]
    identity = {"vae": codec or fingerprint(find(TINY_16K.files.vae))}
    write_store(path, map(row, range(6)), texts, count=6, variant="tiny_16k", spec=spec, identity=identity)
    if bad_row is not None:  # the writer refuses it, but disks and copies go wrong
        with open(path / "clip.memmap", "r+b") as file:
            file.seek(bad_row * spec.clip_len * c.clip_dim * 2)
            file.write(b"\xc0\x7f" * 8)  # NaN in bfloat16
    return path


@pytest.fixture
def settings(tmp_path):
    def make(store: Path | str, **changes) -> TrainConfig:
        config = TrainConfig(
            exp_id="run",
            output=str(tmp_path / "output"),
            variant="tiny_16k",
            data=DataConfig(train=[DataEntry(store=str(store))]),
            steps=1,
            batch_size=2,
            num_workers=0,
            log_every=1,
            precision="bf16",
            optimizer=OptimizerConfig(warmup=0),
            ema=EMAConfig(snapshot_every=0),
        )
        return dataclasses.replace(config, **changes)

    return make


def test_the_result_is_loaded_by_path_and_by_name(settings, tmp_path, capsys):
    assert run(settings(make_store(tmp_path / "store"))) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "output/run/weights" / RESULT
    pipe = mmaudio.load(path, device="cpu")
    assert pipe(prompt="a bell", duration=1, num_steps=1)[0].audio.isfinite().all()
    by_name = mmaudio.load("tiny_16k", device="cpu", weights_dir=path.parent).part("network")
    trained = load_file(path)
    assert all(torch.equal(x, trained[name]) for name, x in by_name.state_dict().items())
    assert trained["latent_mean"].abs().max() > 0
    assert trained["empty_string_feat"].abs().max() > 0


def test_fine_tuning_keeps_the_constants_of_its_start(settings, tmp_path):
    assert run(settings(make_store(tmp_path / "store"), weights="tiny_16k", variant=None)) == 0
    before, after = load_network(TINY_16K).state_dict(), load_file(tmp_path / "output/run/weights" / RESULT)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"latent_mean", "latent_std", "empty_string_feat"} <= same
    assert len(same) < 10


def test_lora_writes_an_adapter_and_merged_weights(settings, tmp_path):
    config = settings(make_store(tmp_path / "store"), weights="tiny_16k", lora=LoRAConfig(rank=2), steps=2)
    assert run(dataclasses.replace(config, optimizer=OptimizerConfig(lr=0.01, warmup=0))) == 0
    folder = tmp_path / "output/run/weights"
    merged, network = load_file(folder / RESULT), load_network(TINY_16K)
    start = {name: x.clone() for name, x in network.state_dict().items()}
    load_adapter(network, folder / "adapter.safetensors")
    for name, x in network.state_dict().items():
        torch.testing.assert_close(x, merged[name])
    changed = {name for name in start if not torch.equal(start[name], merged[name])}
    assert changed
    assert all("_blocks." in name for name in changed)


def test_previews_are_sounds_and_videos(settings, tmp_path):
    from mmaudio.stage import render_clip
    from mmaudio.stage.export import write_mp4

    write_mp4(tmp_path / "clip.mp4", render_clip(3, size=64, duration=1, audio=False))
    preview = PreviewConfig(videos=[str(tmp_path / "clip.mp4")], prompts=["a bell"])
    assert run(settings(make_store(tmp_path / "store"), preview=preview)) == 0
    names = {path.name for path in (tmp_path / "output/run/previews").iterdir()}
    assert names == {"00000001_0.flac", "00000001_0.mp4"}


def test_rows_that_are_not_finite_are_named_and_do_no_harm(settings, tmp_path, capsys):
    store, task = make_store(tmp_path / "store", bad_row=4), {"name": "flow", "drop": 0.0}  # dropped, it does no harm
    assert run(settings(store, steps=3, task=task)) == 0  # one epoch: every row once
    assert "not finite in the data: r4" in capsys.readouterr().err
    assert all(x.isfinite().all() for x in load_file(tmp_path / "output/run/weights" / RESULT).values())


def truncate(store: Path) -> None:
    path = store / "sync.memmap"
    os.truncate(path, path.stat().st_size - 100)


def forget_an_id(store: Path) -> None:
    path = store / "rows.tsv"
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n")


@pytest.mark.parametrize(
    ("damage", "changes", "message"),
    [
        (truncate, {}, r"sync.memmap: has \d+ bytes, expected \d+; truncated"),
        (forget_an_id, {}, "names 5 ids, expected 6"),
        (None, {"variant": "small_16k"}, "clip is 64 x 64 per row .*small_16k needs 64 x 1024"),
        (None, {"variant": "tiny_44k"}, "unknown variant 'tiny_44k'"),
        (
            None,
            {"variant": "small_16k", "weights": "tiny_16k"},
            "weights tiny_16k have hidden_dim 128, variant small_16k has 448",
        ),
        (None, {"weights": "nothing.safetensors"}, "nothing.safetensors"),
        (None, {"task": {"name": "music"}}, "unknown task 'music': expected one of flow, distill, vae"),
        (None, {"task": {"name": "flow", "dorp": 0.1}}, "dorp"),
        (None, {"task": {"name": "flow", "seconds": 9}}, "task.seconds is 9, expected 0.64 to 8 s"),
        (None, {"task": {"name": "vae"}, "lora": LoRAConfig(rank=2)}, "lora is for task flow"),
        (None, {"batch_size": 3, "accumulation": 2}, "batch_size 3 cannot be shared by 1 ranks x 2"),
        (None, {"device": "gpu"}, "unknown device 'gpu'"),
        (None, {"precision": "fp8"}, "precision must be auto, bf16 or fp32"),
        (None, {"strategy": "pipeline"}, "strategy must be one of ddp, fsdp"),
        (None, {"preview": PreviewConfig(videos=["none.mp4"])}, "preview video none.mp4 does not exist"),
        (None, {"data": DataConfig()}, "lists no feature stores"),
        (None, {"data": DataConfig(train=[DataEntry(store="nowhere")])}, "nowhere: no such folder"),
        (None, {"lora": LoRAConfig(rank=2, targets=["nothing"]), "weights": "tiny_16k"}, "fits no linear layer"),
    ],
)
def test_bad_settings_and_stores_are_one_line(settings, tmp_path, capsys, damage, changes, message):
    import re

    store = make_store(tmp_path / "store")
    if damage is not None:
        damage(store)
    assert run(settings(store, **changes)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(message, line), line
    assert not list((tmp_path / "output").rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(settings, capsys):
    assert run(settings("nowhere", device="cuda")) == 2
    assert "error: device cuda cannot be used" in capsys.readouterr().err


def test_another_codec_is_refused(settings, tmp_path, capsys):
    assert run(settings(make_store(tmp_path / "store", codec="0123456789abcdef"))) == 2
    error = capsys.readouterr().err
    assert "extracted with another codec: checksum 0123456789abcdef, expected" in error


def test_hydra_names_an_unknown_key():
    words = ["train.py", "optimizer.learning_rate=1"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


def step_and_save(name: str, folder: Path, **changes) -> tuple[MMAudio, Path]:
    """A network after one step, and its weights as a checkpoint of the loop has them."""
    config = dataclasses.replace(SIZES[name], **changes)
    variant = get_variant(name)
    variant = dataclasses.replace(variant, network=config, spec=variant.spec.with_duration(0.7))
    network = MMAudio(config)
    loss = FlowLoss(network, variant, drop=0.5, independent=config.v2)
    spec = variant.spec
    batch = FeatureBatch(
        ids=["a", "b"], captions=[None, None],
        mean=torch.randn(2, spec.latent_len, config.latent_dim), std=torch.rand(2, spec.latent_len, config.latent_dim),
        clip=torch.randn(2, spec.clip_len, 1024), sync=torch.randn(2, spec.sync_len, 768),
        text=torch.randn(2, 77, 1024), video_exist=torch.tensor([True, False]), text_exist=torch.tensor([True, True]),
    )  # fmt: skip
    task = Task(
        name="flow", network=network, loss=loss, train=None, file_name="x.safetensors",
        metadata=network_metadata(variant), export=lambda state: {key: x.bfloat16() for key, x in state.items()},
    )  # fmt: skip
    state = TrainingState(
        task, TrainConfig(batch_size=2, ema=EMAConfig(sigma_rels=[])), Ranks(0, 1, torch.device("cpu"))
    )
    before = network.final_layer.conv.weight.detach().clone()
    assert state.step(0, [batch], Split(2), Stop(), Meter(2))
    assert not torch.equal(before, network.final_layer.conv.weight)
    state.save(1, SimpleNamespace(save=lambda step, state, settings, write_weights: write_weights(folder)))
    return network, folder / task.file_name


def assert_loads_strictly(path: Path, network: MMAudio) -> None:
    loaded, expected = load_network(get_variant(path)).state_dict(), network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(x, expected[key].bfloat16().float()) for key, x in loaded.items())


@pytest.mark.parametrize("name", [name for name in SIZES if name != "tiny_16k"])
def test_every_official_size_takes_a_step(name, kit, tmp_path):
    """At full depth and small width: memory forbids more here."""
    network, path = step_and_save(name, tmp_path, hidden_dim=4 * SIZES[name].num_heads)
    assert load_file(path).keys() == kit.shapes(f"manifests/mmaudio_{name}.json").keys()
    assert_loads_strictly(path, network)


@pytest.mark.parametrize("name", ["small_16k", "medium_44k", "large_44k_v2"])  # the others are as wide as these
def test_every_official_width_takes_a_step(name, kit, tmp_path):
    """With the last block of each kind alone."""
    network, path = step_and_save(name, tmp_path, joint_blocks=1, fused_blocks=1)
    official, size = kit.shapes(f"manifests/mmaudio_{name}.json"), SIZES[name]
    for key, x in load_file(path).items():
        last = key.replace("joint_blocks.0", f"joint_blocks.{size.joint_blocks - 1}")
        assert official[last.replace("fused_blocks.0", f"fused_blocks.{size.fused_blocks - 1}")] == tuple(x.shape)
    assert_loads_strictly(path, network)
    path.unlink()  # pytest keeps what tests leave, here 370 MB

"""configs/experiment, and the script that compares them."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from scripts_loading import load_script

from mmaudio.data.store import StoreRow, write_store
from mmaudio.training.command import run
from mmaudio.training.config import TrainConfig
from mmaudio.training.tasks.flow import Options, changed
from mmaudio.variants import TINY_16K, get_variant

ROOT = Path(__file__).parents[2]
CHANGES = {
    "full": {},
    "no_sync": {"sync_use": "none"},
    "sum_sync": {"sync_use": "sum"},
    "stretched_sync": {"sync_in_time": False},
    "default_rope": {"aligned_rope": False},
    "no_audio_text": {},
    "zeros": {"missing": "zeros"},
    "learned": {"missing": "learned"},
    "mlp": {"conv_mlp": False},
}


def composed(words: list[str]) -> TrainConfig:
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_object(compose("train", words))


@pytest.fixture
def script():
    return load_script("run_ablations")


@pytest.mark.parametrize("name", CHANGES)
def test_each_changes_what_it_says(name):
    config = composed([f"+experiment={name}", "variant=tiny_16k"])
    assert config == dataclasses.replace(composed(["variant=tiny_16k"]), task=config.task)
    assert config.task == {"name": "flow"} | dataclasses.asdict(Options(network=CHANGES[name]))
    network = changed(TINY_16K.network, config.task["network"])
    assert network == dataclasses.replace(TINY_16K.network, **CHANGES[name])


def test_all_are_run_and_only_the_paper_s_mixture_has_audio_text_data(script):
    assert {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")} == set(script.EXPERIMENTS)
    assert list(script.EXPERIMENTS) == list(CHANGES)
    stores = [entry.store for entry in composed(["+experiment=no_audio_text"]).data.train]
    assert stores == ["data/vggsound-train"]
    assert len(composed(["+experiment=full", "data=paper"]).data.train) > 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"wings": 2}, "task.network: .*wings"), ({"sync_use": "most"}, "expected one of modulate, sum, none")],
)
def test_senseless_changes(changes, says):
    with pytest.raises(ValueError, match=says):
        changed(TINY_16K.network, changes)


def make_store(path: Path, video: bool) -> Path:
    spec, c, g = TINY_16K.spec, TINY_16K.network, torch.Generator().manual_seed(2)

    def noise(*shape):
        return torch.randn(*shape, generator=g)

    def row(i: int) -> StoreRow:
        mean = noise(spec.latent_len, c.latent_dim)
        seen = (noise(spec.clip_len, c.clip_dim), noise(spec.sync_len, c.sync_dim)) if video else (None, None)
        return StoreRow(f"r{i}", "a bell", mean, torch.full_like(mean, 0.1), *seen)

    texts = [(text, noise(c.text_len, c.text_dim)) for text in ("", "a bell")]
    write_store(path, map(row, range(4)), texts, count=4, variant="tiny_16k", spec=spec, identity={})
    return path


def test_a_miniature(script, tmp_path, monkeypatch, capsys):
    """Training is the real one, of a smaller network; what is judged is a stub, for it takes minutes."""
    seen, heard = (make_store(tmp_path / name, name == "seen") for name in ("seen", "heard"))
    calls = []

    def call(which, words, end):
        calls.append(which)
        if which == "train.py":
            assert run(composed(words)) == 0
            return
        options = dict(word.removeprefix("--").split("=", 1) for word in words)
        network = get_variant(options["variant"]).network
        assert network.hidden_dim == 32
        value = {"modulate": 0.75, "none": 0.25}[network.sync_use]
        rows = {
            row: {name: {"value": value + part} for name in ("F1 50ms", "F1 100ms", "|lag| ms", "material", "kind")}
            | {"FD": {"value": None}}
            for part, row in enumerate(options["rows"].split(","))
        }
        Path(options["json"]).write_text(json.dumps({"rows": rows}))

    monkeypatch.setattr(script, "call", call)
    small = [f"+task.network.{x}" for x in ("hidden_dim=32", "num_heads=1", "joint_blocks=1", "fused_blocks=1")]
    words = [f"--stores={seen},{heard}", f"--work={tmp_path / 'work'}", "--steps=2", "--batch=2", *small]
    assert script.main([*words, "--experiments=no_sync,full"]) == 0
    assert calls == ["train.py", "scripts/evaluate_stage.py"] * 2
    table = (tmp_path / "work" / "ablations.md").read_text()
    assert table in capsys.readouterr().out
    assert [line for line in table.splitlines() if line.startswith("| ")][1:] == [
        "| the variant's own network | 1 | 0.750 | 0.750 | 0.750 | 0.750 | 0.750 | - | 1.750 | 2.750 |",
        "| no synchronisation module | 1 | 0.250 | 0.250 | 0.250 | 0.250 | 0.250 | - | 1.250 | 2.250 |",
    ]
    assert script.main([*words, "--experiments=full,no_sync"]) == 0
    assert len(calls) == 4, "what is done is not done again"


def test_data_without_sound_alone(script, tmp_path):
    seen, heard = (str(make_store(tmp_path / name, name == "seen")) for name in ("seen", "heard"))
    assert script.stores_for("no_audio_text", [seen, heard]) == [seen]
    assert script.stores_for("full", [seen, heard]) == [seen, heard]
    with pytest.raises(ValueError, match="one of sound alone"):
        script.stores_for("no_audio_text", [seen])


def test_spread_over_seeds(script):
    assert script.cell([0.5, 0.7]) == "0.600 ± 0.141"
    assert script.cell([None]) == "-"


def test_time_and_failures(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "slow.py").write_text("import time; time.sleep(120)")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    began = time.monotonic()
    with pytest.raises(script.Stopped):
        script.call("slow.py", [], began + 0.2)
    assert time.monotonic() - began < 60
    with pytest.raises(SystemExit) as failure:
        script.call("bad.py", [], float("inf"))
    assert failure.value.code == 3

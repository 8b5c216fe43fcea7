"""configs/task against the options of the tasks that learn from media."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mmaudio.training.config import TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["vae", "vocoder", "clip", "sync"])
def test_every_option_is_written_down_with_its_default(name):
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = [f"task={name}", "data.train=[{manifest: clips.tsv}]", "batch_size=4"]
        config = OmegaConf.to_object(compose("train", overrides))
    options = importlib.import_module(f"mmaudio.training.tasks.{name}").Options()
    assert config.task == {"name": name} | dataclasses.asdict(options)
    assert [entry.manifest for entry in config.data.train] == ["clips.tsv"]
    assert config.data.validation == []
    assert config.batch_size == 4  # what the command line says wins

"""configs/data against the schema of train.py."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from storefiles import write

from mmaudio.data.mixture import Mixture
from mmaudio.training.config import DataEntry, TrainConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def composed(*overrides):
    ConfigStore.instance().store("train_schema", TrainConfig)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_object(compose("train", list(overrides))).data


@pytest.mark.parametrize("name", ["vggsound", "paper", "my_clips"])
def test_every_file_fills_the_schema(name):
    data = composed(f"data={name}", "data.root=features/44k")
    assert data.train
    for item in [*data.train, *data.validation]:
        assert isinstance(item, DataEntry)
        assert item.store.startswith("features/44k/")
        assert item.manifest is None


def test_the_papers_mixture():
    data = composed("data=paper")
    assert [(item.store, item.weight) for item in data.train] == [
        ("data/vggsound-train", 5),
        ("data/audiocaps", 1),
        ("data/audioset-sl", 1),
        ("data/bbc", 1),
        ("data/freesound", 1),
        ("data/clotho", 1),
    ]
    assert [item.store for item in data.validation] == ["data/vggsound-val"]


def test_its_oversampling_can_be_changed():
    """As the comment in the file says."""
    assert composed("data=paper", "data.train.0.weight=3").train[0].weight == 3


def test_a_mixture_of_ones_own(tmp_path):
    write(tmp_path / "mine")
    data = composed(
        "data=my_clips", f"data.root={tmp_path}", f"data.train=[{{store: {tmp_path / 'mine'}, text: false}}]"
    )
    assert len(Mixture(data.train)) == 5
    assert not Mixture(data.train).members[0].text


def test_a_misspelt_key_fails_by_name():
    with pytest.raises(ConfigCompositionException, match="wieght"):
        composed("data=vggsound", "data.train=[{store: x, wieght: 2}]")

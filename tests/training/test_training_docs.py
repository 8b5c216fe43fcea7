"""docs/training.md: its settings exist, and its script makes manifests."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from scripts_loading import load_script

from mmaudio.data.manifest import read_manifest
from mmaudio.training.config import TrainConfig
from mmaudio.variants import VARIANTS

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "docs" / "training.md", ROOT / "README.md"]


def fences(language: str, path: Path = DOCS[0]) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(script: str) -> list[list[str]]:
    """The words after `script` of every command line that has it, also of one inside `bash -c '...'`."""
    found = []
    for fence in (fence for path in DOCS for fence in fences("bash", path)):
        for line in fence.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = next((shlex.split(word) for word in words if f" {script} " in word), words)
            if script in words:
                found.append(words[words.index(script) + 1 :])
    return found


@pytest.mark.parametrize("words", commands("train.py"), ids=" ".join)
def test_training_commands(words):
    ConfigStore.instance().store("train_schema", TrainConfig)
    overrides = [word for word in words if word != "..."]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = OmegaConf.to_object(compose("train", overrides))
    assert config.data.train
    assert config.variant in (None, *VARIANTS)


def test_extraction_commands():
    script = load_script("extract_features")
    found = commands("scripts/extract_features.py")
    assert len(found) > 5
    for words in found:
        config = script.extract_config([word for word in words if word not in ("--engine", "ray")])
        assert config.variant in VARIANTS
        config.check()


def test_there_is_a_command_for_every_size():
    trained = {
        word.partition("=")[2] for words in commands("train.py") for word in words if word.startswith("variant=")
    }
    assert trained == set(VARIANTS)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_manifest_script(tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw"
    vgg = [
        'tested_____,1,"people, marching",test',
        'kept_______,100,"playing\npiano",train',
        "gone_______,3,rain,train",
    ]
    write(raw / "vggsound.csv", "\n".join([*vgg, *(f"held_{i:04d}__,20,dog,train" for i in range(2000))]) + "\n")
    for name in ("tested______000001", "kept________000100", *(f"held_{i:04d}___000020" for i in range(2000))):
        write(raw / "vggsound" / f"{name}.mp4", "")
    for split in ("train", "val", "test"):
        header = "audiocap_id,youtube_id,start_time,caption\n"
        write(raw / "audiocaps" / f"{split}.csv", f'{header}97,yt_{split},30,"A man ""speaks"", then"\n')
        write(raw / "audiocaps" / f"yt_{split}.flac", "")
    clips = {
        ("as_final", "AudioSet_SL"): ["Ytested_____.wav", "Yyt_val.wav", "Ynew.wav"],
        ("bbc_final", "BBC_Sound_Effects"): ["NHU1"],
        ("fsd_final", "FreeSound"): ["18"],
    }
    for (listing, folder), ids in clips.items():
        data = [{"id": name, "caption": "a\tbird"} for name in ids]
        write(raw / "wavcaps" / f"{listing}.json", json.dumps({"data": data}))
        for name in ids:
            write(raw / "wavcaps" / folder / f"{name.removesuffix('.wav')}.flac", "")
    write(raw / "clotho_captions_development.csv", 'file_name,caption_1,caption_2\n"Radio, AM.wav",first,second\n')
    write(raw / "clotho" / "Radio, AM.wav", "")

    monkeypatch.chdir(tmp_path)
    [script] = fences("python")
    exec(compile(script, "docs/training.md", "exec"), {})

    rows = {path.stem: read_manifest(path) for path in tmp_path.glob("*.tsv")}
    assert all(row.path.exists() for some in rows.values() for row in some)
    assert len(rows["vggsound-val"]) == 2000
    assert [row.id for row in rows["vggsound-test"]] == ["tested______000001"]
    assert len(rows["vggsound-train"]) == 1, "the file that is not there is left out"
    assert {row.caption for row in rows["vggsound-train"] + rows["vggsound-val"]} <= {"dog", "playing piano"}
    assert [row.caption for row in rows["audiocaps"]] == ['A man "speaks", then']
    assert [row.id for row in rows["audioset-sl"]] == ["Ynew"], "test clips are left out"
    assert [row.caption for row in rows["bbc"] + rows["freesound"] + rows["clotho"]] == ["a bird", "a bird", "first"]
    assert "vggsound-val.tsv 2000" in capsys.readouterr().out

"""The official table and the order of the search."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fileserver import message

import mmaudio
from mmaudio import weights
from mmaudio.weights import OFFICIAL, WeightError, WeightFile


def test_official_table():
    assert set(OFFICIAL) == {
        "mmaudio_small_16k.pth", "mmaudio_small_44k.pth", "mmaudio_medium_44k.pth", "mmaudio_large_44k.pth",
        "mmaudio_large_44k_v2.pth", "v1-16.pth", "v1-44.pth", "best_netG.pt", "synchformer_state_dict.pth",
        "empty_string.pth", "bigvgan_v2_44khz_128band_512x.pt", "DFN5B-CLIP-ViT-H-14-384.bin",
    }  # fmt: skip
    for name, file in OFFICIAL.items():
        assert file.name == name
        assert file.url.startswith("https://")
        assert file.licence
        assert file.md5 is None or re.fullmatch(r"[0-9a-f]{32}", file.md5)
    assert OFFICIAL["mmaudio_small_16k.pth"].approx_bytes == 601 * 1024**2
    assert OFFICIAL["mmaudio_large_44k.pth"].approx_bytes == int(3.9 * 1024**3)


def test_import_needs_no_torch():
    code = "import sys, mmaudio.weights; assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bundled_files_lie_in_the_package():
    assert Path(mmaudio.__file__).parent / "bundled" == weights.BUNDLED_DIR


def test_search_order(tmp_path, monkeypatch):
    file = WeightFile("v1-44.pth", None, aliases=("other/name.pth",), hub_repos=("a/b",), hub_file="ext/v1-44.pth")
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "env"))
    snapshot = tmp_path / "hub/models--a--b/snapshots/abc"
    refs = tmp_path / "hub/models--a--b/refs/main"
    refs.parent.mkdir(parents=True)
    refs.write_text("abc")
    worst_to_best = [
        snapshot / "ext/v1-44.pth",
        weights.cache_dir() / "v1-44.pth",
        tmp_path / "env/other/name.pth",
        tmp_path / "env/v1-44.pth",
        tmp_path / "bundled/v1-44.pth",
        tmp_path / "given/ext_weights/v1-44.pth",
        tmp_path / "given/weights/v1-44.pth",
        tmp_path / "given/v1-44.pth",
        tmp_path / "given/v1-44.safetensors",
    ]
    assert weights.find(file, tmp_path / "given") is None
    for path in worst_to_best:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        assert weights.find(file, tmp_path / "given") == path
    assert weights.find(file) == tmp_path / "bundled/v1-44.pth"
    assert weights.fetch(file) == tmp_path / "bundled/v1-44.pth"


def test_default_folders(tmp_path, monkeypatch):
    assert weights.cache_dir() == tmp_path / "xdg/mmaudio"
    assert weights.download_dir() == tmp_path / "xdg/mmaudio"
    monkeypatch.setenv("MMAUDIO_WEIGHTS", str(tmp_path / "env"))
    assert weights.download_dir() == tmp_path / "env"
    assert weights.download_dir(tmp_path) == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.cache_dir() == Path.home() / ".cache/mmaudio"


def test_fetch_without_download_names_url_size_folder(tmp_path):
    file = OFFICIAL["v1-44.pth"]
    with pytest.raises(WeightError) as error:
        weights.fetch(file, tmp_path, download=False)
    text = message(error)
    assert file.url in text
    assert "1.2G" in text
    assert str(tmp_path / "v1-44.pth") in text
    with pytest.raises(WeightError, match="reinstall"):
        weights.fetch(WeightFile("tiny.safetensors", None))
    with pytest.raises(WeightError, match="reinstall"):
        weights.download(WeightFile("tiny.safetensors", None))

"""`mmaudio store info` and `mmaudio store verify`."""

import pytest
from storefiles import IDENTITY, make_rows, poke, write

from mmaudio.cli import main


def test_info(tmp_path, capsys):
    write(tmp_path / "s")
    assert main(["store", "info", str(tmp_path / "s")]) == 0
    out = capsys.readouterr().out
    assert "5 rows with video, 3 texts" in out
    assert "extracted for: toy" in out
    assert "5 x 32 x 3 float16" in out
    assert f"vae: {IDENTITY['vae']}" in out


def test_info_about_the_reference_layout(kit, capsys):
    assert main(["store", "info", str(kit.root / "fixtures/memmap/audio-toy")]) == 0
    out = capsys.readouterr().out
    assert "3 rows of sound alone, 3 texts" in out
    assert "bytes per row: 288\n" in out  # (5 x 3 twice, and 7 x 6) x 4


def test_verify(tmp_path, capsys):
    write(tmp_path / "s", make_rows(6))
    assert main(["store", "verify", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 's'}: sound\n"
    poke(tmp_path / "s", "clip", 2, float("nan"))
    poke(tmp_path / "s", "std", 5, -1.0)
    assert main(["store", "verify", str(tmp_path / "s")]) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert shown.out == ""
    assert len(lines) == 2
    assert "std: 1 of 6 are zero or negative somewhere: 'clip_5'" in lines[0]
    assert "clip: 1 of 6 hold NaN or infinite values: 'clip_2'" in lines[1]


@pytest.mark.parametrize(("verb", "code"), [("verify", 1), ("info", 2)])
def test_no_store(tmp_path, capsys, verb, code):
    assert main(["store", verb, str(tmp_path)]) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {tmp_path}: is no feature store (neither store.json nor meta.json in it); check the path"
    )


def test_a_verb_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["store"])
    assert "info or verify" in capsys.readouterr().err

"""What shells are told of the command, tried in bash."""

import shutil
import subprocess

import pytest

pytest.importorskip("shtab")

from mmaudio.cli import main

TYPE = """
. ./completion
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_mmaudio mmaudio "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    (tmp_path / "clip one.mp4").touch()
    for words, wanted in (
        ("se", "serve"),
        ("serve --po", "--port"),
        ("generate --num_st", "--num_steps"),
        ("store ver", "verify"),
        ("generate --video cli", "clip one.mp4"),
        ("convert cli", "clip one.mp4"),
        ("study serve --meth", "--methods"),
    ):
        command = ["bash", "-c", TYPE, "bash", "mmaudio", *words.split()]
        got = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert got.stdout.strip() == wanted, words


def test_zsh_is_told_the_same(capsys):
    assert main(["completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef mmaudio")
    assert "--num_steps" in text

import pytest
from scripted import ScriptedPipeline

from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4


@pytest.fixture
def pipe():
    return ScriptedPipeline()


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A silent film of 1 s."""
    path = tmp_path_factory.mktemp("clips") / "ball.mp4"
    write_mp4(path, render_clip(2_000_000, size=64, duration=1, audio=False))
    return path

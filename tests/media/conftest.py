import pytest
from mediafiles import cfr, write_video


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def clip(folder):
    """Two seconds at 24 fps, H.264 with B-frames, with sound."""
    return write_video(folder / "clip.mp4", cfr(48, 24), sound=True, options={"bf": "2"}, metadata={"title": "bars"})

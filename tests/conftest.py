import contextlib
import functools
import os
import resource
import signal
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

REFERENCE = Path(__file__).parent / "data" / "reference"
sys.path.insert(0, str(REFERENCE))


def pytest_configure(config):
    """One thread: at our sizes a second one only waits, and some tests compare bit by bit with other processes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start
    torch.set_num_threads(1)


# Begun first, or in the end one process would wait for the other.
LONG = ("test_end_to_end.py", "test_extraction.py", "test_train_tiny.py", "test_ranks.py", "test_command.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and not os.environ.get("MMAUDIO_SLOW"):
            item.add_marker(pytest.mark.skip(reason="slow: set MMAUDIO_SLOW=1"))


@pytest.fixture(scope="session")
def kit():
    """The golden cases: filled weights, inputs and stored outputs."""
    from load import Kit

    return Kit(REFERENCE)


@pytest.fixture(scope="session")
def full_disk():
    """`with full_disk(size)`: every file of this process stops at `size` bytes. Only around the write itself."""

    @contextlib.contextmanager
    def limit(size: int):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)

    return limit


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, and the address at which its files can be fetched."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()

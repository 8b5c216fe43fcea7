import http.server
import importlib
import threading

import pytest
from fileserver import BODY, Handler

from mmaudio.weights import files


@pytest.fixture(scope="session")
def download_module():
    """To patch names in it: as an attribute of the package, `download` is the function."""
    return importlib.import_module("mmaudio.weights.download")


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.body, httpd.modes, httpd.requests = BODY, [], []
    httpd.base = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(autouse=True)
def _own_world(monkeypatch, tmp_path, download_module):
    """No proxy, no real cache, no waiting."""
    for name in ("MMAUDIO_WEIGHTS", "MMAUDIO_MIRROR", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(files, "BUNDLED_DIR", tmp_path / "bundled")
    monkeypatch.setattr(download_module, "RETRY_PAUSE", 0.001)

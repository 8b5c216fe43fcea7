"""Downloads against a real local HTTP server, with every way in which one can fail."""

import errno
import hashlib
import os
import shutil
import socket
import threading
import urllib.error

import pytest
from fileserver import BODY, NAME, message, remote

from mmaudio import weights
from mmaudio.weights import OFFICIAL, WeightError, WeightFile


def test_download_complete(server, tmp_path):
    path = weights.fetch(remote(server), tmp_path / "new", download=True)
    assert path == tmp_path / "new" / NAME
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == [NAME]
    assert weights.fetch(remote(server), tmp_path / "new") == path
    assert weights.download(remote(server), tmp_path / "new") == path
    assert len(server.requests) == 1
    path.write_bytes(b"other")
    with pytest.raises(WeightError, match="wrong checksum"):
        weights.download(remote(server), tmp_path / "new")
    assert weights.download(remote(server)) == weights.cache_dir() / NAME


@pytest.mark.parametrize("md5", [True, False])
def test_resume_after_interruption(server, tmp_path, md5):
    """The first call dies half-way (-1: not even one retry), the second one asks for the other half only."""
    file = remote(server) if md5 else remote(server, md5=None)
    server.modes = ["drop"]
    with pytest.raises(WeightError, match="same command again") as error:
        weights.download(file, tmp_path, retries=-1)
    assert "resume" in message(error)
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[: len(BODY) // 2]
    assert weights.download(file, tmp_path).read_bytes() == BODY
    etag = f'"{hashlib.md5(BODY).hexdigest()}"'
    assert server.requests[1:] == [(f"/files/{NAME}", f"bytes={len(BODY) // 2}-", etag)]
    assert sorted(p.name for p in tmp_path.glob("net*")) == [NAME]


def test_drops_are_retried_within_one_call(server, tmp_path):
    server.modes = ["drop", "503", "drop", "drop"]
    assert weights.download(remote(server), tmp_path, retries=1).read_bytes() == BODY
    offsets = [int(wanted[6:-1]) if wanted else 0 for _, wanted, _ in server.requests]
    assert offsets == sorted(offsets)
    assert len(offsets) == 5


def test_gives_up_and_keeps_the_part(server, tmp_path):
    server.modes = ["drop"] + ["503"] * 9
    with pytest.raises(WeightError, match="3 times in a row") as error:
        weights.download(remote(server), tmp_path, retries=2)
    assert f"{len(BODY) // 2} bytes are kept" in message(error)
    assert not (tmp_path / NAME).exists()


def test_server_that_ignores_range_starts_over(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:1000])
    server.modes = ["no range"]
    assert weights.download(remote(server), tmp_path).read_bytes() == BODY
    assert server.requests[0][1] == "bytes=1000-"


def test_server_that_answers_another_range_starts_over(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:1000])
    server.modes = ["wrong range"]
    assert weights.download(remote(server), tmp_path).read_bytes() == BODY


def test_changed_file_is_not_mixed(server, tmp_path):
    """Without a checksum the ETag alone decides whether two halves belong together."""
    server.modes = ["drop"]
    with pytest.raises(WeightError):
        weights.download(remote(server, md5=None), tmp_path, retries=-1)
    server.body = BODY[::-1]
    assert weights.download(remote(server, md5=None), tmp_path).read_bytes() == BODY[::-1]


def test_no_checksum_and_no_etag_starts_over(server, tmp_path):
    server.modes = ["no etag"]
    assert weights.download(remote(server, md5=None), tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted, _ in server.requests] == [None, None]


def test_part_that_is_already_whole(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    assert weights.download(remote(server), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 1


def test_part_that_is_too_long(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY + b"more")
    assert weights.download(remote(server), tmp_path).read_bytes() == BODY


def test_wrong_checksum(server, tmp_path):
    file = remote(server, body=b"something else")
    with pytest.raises(WeightError, match="MD5 got") as error:
        weights.download(file, tmp_path)
    assert file.md5 in message(error)
    assert hashlib.md5(BODY).hexdigest() in message(error)
    assert not list(tmp_path.glob("net*"))


def test_404(server, tmp_path):
    server.modes = ["404"]
    with pytest.raises(WeightError, match="answered 404") as error:
        weights.download(remote(server), tmp_path)
    assert str(tmp_path / NAME) in message(error)
    assert len(server.requests) == 1


def test_web_page_instead_of_file(server, tmp_path):
    server.modes = ["html"]
    with pytest.raises(WeightError, match="web page"):
        weights.download(remote(server), tmp_path)


def test_implausible_size(server, tmp_path):
    with pytest.raises(WeightError, match="expected about 601M"):
        weights.download(remote(server, size="601M"), tmp_path)
    assert not list(tmp_path.glob("net*"))
    assert weights.download(remote(server, size="1000K"), tmp_path).exists()


def test_slow_server_times_out(server, tmp_path):
    server.modes = ["slow"]
    assert weights.download(remote(server), tmp_path, timeout=0.2).read_bytes() == BODY
    assert len(server.requests) == 2


def test_refused_connection_is_one_clear_error(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        with pytest.raises(WeightError, match="cannot reach") as error:
            weights.fetch(WeightFile(NAME, url, size="601M"), tmp_path)
    text = message(error)
    assert url in text
    assert "601M" in text
    assert str(tmp_path / NAME) in text


def test_connection_lost_later_is_retried(server, tmp_path, monkeypatch, download_module):
    """Only a connection that never existed ends at once; one that breaks half-way is tried again."""
    server.modes = ["drop"]
    receive, calls = download_module._receive, []

    def flaky(*args):
        calls.append(1)
        if len(calls) == 2:
            raise urllib.error.URLError(OSError("network is down"))
        return receive(*args)

    monkeypatch.setattr(download_module, "_receive", flaky)
    assert weights.download(remote(server), tmp_path).read_bytes() == BODY


def test_mirror(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MMAUDIO_MIRROR", f"{server.base}/mirror/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # is about the hub, not about the mirror
    file = remote(server, url="https://huggingface.co/a/b/resolve/main/x.pth")
    assert weights.fetch(file, tmp_path).read_bytes() == BODY
    assert server.requests[0][0] == f"/mirror/{NAME}"
    monkeypatch.setenv("MMAUDIO_MIRROR", "/some/folder")
    with pytest.raises(WeightError, match="MMAUDIO_WEIGHTS"):
        weights.download(file, tmp_path / "b")


def test_hub_endpoint(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    name = "mmaudio_small_16k.pth"
    expected = f"https://hub.example/hkchengrex/MMAudio/resolve/main/weights/{name}"
    assert weights.source_url(OFFICIAL[name]) == expected
    assert weights.source_url(OFFICIAL["v1-16.pth"]).startswith("https://github.com/")


def test_hub_offline(tmp_path, monkeypatch, download_module):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(download_module, "_receive", lambda *args: pytest.fail("tried to connect"))
    file = OFFICIAL["mmaudio_small_16k.pth"]
    with pytest.raises(WeightError, match="HF_HUB_OFFLINE") as error:
        weights.fetch(file, tmp_path)
    assert file.url in message(error)
    assert str(tmp_path) in message(error)


def test_disk_full_before_start(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(WeightError, match="MiB free") as error:
        weights.download(remote(server), tmp_path)
    assert str(tmp_path) in message(error)
    assert not list(tmp_path.glob("net*"))


def test_disk_full_in_the_middle(server, tmp_path, monkeypatch, download_module):
    real_open = open

    def full(path, mode="r", *args, **kwargs):
        opened = real_open(path, mode, *args, **kwargs)
        if mode == "ab":
            write = opened.write
            opened = _Full(opened, write)
        return opened

    class _Full:
        def __init__(self, opened, write):
            self.opened, self.write_bytes, self.room = opened, write, 2

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.opened.close()

        def write(self, data):
            self.room -= 1
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.write_bytes(data)

    monkeypatch.setattr(download_module, "open", full, raising=False)
    with pytest.raises(WeightError, match="No space left") as error:
        weights.download(remote(server, size="1000K"), tmp_path)
    assert "1000K" in message(error)
    assert str(tmp_path) in message(error)
    assert not (tmp_path / NAME).exists()
    monkeypatch.undo()
    assert (tmp_path / f"{NAME}.part").stat().st_size == 2 * weights.CHUNK


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightError, match="another folder"):
        weights.download(remote(server), tmp_path / "file")


def test_concurrent_downloads_share_one_transfer(server, tmp_path):
    server.modes = ["slow"]
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(weights.download(remote(server), tmp_path, progress=False)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tmp_path / NAME] * 3
    assert results[0].read_bytes() == BODY
    assert len(server.requests) == 1

"""Weight files: search order, downloads against a real local HTTP server, reading of good and bad files, loading."""

import errno
import hashlib
import http.server
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile

import pytest
import torch
from safetensors import SafetensorError

from mmaudio import weights
from mmaudio.weights import OFFICIAL, WeightError, WeightFile

BODY = bytes(range(256)) * 4000  # about 1 MB: several chunks
NAME = "net.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.body` with ETag and Range; `server.modes` holds one misbehaviour per request, in order."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted, self.headers.get("If-Range")))
        mode = server.modes.pop(0) if server.modes else ""
        if mode in {"404", "503"}:
            return self.send_error(int(mode))
        body, start = server.body, 0
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        same = self.headers.get("If-Range", etag) == etag
        if wanted and same and mode != "no range":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
            self.send_response(206)
            sent_start = 0 if mode == "wrong range" else start
            self.send_header("Content-Range", f"bytes {sent_start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if mode != "no etag":
            self.send_header("ETag", etag)
        self.send_header("Content-Type", "text/html" if mode == "html" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if mode == "slow":
            time.sleep(0.5)
        self.wfile.write(rest[: len(rest) // 2] if mode in {"drop", "no etag"} else rest)


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
def _own_world(monkeypatch, tmp_path):
    """No proxy, no real cache, no waiting."""
    for name in ("MMAUDIO_WEIGHTS", "MMAUDIO_MIRROR", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "BUNDLED_DIR", tmp_path / "bundled")
    monkeypatch.setattr(weights, "RETRY_PAUSE", 0.001)


def remote(server, body=BODY, **changes):
    usual = {"name": NAME, "url": f"{server.base}/files/{NAME}", "md5": hashlib.md5(body).hexdigest()}
    return WeightFile(**usual | changes)


def message(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- table and search


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
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('weights', sys.argv[1]); "
        "sys.modules['weights'] = module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, weights.__file__], check=True)


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
    assert weights.cache_dir() == weights.Path.home() / ".cache/mmaudio"


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


# ---- download


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


def test_connection_lost_later_is_retried(server, tmp_path, monkeypatch):
    """Only a connection that never existed ends at once; one that breaks half-way is tried again."""
    server.modes = ["drop"]
    receive, calls = weights._receive, []

    def flaky(*args):
        calls.append(1)
        if len(calls) == 2:
            raise weights.urllib.error.URLError(OSError("network is down"))
        return receive(*args)

    monkeypatch.setattr(weights, "_receive", flaky)
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


def test_hub_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights, "_receive", lambda *args: pytest.fail("tried to connect"))
    file = OFFICIAL["mmaudio_small_16k.pth"]
    with pytest.raises(WeightError, match="HF_HUB_OFFLINE") as error:
        weights.fetch(file, tmp_path)
    assert file.url in message(error)
    assert str(tmp_path) in message(error)


def test_disk_full_before_start(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(WeightError, match="MiB free") as error:
        weights.download(remote(server), tmp_path)
    assert str(tmp_path) in message(error)
    assert not list(tmp_path.glob("net*"))


def test_disk_full_in_the_middle(server, tmp_path, monkeypatch):
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

    monkeypatch.setattr(weights, "open", full, raising=False)
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


# ---- reading

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(3)}


def same(got, expected):
    assert got.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=0, atol=0)
        assert got[key].dtype == expected[key].dtype


class Evil:
    """Unpickling this would create the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("container", [None, "generator", "state_dict", "weights"])
@pytest.mark.parametrize("zipped", [True, False])
def test_read_torch_files(tmp_path, container, zipped):
    path = tmp_path / "x.pth"
    torch.save({container: STATE} if container else STATE, path, _use_new_zipfile_serialization=zipped)
    same(weights.read_state(path), STATE)


def test_read_training_checkpoint(tmp_path):
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4]),
    ]
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, schedulers, [2])
    whole = {"it": 7, "weights": net.state_dict(), "optimizer": optimizer.state_dict(), "ema": None}
    torch.save(whole | {"scheduler": scheduler.state_dict()}, tmp_path / "ckpt.pth")
    same(weights.read_state(tmp_path / "ckpt.pth"), dict(net.state_dict()))


def test_read_bare_tensor(tmp_path):
    torch.save(torch.ones(1, 77, 4), tmp_path / "empty_string.pth")
    same(weights.read_state(tmp_path / "empty_string.pth"), {weights.BARE_TENSOR: torch.ones(1, 77, 4)})


def test_content_decides_not_the_suffix(tmp_path):
    weights.save_safetensors(tmp_path / "x.pth", STATE)
    same(weights.read_state(tmp_path / "x.pth"), STATE)


def bad_files(tmp_path):
    torch.save(STATE, tmp_path / "good.pth")
    weights.save_safetensors(tmp_path / "good.safetensors", STATE)
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    good, flat, old = ((tmp_path / n).read_bytes() for n in ("good.pth", "good.safetensors", "old.pth"))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save({"a": torch.ones(1), "lr": 0.1}, tmp_path / "values.pth")
    torch.save({"state_dict": {}}, tmp_path / "none.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    contents = {
        "empty": (b"", "0 bytes"),
        "text": (b"hello world, this is no weight file", "text"),
        "page": (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        "binary": (b"\x00\x01" * 50, "not a weight file"),
        "short zip": (good[: len(good) // 2], "truncated"),
        "short safetensors": (flat[:-4], "truncated"),
        "shorter safetensors": (flat[:20], "truncated"),
        "short old": (old[:-8], "truncated"),
        "shorter old": (old[: len(old) // 2], "truncated"),
        "pickle": (pickle.dumps({"a": 1}), "truncated"),
        "photos": ((tmp_path / "photos.zip").read_bytes(), "damaged"),
        "values": ((tmp_path / "values.pth").read_bytes(), "lr: float"),
        "none": ((tmp_path / "none.pth").read_bytes(), "non-empty"),
        "list": ((tmp_path / "list.pth").read_bytes(), "got list"),
    }
    for kind, (content, expected) in contents.items():
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(content)
        yield path, expected


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bad_files_are_one_clear_line(tmp_path):
    for path, expected in bad_files(tmp_path):
        with pytest.raises(WeightError, match=expected) as error:
            weights.read_state(path)
        assert str(path) in message(error)
    with pytest.raises(WeightError, match="No such file"):
        weights.read_state(tmp_path / "nothing.pth")
    with pytest.raises(WeightError, match="cannot read"):
        weights.read_state(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "old", "plain pickle", "inside"])
def test_malicious_pickle_is_never_executed(tmp_path, how):
    trap, path = tmp_path / "executed", tmp_path / "evil.pth"
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Evil(trap)))
    else:
        content = STATE | {"x": Evil(trap)} if how == "inside" else Evil(trap)
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    with pytest.raises(WeightError, match=r"evil\.pth") as error:
        weights.read_state(path)
    assert "weights_only" not in message(error)  # torch's advice to switch the protection off
    if how != "plain pickle":
        assert re.search(r"unsafe, it asks for (posix|nt)\.system", message(error))
    assert not trap.exists()
    with pytest.raises(WeightError):
        weights.convert(path, tmp_path / "out.safetensors")
    assert not trap.exists()
    torch.load(path, weights_only=False) if how != "plain pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap would have worked


# ---- loading


class Net(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.a = torch.nn.Linear(3, width)
        self.frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("n", torch.tensor(0))


NET_STATE = STATE | {"frozen": torch.full((1,), 5.0)}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_load_strict(device, dtype):
    with torch.device(device):
        net = Net()
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in NET_STATE.items()}
    before = {key: tensor.clone() for key, tensor in state.items()}
    weights.load_strict(net, state | {"latent_rot": torch.ones(3)}, source="x.pth", drop=["latent_rot", "clip_rot"])
    same(dict(net.state_dict()), NET_STATE)
    assert net.a.weight.requires_grad
    assert not net.frozen.requires_grad
    same(state, before)


def test_load_strict_dtype_applies_on_meta_only():
    with torch.device("meta"):
        net = Net()
    weights.load_strict(net, NET_STATE, source="x", dtype=torch.bfloat16)
    assert net.a.weight.dtype == torch.bfloat16
    assert net.n.dtype == torch.int64
    weights.load_strict(net := Net().half(), NET_STATE, source="x", dtype=torch.bfloat16)
    assert net.a.weight.dtype == torch.float16


def test_load_strict_takes_mapped_tensors_and_can_train_them(tmp_path):
    """Training must not write through the memory map into the file."""
    weights.save_safetensors(tmp_path / "x.safetensors", NET_STATE)
    torch.save(NET_STATE, tmp_path / "x.pth")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pth"):
        with torch.device("meta"):
            net = Net()
        weights.load_strict(net, weights.read_state(path), source=path)
        with torch.no_grad():
            net.a.weight.add_(1)
        same(weights.read_state(path), NET_STATE)


def test_load_strict_says_what_does_not_fit():
    with pytest.raises(WeightError, match=r"1 keys missing \(frozen\)") as error:
        weights.load_strict(Net(), STATE, source="some/file.pth")
    assert "some/file.pth" in message(error)
    with pytest.raises(WeightError, match=r"5 keys unexpected \(x0, x1, x2, \.\.\. 2 more\)"):
        weights.load_strict(Net(), NET_STATE | {f"x{i}": torch.ones(1) for i in range(5)}, source="x")
    with pytest.raises(WeightError, match=r"a\.weight: got \(2, 3\), expected \(4, 3\).*another size"):
        weights.load_strict(Net(width=4), NET_STATE, source="x")
    with pytest.raises(WeightError, match="another kind of model"):
        weights.load_strict(Net(), {"q": torch.ones(1)}, source="x")
    net = Net()
    with pytest.raises(WeightError):
        weights.load_strict(net, NET_STATE | {"frozen": torch.ones(2)}, source="x")
    assert not torch.equal(net.a.bias, STATE["a.bias"])  # nothing is loaded when something does not fit


def test_load_strict_rename_picks_a_part():
    whole = {f"vfeat.{key}": tensor for key, tensor in NET_STATE.items()} | {"afeat.x": torch.ones(1)}
    net = Net()
    weights.load_strict(
        net, whole, source="x", rename=lambda key: key.removeprefix("vfeat.") if key.startswith("vfeat.") else None
    )
    same(dict(net.state_dict()), NET_STATE)


def test_normalise_weight_norm():
    new = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(2, 3, 3))
    net = torch.nn.ModuleDict({"ups": new})
    state, style = weights.normalise_weight_norm(net.state_dict())
    assert style == "weight_norm"
    assert set(state) == {"ups.bias", "ups.weight_g", "ups.weight_v"}
    assert torch.equal(state["ups.weight_g"], net.state_dict()["ups.parametrizations.weight.original0"])
    again, style = weights.normalise_weight_norm(state)
    assert style == "weight_norm"
    same(again, state)
    old = torch.nn.ModuleDict({"ups": torch.nn.Conv1d(2, 3, 3)})
    assert weights.normalise_weight_norm(old.state_dict())[1] == "folded"


# ---- writing


def test_safetensors_round_trip(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    state = STATE | {"s1": shared, "s2": shared, "view": shared[1:], "turned": shared.t(), "none": torch.empty(0)}
    path = tmp_path / "new" / "x.safetensors"
    weights.save_safetensors(path, state, {"variant": "tiny"})
    same(weights.read_state(path), state)
    assert weights.read_metadata(path) == {"variant": "tiny"}
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    weights.save_safetensors(path, STATE)
    assert weights.read_metadata(path) == {}


def test_convert(tmp_path):
    torch.save({"generator": STATE}, tmp_path / "x.pt")
    assert weights.read_metadata(tmp_path / "x.pt") == {}
    half = tmp_path / "half.safetensors"
    weights.convert(tmp_path / "x.pt", half, {"note": "n"}, config={"width": 2}, dtype=torch.float16)
    assert weights.read_state(half)["a.weight"].dtype == torch.float16
    assert weights.read_state(half)["n"].dtype == torch.int64
    weights.convert(half, tmp_path / "again.safetensors")
    metadata = weights.read_metadata(tmp_path / "again.safetensors")
    assert json.loads(metadata[weights.CONFIG_KEY]) == {"width": 2}
    assert metadata["note"] == "n"
    assert metadata["source"] == "x.pt"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("No space left")])
def test_disk_full_while_saving_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x.safetensors"
    weights.save_safetensors(path, STATE)

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WeightError, match="No space left"):
        weights.save_safetensors(path, NET_STATE)
    monkeypatch.undo()
    assert list(tmp_path.glob(".*.tmp")) == []
    same(weights.read_state(path), STATE)


def test_read_metadata_of_damaged_file(tmp_path):
    weights.save_safetensors(tmp_path / "x.safetensors", STATE)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    with pytest.raises(WeightError, match="damaged"):
        weights.read_metadata(tmp_path / "x.safetensors")

"""The HTTP service on a real server, as programs and as vandals use it."""

import base64
import json
import re
import socket
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi_offline", reason="needs the packages of extra `web`")
import httpx
from scripted import SOON, VARIANT, engine, sound_of

import mmaudio.web.server as serving_at
from mmaudio.cli import main
from mmaudio.loudness import integrated_loudness
from mmaudio.media import probe, read_audio
from mmaudio.model.network import MMAudio
from mmaudio.pipeline import Pipeline
from mmaudio.web import guard, uploads
from mmaudio.web.guard import own_names
from mmaudio.web.jobs import Engine
from mmaudio.web.serve_command import listen
from mmaudio.web.service import create_app

HOME = "/v1/generations"
DOCS = Path(__file__).parents[2] / "docs" / "service.md"


@contextmanager
def serving(made, token=None, hosts=None):
    """A client of a server that runs in this process; `client.stop()` is what a signal does."""
    listening = listen("127.0.0.1", 0)
    server = serving_at.Server(create_app(made, token, hosts), made)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop():
        server.should_exit = True
        thread.join(SOON)
        assert not thread.is_alive()

    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with closing(made), httpx.Client(base_url=address, timeout=SOON) as client:
        client.stop = stop
        try:
            yield client
        finally:
            stop()


@pytest.fixture
def client(pipe, tmp_path):
    with serving(engine(pipe, tmp_path / "out", max_queue=2)) as client:
        yield client


def ask(client, options=None, **files):
    return client.post(HOME, files={"options": (None, json.dumps(options or {})), **files})


def events(client, job):
    text = client.get(job["links"]["events"]).text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_whole_round(client, clip, tmp_path):
    (tmp_path / "evil.mp4").write_text("mine")
    names = ("../../evil.mp4", "<script>alert(1)</script>.mp4", 'a"\r\nX: y.mp4')
    for seed, name in enumerate(names):
        answer = ask(client, {"prompt": "a ball", "seed": seed, "num_samples": 2}, video=(name, clip.read_bytes()))
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert answer.headers["Location"] == job["links"]["self"]
        seen = events(client, job)
        assert [one["progress"] for one in seen] == sorted(one["progress"] for one in seen)
        done = client.get(job["links"]["self"]).json()
        assert seen[-1] == done
        assert (done["state"], done["error"], done["progress"]) == ("done", None, 1)
        assert done["options"]["prompt"] == "a ball"
        assert done["created"] < done["expires"]
        assert [take["seed"] for take in done["takes"]] == [seed, seed + 1]
        for take in done["takes"]:
            sound = client.get(take["files"]["flac"])
            assert sound.headers["Content-Type"] == "audio/flac"
            (tmp_path / "got.flac").write_bytes(sound.content)
            wave, _ = read_audio(tmp_path / "got.flac")
            torch.testing.assert_close(wave, sound_of("a ball", take["seed"]), atol=1e-4, rtol=0)
            part = client.get(take["files"]["mp4"], headers={"Range": "bytes=4-7"})
            assert (part.status_code, part.content) == (206, b"ftyp")
        assert client.get(f"{job['links']['self']}/files/9.wav").status_code == 404
        assert client.get(f"{job['links']['self']}/files/..%2Fjob.json").status_code == 404
        assert client.get(f"{job['links']['self']}/files/job.json").status_code == 422
        assert client.delete(job["links"]["self"]).status_code == 204
        assert client.get(job["links"]["self"]).status_code == 404
    assert (tmp_path / "evil.mp4").read_text() == "mine"
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_a_full_queue_and_cancelling(client, pipe):
    pipe.go.clear()
    first = ask(client, {"prompt": "first", "num_steps": 3}).json()
    assert pipe.begun.wait(SOON)
    waiting = [ask(client, {"prompt": f"{i}"}).json() for i in range(2)]
    full = ask(client, {"prompt": "too much"})
    assert full.status_code == 429
    assert int(full.headers["Retry-After"]) >= 1
    assert client.get(first["links"]["self"]).json()["state"] == "running"
    assert client.delete(waiting[1]["links"]["self"]).status_code == 204
    began = len(pipe.batches)
    assert client.delete(first["links"]["self"]).status_code == 204
    assert events(client, first)[-1]["state"] == "cancelled"  # though its steps would go on
    pipe.go.set()
    assert events(client, waiting[0])[-1]["state"] == "done"
    assert events(client, waiting[1])[-1]["state"] == "cancelled"
    assert len(pipe.batches) == began + 1
    told = client.get("/metrics").text
    assert 'mmaudio_jobs_total{state="cancelled"} 2.0' in told
    assert 'mmaudio_jobs_total{state="done"} 1.0' in told
    assert "mmaudio_jobs_refused_total 1.0" in told
    assert "process_resident_memory_bytes" in told


def form(*parts: bytes, end: bytes = b"--x--\r\n"):
    return b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + end


@pytest.mark.parametrize(
    ("body", "kind", "code", "match"),
    [
        (b"{}", "application/json", 415, "multipart"),
        (b"{}", "multipart/form-data", 415, "multipart"),
        (form(b'name="options"\r\n\r\n{"prompt": "x", "seeed": 3}'), None, 422, "options: seeed"),
        (form(b'name="options"\r\n\r\n{"prompt": "x", "num_steps": "3"}'), None, 422, "options: num_steps"),
        (form(b'name="options"\r\n\r\n{"prompt": "x", "cfg_strength": NaN}'), None, 422, "options: cfg_strength"),
        (form(b'name="options"\r\n\r\n{"prompt": "\\ud800"}'), None, 422, "options: "),
        (form(b'name="options"\r\n\r\n{"prompt": "x", "variant": "/etc/passwd"}'), None, 422, "variant must be one"),
        (form(b'name="options"\r\n\r\n' + b" " * 70_000), None, 413, "65,536 bytes"),
        (form(b'name="options"\r\n\r\n{}'), None, 422, "nothing to do"),
        (form(), None, 422, ""),
        (form(b'name="options"\r\n\r\n{"prompt": "x"}', end=b""), None, 422, "ends early"),
        (form(b'name="audio"; filename="a.wav"\r\n\r\nx'), None, 422, "parts of the form"),
        (form(b'name="video"\r\n\r\nx', b'name="video"\r\n\r\nx'), None, 422, "each once"),
        (form(b'name="video"; filename="a.mp4"\r\n\r\n'), None, 422, "empty"),
        (form(b'name="video"; filename="a.mp4"\r\n\r\n<script>'), None, 422, "the file: "),
        (form(b'name="image"; filename="a.png"\r\n\r\nPK\x03\x04' + bytes(99)), None, 422, "the file: "),
        (
            form(b'name="video"; filename="a.mp4"\r\n\r\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n'),
            None,
            422,
            "the file",
        ),
    ],
)
def test_what_is_refused(client, tmp_path, body, kind, code, match):
    answer = client.post(HOME, content=body, headers={"Content-Type": kind or "multipart/form-data; boundary=x"})
    assert answer.status_code == code, answer.text
    detail = answer.json()["detail"]
    assert match in detail
    assert "\n" not in detail
    assert str(tmp_path) not in detail
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "lock"]


def raw(client, head: str, body: bytes = b""):
    """What comes back until the server hangs up; `body` is sent in pieces until it refuses."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=SOON) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        got = b""
        try:
            for i in range(0, len(body), 2**16):
                connection.sendall(body[i : i + 2**16])
            while piece := connection.recv(2**16):
                got += piece
        except ConnectionError:
            pass  # it does not wait for the rest
        return got.decode()


HEAD = f"POST {HOME} HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=x\n"


def test_sizes_that_lie(client, tmp_path, monkeypatch):
    assert " 413 " in raw(client, HEAD + f"Content-Length: {20 * 10**9}\n\n")
    assert " 4" in raw(client, HEAD + "Content-Length: 99999999999999999999999999\n\n")
    monkeypatch.setattr(uploads, "MAX_UPLOAD", 100_000)
    large = form(b'name="video"\r\n\r\n' + bytes(300_000))
    pieces = [large[i : i + 2**14] for i in range(0, len(large), 2**14)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    answer = raw(client, HEAD + "Transfer-Encoding: chunked\n\n", chunked)
    assert " 202 " not in answer
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(HEAD.replace("\n", "\r\n").encode() + b"Content-Length: 90000\r\n\r\n" + large[:50_000])
        until = time.monotonic() + SOON
        while not list((tmp_path / "out" / "uploads").iterdir()) and time.monotonic() < until:
            time.sleep(0.01)  # it is on the disk at once
        assert [path.stat().st_size for path in (tmp_path / "out" / "uploads").iterdir()]
    while list((tmp_path / "out" / "uploads").iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not list((tmp_path / "out" / "uploads").iterdir())
    assert client.get("/healthz").json() == {"status": "ok"}


def test_slow_senders(client, monkeypatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.1)
    assert " 408 " in raw(client, HEAD + "Content-Length: 1000\n\n--x\n")
    monkeypatch.setattr(guard, "PATIENCE", 30.0)
    monkeypatch.setattr(guard, "LONGEST", 0.0)
    assert " 408 " in raw(client, HEAD + "Content-Length: 1000\n\n--x\n")
    monkeypatch.setattr(serving_at, "HEAD_PATIENCE", 1.0)
    assert raw(client, HEAD) == ""
    assert raw(client, "GET /healthz HTTP/1.1\nHost: x\n\nGET").startswith("HTTP/1.1 200")


def test_token_and_other_sites(pipe, tmp_path):
    with serving(engine(pipe, tmp_path), token="geheim") as client:

        def code(path="/metrics", method="GET", **headers):
            return client.request(method, path, headers=headers).status_code

        def basic(text):
            return {"Authorization": "Basic " + base64.b64encode(text).decode()}

        assert code("/healthz") == 200
        refused = client.get(f"{HOME}/{'0' * 32}")
        assert (refused.status_code, len(refused.headers.get_list("WWW-Authenticate"))) == (401, 2)
        for wrong in ("Bearer geheimx", "Bearer", "geheim", "Basic geheim", "Bearer \xe9"):
            assert code(Authorization=wrong.encode("latin-1")) == 401
        assert code(**basic(b"me:geheim")) == code(Authorization="Bearer geheim") == 200
        assert code(**basic(b"me:\xff")) == code(**basic(b"geheim")) == 401
        assert code("/docs") == code("/openapi.json") == code(HOME, "POST") == 401
        known = {"Authorization": "Bearer geheim"}
        assert code(HOME, "POST", Origin="http://evil.example", **known) == 403
        assert code(HOME, "POST", Origin="null", **known) == 403
        assert code(HOME, "POST", Origin=str(client.base_url).rstrip("/"), **known) == 415
        answer = client.options(HOME, headers={"Origin": "http://evil.example", **known})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert code(Origin="http://evil.example", **known) == 403  # the page's library would allow it to read
        assert "HTTPBearer" in client.get("/openapi.json", headers=known).text


def test_other_names_and_large_bodies(pipe, tmp_path):
    with serving(engine(pipe, tmp_path), hosts=own_names("127.0.0.2")) as client:
        for name in ("localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]:7860", "[::1]", "127.0.0.2"):
            assert client.get("/healthz", headers={"Host": name}).status_code == 200, name
        for name in (
            "evil.example",
            "evil.example:7860",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "::1",
        ):
            refused = client.get("/healthz", headers={"Host": name})
            assert refused.status_code == 421, name
            assert "--token" in refused.json()["detail"]
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}  # what a browser says after DNS rebinding
        assert client.post(HOME, headers=evil).status_code == 421
        head = "POST /gradio_api/queue/join HTTP/1.1\nHost: localhost\n"
        assert " 413 " in raw(client, head + f"Content-Length: {2**20 + 1}\n\n")
        assert " 413 " in raw(client, head + "Transfer-Encoding: chunked\n\n")
        assert " 413 " in raw(client, head.replace("queue/join", "upload") + f"Content-Length: {2**30}\n\n")
        assert client.post("/gradio_api/queue/join", json={}).status_code == 404  # there is no page here
    assert own_names("::1")[-1] == "[::1]"


def test_docs_load_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    described = client.get("/openapi.json").json()["paths"][HOME]["post"]
    content = described["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(content) == {"video", "image", "options"}
    assert content["options"]["properties"]["variant"]["enum"] == ["tiny_16k", None]
    assert set(described["responses"]) == {"202", "400", "403", "408", "413", "415", "422", "429", "507"}


def test_the_client_of_the_documentation(client, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(clip.read_bytes())
    code = re.search(r"```python\n(import httpx.*?)```", DOCS.read_text(), re.DOTALL)[1]
    exec(code.replace("http://127.0.0.1:7860", str(client.base_url)), {})
    assert probe("rain.mp4").has_audio


def test_stopping_and_starting_again(pipe, tmp_path):
    made = engine(pipe, tmp_path)
    with serving(made) as client:
        done = ask(client, {"prompt": "done"}).json()
        events(client, done)
        pipe.go.clear()
        pipe.begun.clear()
        running = ask(client, {"prompt": "running"}).json()
        assert pipe.begun.wait(SOON)
        waiting = ask(client, {"prompt": "waiting", "num_steps": 3}).json()
        seen, watched = {}, threading.Semaphore(0)

        def watch(name, job):
            with client.stream("GET", job["links"]["events"]) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        seen[name] = json.loads(line.removeprefix("data: "))["state"]
                        watched.release()

        watching = [threading.Thread(target=watch, args=item) for item in (("running", running), ("waiting", waiting))]
        for thread in watching:
            thread.start()
        while len(seen) < 2:
            assert watched.acquire(timeout=SOON)
        threading.Timer(0.2, pipe.go.set).start()
        client.stop()  # finishes what is running; who waits for the other learns that nothing comes
        for thread in watching:
            thread.join(SOON)
        assert seen == {"running": "done", "waiting": "queued"}
    with serving(engine(pipe, tmp_path)) as client:
        assert events(client, waiting)[-1]["state"] == "done"
        for job in (done, running):
            got = client.get(job["links"]["self"]).json()
            assert client.get(got["takes"][0]["files"]["wav"]).content[:4] == b"RIFF"


@pytest.fixture(scope="module")
def network():
    """Untrained, so that nothing depends on which weights are bundled; its words still matter."""
    torch.manual_seed(0)
    network = MMAudio(VARIANT.network)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.text_input_proj[0].weight, std=2.0)
    network.freeze_constants()
    return network.eval()


def likeness(one, other):
    """1 for the same sound, whatever its level."""
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def test_results_are_those_of_a_direct_call(network, tmp_path):
    pipe = Pipeline("tiny_16k", device="cpu", parts={"network": network})
    wanted = [
        {"prompt": prompt, "seed": seed, "num_steps": 2, "duration": duration}
        for prompt, seed, duration in (("rain", 1, 1.0), ("a bell", 1, 1.0), ("a bell", 2, 1.5))
    ]
    direct = [pipe(**options)[0].audio for options in wanted]
    assert likeness(direct[0], direct[1]) < 0.9  # words matter
    gate = threading.Event()

    def load(name):
        assert gate.wait(SOON)
        return pipe

    made = Engine(load, tmp_path / "out", {"tiny_16k": VARIANT}, max_batch=3)
    with serving(made) as client:
        jobs = [ask(client, {**options, "lufs": -35.0}).json() for options in wanted]
        gate.set()
        for job, audio in zip(jobs, direct, strict=True):
            take = events(client, job)[-1]["takes"][0]
            assert set(take["files"]) == {"flac", "wav"}
            (tmp_path / "got.wav").write_bytes(client.get(take["files"]["wav"]).content)
            got, rate = read_audio(tmp_path / "got.wav")
            assert got.shape == audio.shape
            assert integrated_loudness(got, rate) == pytest.approx(-35, abs=0.1)
            assert likeness(got, audio) > 0.98  # the vocoder makes more of the rounding in batches than one would think
    assert (made.batched, made.batches <= 2) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--token", " "], "--token is empty"),
        (["--queue", "0"], "--queue 0"),
        (["--disk", "nan"], "--disk nan"),
        (["--output", ""], "--output is empty"),
        (["--host", ""], "--host is empty"),
        (["--port", "70000"], "cannot listen"),
        (["--device", "abacus"], "--device abacus: not usable"),
        (["--variant", "nonsense"], "unknown variant"),
    ],
)
def test_a_server_that_cannot_start(arguments, match, tmp_path, capsys):
    assert main(["serve", "--port", "0", "--device", "cpu", "--output", str(tmp_path), *arguments]) == 2
    assert match in capsys.readouterr().err

"""The page's parts without a browser: what it asks for, what its buttons do, what its pictures show."""

import asyncio
import re
import threading
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("gradio", reason="needs the packages of extra `web`")
import gradio as gr
from fastapi.testclient import TestClient
from PIL import Image
from scripted import VARIANT, ScriptedPipeline, engine

from mmaudio.media import MediaError, probe
from mmaudio.media.container import open_input, timed_frames, video_stream
from mmaudio.media.encode import PictureTrack, open_output
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.web import cards, guard, pictures, presets
from mmaudio.web.desk import Cancelled, Desk
from mmaudio.web.form import TRIMMED, Form
from mmaudio.web.guard import UPLOAD
from mmaudio.web.jobs import State
from mmaudio.web.page import Page, mount
from mmaudio.web.service import create_app
from mmaudio.web.takes import routes
from mmaudio.web.trim import cut

SOON = 120.0  # seconds; what takes longer hangs
WORDS = Form(None, prompt="a <b>bell</b>", variant="tiny_16k", duration=1.0, seed=7, takes=2)
RUN, HISTORY, TAKES, STATUS, GO, STOP = range(6)  # places in what `shown` gives


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "ball.mp4"
    write_mp4(path, render_clip(2_000_000, size=64, duration=2, audio=False))
    return path


def never():
    pass


def test_presets_fill_in_what_is_lacking():
    text = presets.with_words(" Hiss,, ", presets.NEGATIVE["No speech"])
    assert text == "Hiss, speech, voices"
    assert presets.with_words(text, presets.NEGATIVE["Foley only"]) == f"{text}, music, singing, background noise"


def greys(path):
    """A second of pictures, each lighter than the one before."""
    with open_output(path) as out:
        track = PictureTrack(out, path, 64, 64, Fraction(1, 25), still=False)
        for n in range(25):
            picture = track.prepare(np.full((64, 64, 3), 10 * n, np.uint8))
            track.write(picture, Fraction(n, 25), Fraction(1, 25))
        track.finish()
    return path


def pictures_of(path):
    """(milliseconds, which grey) of every picture."""
    with open_input(path) as container:
        return [
            (round(1000 * time), round(frame.to_ndarray(format="gray").mean() / 10))
            for time, _, frame in timed_frames(container, video_stream(container), [])
        ]


def test_a_part_of_a_video_has_its_pictures_at_their_times(tmp_path):
    whole = greys(tmp_path / "whole.mp4")
    cut(whole, 0.2, 0.6, tmp_path / "part.mp4", never)
    assert pictures_of(tmp_path / "part.mp4") == [(40 * n, 5 + n) for n in range(10)]
    assert probe(tmp_path / "part.mp4").duration == pytest.approx(0.4)
    cut(whole, 0.21, 0.3, tmp_path / "odd.mp4", never)
    assert pictures_of(tmp_path / "odd.mp4") == [(0, 5), (30, 6), (70, 7)]
    cut(whole, 0.9, 7.0, tmp_path / "end.mp4", never)
    assert pictures_of(tmp_path / "end.mp4") == [(0, 22), (20, 23), (60, 24)]

    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        cut(whole, 0.2, 0.6, tmp_path / "stopped.mp4", stop)
    with pytest.raises(MediaError, match="choose another part"):
        cut(whole, 7.0, 8.0, tmp_path / "beyond.mp4", never)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["end.mp4", "odd.mp4", "part.mp4", "whole.mp4"]


def test_only_what_no_duration_can_say_is_cut(clip, tmp_path):
    form = Form(str(clip), 0.0, 2.0, variant="tiny_16k")
    for ends, duration in (((0.0, 2.0), None), ((None, None), None), ((0.0, 1.5), 1.5)):
        ask = replace(form, start=ends[0], end=ends[1]).ask(VARIANT, tmp_path, never)
        assert (ask.video, ask.duration) == (clip, duration)
    ask = replace(form, start=0.5, end=1.5, loudness="−16 LUFS, podcasts").ask(VARIANT, tmp_path, never)
    assert (ask.video, ask.duration, ask.lufs) == (tmp_path / TRIMMED, None, -16.0)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    ask = Form(str(tmp_path / "a.png"), variant="tiny_16k", duration=3.0).ask(VARIANT, tmp_path, never)
    assert (ask.image, ask.video, ask.duration) == (tmp_path / "a.png", None, 3.0)
    with pytest.raises(ValueError, match="the seed is empty"):
        replace(form, seed=None).ask(VARIANT, tmp_path, never)
    with pytest.raises(ValueError, match="move its start and end apart"):
        replace(form, start=1.5, end=1.0).ask(VARIANT, tmp_path, never)


def views(generator):
    """What an async generator yields, to its end."""

    async def collect():
        return [view async for view in generator]

    return asyncio.run(collect())


def test_generating_cancelling_and_coming_back(clip, tmp_path):
    pipe = ScriptedPipeline()
    with closing(engine(pipe, tmp_path / "jobs", expire=600.0)) as made:
        desk = Desk(made)
        fields = vars(WORDS).values()
        first, *_, last = views(desk.generate([], *fields))
        assert first[GO]["interactive"] is False
        assert first[STOP]["interactive"] is True
        (id,) = last[HISTORY]
        assert "10 minutes" in last[STATUS]
        assert last[GO]["interactive"] is True
        (card,) = last[TAKES]
        assert card["id"] == id
        assert card["html"].count("<article") == 2
        assert "a &lt;b&gt;bell&lt;/b&gt;" in card["html"]
        assert "<b>bell" not in card["html"]
        (view,) = views(desk.restore([id, "expired", 3]))
        assert view[HISTORY] == [id]
        assert view[TAKES] == [card]

        again = desk.again(SimpleNamespace(job=id, take=1))
        source, _, _, prompt, _, variant, duration, _, _, seed, takes, _ = again[:12]
        assert (source, prompt, variant, duration, seed, takes) == (None, WORDS.prompt, "tiny_16k", 1.0, 8, 1)
        assert "gone" in desk.again(SimpleNamespace(job=id, take=9))[12]

        pipe.go.clear()

        async def cancelled():
            seen = []
            async for view in desk.generate([id], *fields):
                seen.append(view)
                if "Compose" in view[STATUS]:
                    desk.cancel(seen[0][RUN])
            return seen

        seen = asyncio.run(cancelled())
        assert "Cancelled" in seen[-1][STATUS]
        assert seen[-1][HISTORY] == [id]
        assert made.job(seen[1][HISTORY][-1]).wait(SOON)
        assert made.counts == {"done": 1, "cancelled": 1}

        waiting = made.submit(WORDS.ask(VARIANT, tmp_path, never))
        threading.Timer(0.5, pipe.go.set).start()  # loaded again while it waits: the page goes on
        assert views(desk.restore([id, waiting.id]))[-1][HISTORY] == [id, waiting.id]
        assert waiting.state == State.DONE


def test_errors_are_one_line_without_paths(clip, tmp_path):
    pipe = ScriptedPipeline()
    with closing(engine(pipe, tmp_path / "jobs")) as made:
        desk = Desk(made)

        def status(form):
            return views(desk.generate([], *vars(form).values()))[-1][STATUS]

        assert "give a video, a picture or a prompt" in status(replace(WORDS, prompt=" "))
        broken = tmp_path / "<i>.mp4"
        broken.write_bytes(b"no video")
        line = status(replace(WORDS, source=str(broken)))
        assert 'role="alert">the file' in line
        assert str(tmp_path) not in line
        pipe.error = ValueError("<script>")
        assert "&lt;script&gt;" in status(WORDS)
        assert 'role="alert">the file' in desk.look(str(broken))[0]
        assert desk.look(str(clip))[3]["maximum"] == 2.0
        assert not list((tmp_path / "jobs").glob("part-*"))
        made.max_queue = 0
        assert "wait already" in status(replace(WORDS, source=str(broken)))  # before it is looked at


def slowly(app, path, begin):
    """Status and words that an app answers with to a form of which nothing comes after its begin."""
    parts, answer = [{"type": "http.request", "body": begin, "more_body": True}], []

    async def receive():
        if parts:
            return parts.pop()
        await asyncio.sleep(SOON)

    async def send(message):
        answer.append(message)

    headers = {"host": "localhost", "content-type": "multipart/form-data; boundary=x", "content-length": "1000"}
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return answer[0]["status"], answer[1]["body"].decode()


def test_the_page_is_nobody_elses(tmp_path, monkeypatch):
    with closing(engine(ScriptedPipeline(), tmp_path)) as made:
        left = tmp_path / "part-killed"
        left.mkdir()
        app = create_app(made)
        mount(app, made)
        assert not left.exists()
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        with TestClient(app) as client:
            assert "frame-ancestors 'self'" in client.get("/").headers["content-security-policy"]
            (path,) = client.post(UPLOAD, files={"files": ("a.mp4", b"whole")}).json()
            assert Path(path).read_bytes() == b"whole"
        monkeypatch.setattr(guard, "PATIENCE", 0.1)
        status, said = slowly(app, UPLOAD, part + b"half a fi")
        assert (status, "too slowly" in said) == (408, True)
        assert [p.name for p in (tmp_path / "page").rglob("*") if p.is_file()] in ([], ["a.mp4"])  # no half of a file
    address = {"path": "https://example.org/large.mp4", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gr.Error, match="not its address"):
        asyncio.run(Page().preprocess_data(None, [[address]], None))


def test_files_and_pictures_of_a_take(clip, tmp_path):
    with closing(engine(ScriptedPipeline(), tmp_path / "jobs")) as made:
        job = made.submit(Form(str(clip), variant="tiny_16k").ask(VARIANT, tmp_path, never))
        assert job.wait(SOON)
        app = create_app(made)
        app.include_router(routes(made))
        with TestClient(app) as client:
            links = re.findall(r'(?:src|href)="([^"]*)"', cards.card(job))
            begins = {"wav": b"RIFF", "flac": b"fLaC", "mp4": b"\0\0\0", "png": b"\x89PNG", "jpg": b"\xff\xd8"}
            assert {link.rpartition(".")[2] for link in links} == set(begins)
            for link in links:
                reply = client.get(f"/{link}")
                assert reply.status_code == 200, link
                assert reply.content.startswith(begins[link.rpartition(".")[2]]), link
                assert "immutable" in reply.headers["cache-control"]
            for name in ("1.png", "0.wav", "0.json", "job.json", "-1.png", "..%2fjob.json"):
                assert client.get(f"/takes/{job.id}/{name}").status_code == 404, name
            assert client.get("/takes/nothing/film.jpg").status_code == 404


def test_waveform_and_film_share_a_time_axis():
    wave = torch.zeros(1, 16_000)
    wave[0, 4000] = 0.5
    drawn = pictures.waveform(wave, pictures.WIDTH)
    heights = (drawn[0] == pictures.INK[0]).sum(0)
    assert heights.argmax() == pictures.WIDTH // 4
    assert heights[:200].tolist() == [1] * 200
    assert heights.max() == pytest.approx(0.5**0.5 * pictures.WAVE_HEIGHT / 2, abs=2)
    for size, cell in (((90, 160), (144, 96)), ((160, 90), (256, 144)), ((64, 64), (144, 96))):
        assert pictures.cell_of(torch.zeros(3, *size, dtype=torch.uint8)).shape[1:] == cell
    assert cards._ruler(8.0).count("<span") == 8
    assert 'left:25.00%">2<' in cards._ruler(8.0)

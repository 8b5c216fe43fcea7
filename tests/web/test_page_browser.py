"""A real browser on the page: a clip goes in, takes come out, play, are fetched, and survive a refresh."""

import re
import threading
import time
from contextlib import closing, contextmanager

import pytest

pytest.importorskip("gradio", reason="needs the packages of extra `web`")
from browser import CHROMIUM, Browser
from scripted import VARIANT

import mmaudio
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.web.jobs import Engine
from mmaudio.web.page import mount
from mmaudio.web.serve_command import listen
from mmaudio.web.server import Server
from mmaudio.web.service import create_app

PATIENCE = 180  # seconds; what takes longer hangs
SHOWS_TAKES = "document.querySelectorAll('.take').length"
STATUS = "document.querySelector('#status').innerText"
PLAY = """new Promise(done => {
    const player = document.querySelector(".take video");
    player.onended = () => done([player.currentTime, player.closest(".take").querySelector(".playhead").style.left]);
    player.play();
})"""
SIZES = """Promise.all([...document.querySelectorAll(".take:first-child .files a")].map(link =>
    fetch(link.href).then(reply => reply.blob()).then(blob => [link.download, blob.type, blob.size > 1000])))"""
SHIFT_ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r", "modifiers": 8}


@contextmanager
def serving(engine):
    app = create_app(engine)
    mount(app, engine)
    listening = listen("127.0.0.1", 0)
    server = Server(app, engine)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


STAGES = {"CLIP": "Look", "solve": "Compose", "vocoder": "Sound"}  # what the page calls them


class Held:
    """A pipeline that stops where each of STAGES begins until its gate is open: what a page shows then, stays."""

    def __init__(self):
        self.pipe = mmaudio.load("tiny_16k", device="cpu")
        self.gates = {stage: threading.Event() for stage in STAGES}
        self.variant = self.pipe.variant

    def release(self):
        self.pipe.release()

    def generate(self, requests, *, progress, **settings):
        def held(stage, done, total):
            progress(stage, done, total)
            while stage in self.gates and not self.gates[stage].wait(0.01):
                progress(stage, done, total)  # raises when it is cancelled

        return self.pipe.generate(requests, progress=held, **settings)


class Visitor(Browser):
    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not (value := self.tell(condition)):
            assert time.monotonic() < end, f"{condition}: {self.tell(STATUS)}"
            time.sleep(0.1)
        return value

    def drop(self, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#source input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def fill(self, field, value):
        """As a person: the field is left after it."""
        self.wait(f"!!document.querySelector('{field}')")
        self.tell(
            f"{{ const field = document.querySelector('{field}'); field.focus(); field.value = {value!r};"
            "for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {bubbles: true}));"
            "field.blur() }"
        )
        self.wait(f"document.querySelector('{field}').value == {value!r}")

    def click(self, button):
        self.wait(f"document.querySelector('{button}')?.disabled === false")
        self.tell(f"document.querySelector('{button}').click()")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.slow  # a browser beside a network
def test_a_browser_gets_its_takes(tmp_path):
    clip = tmp_path / "<b>ball.mp4"
    write_mp4(clip, render_clip(2_000_016, duration=1.5, size=64, audio=False))
    pipe = Held()
    with (
        closing(Engine(lambda name: pipe, tmp_path / "jobs", {"tiny_16k": VARIANT})) as engine,
        serving(engine) as site,
        Visitor(tmp_path / "profile") as browser,
    ):
        browser.open(site)
        browser.wait("!!document.querySelector('#go')")
        browser.drop(clip)
        browser.wait("!!document.querySelector('#preview video')")
        browser.wait("!document.querySelector('#duration')?.checkVisibility()")
        browser.wait("document.querySelector('#end input[type=number]')?.value > 1.4")  # it comes in its own time
        browser.fill("#steps input[type=number]", 2)
        browser.fill("#takes input[type=number]", 2)
        browser.fill("#end input[type=number]", 1)
        browser.fill("#prompt textarea", "wood")
        browser.tell("document.querySelector('#prompt textarea').focus()")
        browser.call("Input.dispatchKeyEvent", type="keyDown", **SHIFT_ENTER)
        browser.call("Input.dispatchKeyEvent", type="keyUp", **SHIFT_ENTER)
        percents = []
        for stage, shown in STAGES.items():
            browser.wait(f"{STATUS}.startsWith('{shown}')")
            percents.append(int(re.search(r"(\d+)%", browser.tell(STATUS))[1]))
            pipe.gates[stage].set()
        assert 0 < percents[0] < percents[1] < percents[2] < 100
        browser.wait(f"{SHOWS_TAKES} == 2")
        ended, playhead = browser.tell(PLAY)
        assert ended == pytest.approx(1, abs=0.1)
        assert playhead == "100%"
        assert browser.tell(SIZES) == [
            ["wood_42.flac", "audio/flac", True],
            ["wood_42.wav", "audio/wav", True],
            ["wood_42.mp4", "video/mp4", True],
        ]
        browser.wait("[...document.querySelectorAll('.timeline img')].every(image => image.complete)")
        widths = "[...document.querySelectorAll('.take:first-child .timeline img')].map(i => [i.naturalWidth, i.width])"
        film, sound = browser.tell(widths)
        assert film == sound
        assert film[0] == 960

        browser.tell("document.querySelectorAll('.again')[1].click()")
        browser.wait("document.querySelector('#seed input').value == '43'")
        pipe.gates["solve"].clear()  # it would step on until it is cancelled
        browser.click("#go")
        browser.wait(f"{STATUS}.startsWith('Compose')")
        browser.click("#stop")
        browser.wait(f"{STATUS}.startsWith('Cancelled')")
        assert all(job.wait(PATIENCE) for job in engine.running)
        assert engine.counts == {"done": 1, "cancelled": 1}

        browser.open(site)
        browser.wait(f"{SHOWS_TAKES} == 2")
        assert browser.tell("document.documentElement.scrollWidth <= innerWidth")
        assert {re.match("https?://[^/]*", url)[0] for url in browser.asked if url.startswith("http")} == {site}

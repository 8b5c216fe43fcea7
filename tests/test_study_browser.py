"""A real browser, used with the keyboard alone, fills in a whole study."""

import json
import os
import re
import select
import shutil
import subprocess
from urllib.request import urlopen

import pytest
from test_study import BETTER, WORSE, serving

from mmaudio.cli import main
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 120  # seconds
KEYS = {  # key -> code, number and text of its event
    "Tab": ("Tab", 9, ""), " ": ("Space", 32, " "), "ArrowRight": ("ArrowRight", 39, ""), "Enter": ("Enter", 13, "\r"),
}  # fmt: skip
PLAY = """new Promise(done => {
    const video = document.querySelector("video");
    video.onended = () => done(video.currentTime);
    video.play();
})"""


class Browser:
    """Chromium without a window, steered by its debugging protocol over two pipes."""

    def __init__(self, folder):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        flags = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={folder} about:blank"
        command = f'exec "{CHROMIUM}" {flags} 3<&{to_browser} 4>&{from_browser}'
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(to_browser, from_browser), **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self.pending, self.count, self.session, self.asked, self.loaded = b"", 0, None, [], 0
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Network.enable")
        self.call("Page.enable")

    def message(self) -> dict:
        while b"\0" not in self.pending:
            assert select.select([self.read], [], [], PATIENCE)[0], "the browser says nothing"
            chunk = os.read(self.read, 2**16)
            assert chunk, "the browser is gone"
            self.pending += chunk
        message, _, self.pending = self.pending.partition(b"\0")
        message = json.loads(message)
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        self.loaded += message.get("method") == "Page.loadEventFired"
        return message

    def call(self, method, **parameters):
        self.count += 1
        session = {"sessionId": self.session} if self.session else {}
        request = {"id": self.count, "method": method, "params": parameters, **session}
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while (message := self.message()).get("id") != self.count:
            pass
        return message["result"]

    def wait_for_page(self) -> None:
        while not self.loaded:
            self.message()
        self.loaded = 0

    def tell(self, expression):
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        return self.call("Runtime.evaluate", expression=expression, **options)["result"].get("value")

    def press(self, key) -> None:
        code, number, text = KEYS[key]
        given = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_fills_in_the_study_by_keyboard(tmp_path, capsys):
    clip = render_clip(2_000_016, duration=1, size=64)
    for method in ("ours", "other"):
        write_mp4(tmp_path / method / "first.mp4", clip)
        write_mp4(tmp_path / method / "second.mp4", clip)
        for file in (tmp_path / method).iterdir():  # a box that players skip tells the methods apart
            file.write_bytes(file.read_bytes() + (8 + len(method)).to_bytes(4, "big") + b"free" + method.encode())
    words = [f"{method}={tmp_path / method}" for method in ("ours", "other")]
    with serving(words, tmp_path / "s.sqlite") as site:
        browser = Browser(tmp_path / "profile")
        try:
            browser.call("Page.navigate", url=site)
            browser.wait_for_page()
            browser.press("Tab")
            browser.press("Enter")
            browser.wait_for_page()
            for number in (1, 2):
                assert browser.tell("document.title") == f"Video {number} of 2"
                sources = browser.tell("[...document.querySelectorAll('video')].map(video => video.src)")
                given = [BETTER if urlopen(source).read().endswith(b"ours") else WORSE for source in sources]
                assert sorted(map(id, given)) == sorted([id(BETTER), id(WORSE)])
                left = {f"{place}.{question}" for place in (1, 2) for question in BETTER}
                for _ in range(60):
                    browser.press("Tab")
                    name = browser.tell("document.activeElement.name || document.activeElement.tagName")
                    if name in left:
                        left.discard(name)
                        place, question = name.split(".")
                        browser.press(" ")
                        for _ in range(given[int(place) - 1][question] - 1):
                            browser.press("ArrowRight")
                    elif name == "BUTTON":
                        break
                assert not left
                assert browser.tell(PLAY) == pytest.approx(1, abs=0.1)
                browser.press("Enter")
                browser.wait_for_page()
            assert browser.tell("document.title") == "Thank you"
            assert browser.tell("document.documentElement.scrollWidth <= innerWidth")
            assert {re.match("https?://[^/]*", url)[0] for url in browser.asked if not url.startswith("data:")} == {
                site
            }
        finally:
            browser.close()
    assert main(["study", "report", str(tmp_path / "s.sqlite")]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines() if line.startswith(("  ours", "  other"))]
    assert sorted(rows) == sorted(
        [method, f"{value}.00", "0.00", "2"]
        for method, given in (("ours", BETTER), ("other", WORSE))
        for value in given.values()
    )

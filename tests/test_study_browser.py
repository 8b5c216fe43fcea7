"""A real browser, used with the keyboard alone, fills in a whole study."""

import re
from contextlib import closing
from urllib.request import urlopen

import pytest
from browser import CHROMIUM, Browser
from test_study import BETTER, WORSE, serving

from mmaudio.cli import main
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4
from mmaudio.study.answers import Answers

PLAY = """new Promise(done => {
    const video = document.querySelector("video");
    video.onended = () => done(video.currentTime);
    video.play();
})"""


def fill_in(browser, presses):
    """Choose with the keyboard: of each question the first answer, and so many times the next; ends at the button."""
    left = dict(presses)
    for _ in range(60):
        browser.press("Tab")
        name = browser.tell("document.activeElement.name || document.activeElement.tagName")
        if name in left:
            browser.press(" ")
            for _ in range(left.pop(name)):
                browser.press("ArrowRight")
        elif name == "BUTTON":
            break
    assert not left


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_fills_in_the_study_by_keyboard(tmp_path, capsys):
    clip = render_clip(2_000_016, duration=1, size=64)
    for method in ("ours", "other"):
        write_mp4(tmp_path / method / "first.mp4", clip)
        write_mp4(tmp_path / method / "second.mp4", clip)
        for file in (tmp_path / method).iterdir():  # a box that players skip tells the methods apart
            file.write_bytes(file.read_bytes() + (8 + len(method)).to_bytes(4, "big") + b"free" + method.encode())
    words = [f"{method}={tmp_path / method}" for method in ("ours", "other")]
    with serving(words, tmp_path / "s.sqlite") as site, Browser(tmp_path / "profile") as browser:
        browser.open(site)
        browser.press("Tab")
        browser.press("Enter")
        browser.wait_for_page()
        for number in (1, 2):
            assert browser.tell("document.title") == f"Video {number} of 2"
            sources = browser.tell("[...document.querySelectorAll('video')].map(video => video.src)")
            given = [BETTER if urlopen(source).read().endswith(b"ours") else WORSE for source in sources]
            assert sorted(map(id, given)) == sorted([id(BETTER), id(WORSE)])
            fill_in(browser, {f"{i}.{q}": v - 1 for i, one in enumerate(given, 1) for q, v in one.items()})
            assert browser.tell(PLAY) == pytest.approx(1, abs=0.1)
            browser.press("Enter")
            browser.wait_for_page()
        assert browser.tell("document.title") == "Thank you"
        assert browser.tell("document.documentElement.scrollWidth <= innerWidth")
        assert {re.match("https?://[^/]*", url)[0] for url in browser.asked if not url.startswith("data:")} == {site}
        with serving(words, tmp_path / "s.sqlite", pairs=True) as site:
            browser.open(site)
            browser.press("Tab")  # to go on as who it was
            browser.press("Enter")
            browser.wait_for_page()
            for number in (1, 2):
                assert browser.tell("document.title") == f"Pair {number} of 2"
                fill_in(browser, {"quality": 0, "semantics": 1, "timing": 2})
                browser.press("Enter")
                browser.wait_for_page()
            assert browser.tell("document.title") == "Thank you"
    with closing(Answers(tmp_path / "s.sqlite")) as answers:
        for video in ("first", "second"):
            preferred = {c.question: c.preferred for c in answers.choices() if c.video == video}
            assert {preferred["quality"], preferred["timing"]} == {"ours", "other"}
            assert preferred["semantics"] is None
    assert main(["study", "report", str(tmp_path / "s.sqlite")]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines() if line.startswith(("  ours", "  other"))]
    assert sorted(rows) == sorted(
        [method, f"{value}.00", "0.00", "2"]
        for method, given in (("ours", BETTER), ("other", WORSE))
        for value in given.values()
    )

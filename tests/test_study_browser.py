"""A real browser, used with the keyboard alone, fills in a whole study."""

import re
from urllib.request import urlopen

import pytest
from browser import CHROMIUM, Browser
from test_study import BETTER, WORSE, serving

from mmaudio.cli import main
from mmaudio.stage import render_clip
from mmaudio.stage.export import write_mp4

PLAY = """new Promise(done => {
    const video = document.querySelector("video");
    video.onended = () => done(video.currentTime);
    video.play();
})"""


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
        assert {re.match("https?://[^/]*", url)[0] for url in browser.asked if not url.startswith("data:")} == {site}
    assert main(["study", "report", str(tmp_path / "s.sqlite")]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines() if line.startswith(("  ours", "  other"))]
    assert sorted(rows) == sorted(
        [method, f"{value}.00", "0.00", "2"]
        for method, given in (("ours", BETTER), ("other", WORSE))
        for value in given.values()
    )

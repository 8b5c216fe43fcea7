"""The report is one file that asks nobody, whatever the clips are called and said to be."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser
from PIL import Image

import mmaudio.evaluation.report as report
from mmaudio.evaluation.backbones import Found, Unavailable
from mmaudio.evaluation.backbones.audioset import CLASSES
from mmaudio.evaluation.charts import HEIGHT, WIDTH, Bar, bars, curve
from mmaudio.evaluation.gathering import EvaluateConfig
from mmaudio.evaluation.run import evaluate

RATE, SECONDS = 16000, 0.5
HOSTILE = '<img src=x onerror=alert(1)> & "quoted"'
LENGTHS = """Promise.all([...document.querySelectorAll("audio")].map(audio => new Promise(done => {
    if (audio.readyState) done(audio.duration);
    else audio.onloadedmetadata = () => done(audio.duration);
})))"""
TWO_AT_ONCE = """(async () => {
    const [first, second] = document.querySelectorAll("audio");
    first.loop = second.loop = true;
    await first.play();
    await second.play();
    return [first.paused, second.paused];
})()"""
REFUSED = """new Promise(done => {
    document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
    new Image().src = "https://example.org/seen";
})"""
CAPTION = "</script><script src='https://example.org/x.js'></script><a href=//example.org>x</a>"


class Tagger:
    identity = "tagger"

    def audio(self, samples, sample_rate, duration):
        logits = np.zeros(CLASSES, np.float32)
        logits[0] = 10 * samples.numpy().std()
        return {"embedding": logits[:2], "logits": logits}


class Page(HTMLParser):
    """Every tag with its attributes, and the text of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.texts, self.shown = [], None, {"style": [], "script": []}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in self.texts else None

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside].append(data)
        else:
            self.shown += data

    def sources(self, tag):
        return [attrs["src"].partition(",")[2] for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    names = [HOSTILE, "b", "c", "d"]
    for side in ("made", "true"):
        (folder / side).mkdir()
        for name in names:
            soundfile.write(
                folder / side / f"{name}.wav", rng.random() * rng.standard_normal(int(RATE * SECONDS)), RATE
            )
    rows = "".join(f'"{name.replace(chr(34), chr(34) * 2)}","{CAPTION}"\n' for name in names)
    (folder / "captions.csv").write_text("name,caption\n" + rows)

    def find(name):
        if name == "panns":
            return Found(Tagger.identity, Tagger)
        raise Unavailable("<b>not here</b>", "fetch it from https://example.org")

    config = EvaluateConfig(
        folder / "made", folder / "true", folder / "captions.csv", out=folder / "out", cache=folder / "cache",
        duration=SECONDS, backbones=("panns", "vggish"),
    )  # fmt: skip
    assert evaluate(config, find) == 0
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


def test_nothing_is_fetched_and_nothing_foreign_runs(page):
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"link", "iframe", "object", "embed", "form", "a", "base", "source", "video"}
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert not {"href", "srcset", "background", "xlink:href", "action", "poster"} & set(attrs), (tag, attrs)
        if "src" in attrs:
            assert attrs["src"].startswith(("data:image/png;base64,", "data:audio/mpeg;base64,"))
    assert "".join(page.texts["script"]).strip() == (Path(report.__file__).parent / "report.js").read_text().strip()
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_what_is_hostile_is_shown_as_it_is(page):
    assert HOSTILE in page.shown
    assert CAPTION in page.shown
    assert "<b>not here</b>" in page.shown


def test_players_and_spectrograms_hold_the_clips(page):
    assert len(page.sources("audio")) == len(page.sources("img")) == 8  # 2 worst and 2 best, made and true
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(page.sources("audio")[0])))
    assert rate == RATE
    assert abs(len(wave) / rate - SECONDS) < 0.15  # an MP3 begins and ends with padding
    picture = Image.open(io.BytesIO(base64.b64decode(page.sources("img")[0])))
    assert picture.size == (WIDTH, HEIGHT)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_asks_nobody_and_plays_one_sound_at_a_time(written, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(written.as_uri())
        assert browser.tell(LENGTHS) == [pytest.approx(SECONDS, abs=0.15)] * 8
        assert browser.tell(TWO_AT_ONCE) == [True, False]
        assert browser.tell("document.images.length") == 8
        assert browser.tell("[...document.images].every(image => image.naturalWidth)")
        assert browser.tell("document.documentElement.scrollWidth <= innerWidth")
        assert {url for url in browser.asked if not url.startswith("data:")} == {written.as_uri()}
        assert browser.tell(REFUSED) == "img-src"


def test_published_rows_stand_beside_ours_only_under_their_protocol():
    score = SimpleNamespace(value=5.0, low=4.0, high=6.0)
    facts = {"dataset": "vggsound", "duration_s": 8.0, "made_by": None, "sounds": {"count": 9}}
    found = SimpleNamespace(scores={"FD_PANNs": score, "AV_Align": score}, fingerprint=facts)
    shown = report._published(found)
    assert "5.22" in shown
    assert "Cheng et al." in shown
    assert "AV_Align" not in shown
    for other in ({"duration_s": 10.0}, {"dataset": "stage"}):
        assert report._published(SimpleNamespace(scores=found.scores, fingerprint=facts | other)) == ""


def test_bars_share_one_scale_and_curves_their_order():
    text = bars([Bar("a", 2.0, 1.0, 4.0), Bar("b", -1.0), Bar("c", 4.0, ours=False)], 1)
    assert 'left:20.00%;width:40.00%"></i><b style="left:40.00%;width:60.00%' in text
    assert 'left:0.00%;width:20.00%"></i>' in text
    assert 'left:20.00%;width:80.00%"></i>' in text
    drawn = curve([3.0, 1.0, 2.0], "x", 0)
    assert 'points="0.00,41.00 50.00,21.00 100.00,1.00"' in drawn
    assert curve([1.0] * 5000, "x", 0).count(",41.00") == 400

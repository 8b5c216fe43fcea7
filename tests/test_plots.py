"""Plots, the player of a generation, and the notebook that shows both."""

import ast
import base64
import io
import json
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from mmaudio import plots
from mmaudio.generation import Generation
from mmaudio.sequence import SPEC_16K, SPEC_44K

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


@pytest.fixture(autouse=True)
def _no_window():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def click(at: float, seconds: float = 2.0, rate: int = 16_000, prompt: str = "click") -> Generation:
    audio = torch.zeros(2, int(seconds * rate))
    audio[:, int(at * rate) :][:, :200] = torch.linspace(0.9, 0, 200) * torch.tensor([1, -1]).repeat(100)
    return Generation(audio, rate, torch.zeros(1, 20), 7, "tiny_16k", prompt, seconds)


def test_a_generation_shows_player_waveform_and_spectrogram():
    html = click(1.5, prompt='<script>alert("$1$")</script>')._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "seed 7" in html
    wave = base64.b64decode(re.search(r"data:audio/wav;base64,([^\"]+)", html)[1])
    assert wave[:4] == b"RIFF"
    assert len(wave) == 44 + 2 * 2 * 32_000
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", html)[1])))
    loudness = np.asarray(picture.convert("L")).sum(0)
    assert loudness.argmax() / picture.width == pytest.approx(0.75, abs=0.02)
    points = re.search(r'points="([^"]+)"', html)[1].split()
    heights = [abs(float(point.split(",")[1]) - 50) for point in points]
    assert heights.index(max(heights)) == pytest.approx(0.75 * len(points) / 2, abs=2)


def test_spectrogram_marks_events_on_a_mel_axis():
    axes = plots.plot_spectrogram(click(0.5), events=[0.5, 1.25])
    axes.figure.canvas.draw()
    assert [line.get_xdata()[0] for line in axes.lines] == [0.5, 1.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.2", "0.5", "1", "2", "4"]
    spacing = [b - a for a, b in zip(axes.get_yticks()[2:], axes.get_yticks()[3:], strict=False)]
    assert spacing[0] == pytest.approx(spacing[1])  # octaves above 1 kHz are equally far apart
    assert axes.get_xlim() == (0, 2)
    with pytest.raises(ValueError, match="sample rate"):
        plots.plot_spectrogram(torch.zeros(1, 16_000))


def test_takes_of_words_share_their_time_axis():
    figure = plots.plot_takes([click(0.5), click(0.5, seconds=1.0, prompt="$x")], events=[0.5])
    figure.canvas.draw()  # "$" is no mathematics
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 2), (0, 2)]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    with pytest.raises(ValueError, match="no takes"):
        plots.plot_takes([])


@pytest.mark.parametrize("spec", [SPEC_16K, SPEC_44K])
def test_aligned_rope_favours_the_same_moment(spec):
    rate = spec.latent_len / spec.clip_len
    frames = torch.arange(spec.clip_len)
    aligned = plots.rope_affinity(spec)
    assert aligned.shape == (spec.clip_len, spec.latent_len)
    assert (aligned.argmax(1) - frames * rate).abs().max() <= 1
    plain = plots.rope_affinity(spec, aligned=False)
    assert torch.equal(plain.argmax(1), frames)  # frame 8, at one second, goes with latent 8, at a quarter of one
    assert plain.diagonal().sub(1).abs().max() < 1e-5


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plots.plot_rope_affinity(SPEC_16K)


def test_the_notebook_executes_and_shows_what_it_makes():
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    sources = ["".join(cell["source"]) for cell in cells]
    assert sources[0].startswith("STEPS = 25")
    names, shown = {}, []
    for source in ["STEPS = 2", *sources[1:]]:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(NOTEBOOK), "exec"), names)
        if last:
            shown.append(eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names))
    _, bottle, caption, take, takes_figure, axes, files, rope_figure = shown
    assert all(
        word in page for page in (bottle._repr_html_(), take._repr_html_()) for word in ("<audio", "<svg", "<img")
    )
    assert take.prompt == caption
    assert files == ["strike.flac", "strike.mp4", "strike_with_sound.mp4"]
    strip, *below = takes_figure.axes  # the video's frames above two takes
    assert strip.images[0].get_array().shape[1] == plots.WIDTH
    assert [len(one.lines) for one in below] == [len(names["events"])] * 2
    for figure in (takes_figure, axes.figure, rope_figure):
        figure.canvas.draw()

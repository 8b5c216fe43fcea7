"""The page for people: a form, the progress of what it asks for, and the takes that came of it: how they look."""

import os
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from gradio_client.utils import is_file_obj, is_http_url_like, traverse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmaudio.catalogue import VariantInfo, list_variants
from mmaudio.inputs import DEFAULT_DURATION, MAX_DURATION
from mmaudio.media.probe import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mmaudio.web import cards, presets
from mmaudio.web.asks import MAX_SEED, MAX_TAKES, MAX_TEXT
from mmaudio.web.desk import MAX_HISTORY, PARTS, Desk
from mmaudio.web.guard import UPLOAD
from mmaudio.web.jobs import Engine
from mmaudio.web.takes import routes
from mmaudio.web.uploads import MAX_UPLOAD

CLEANING, KEPT = 600, 14_400  # seconds: how often uploads are cleared away, and how old they may get
UPLOADS = "page"  # in the engine's folder
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'"
)
SYSTEM_FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
THEME = gr.themes.Default(
    primary_hue="orange", secondary_hue="orange", neutral_hue="stone",
    font=SYSTEM_FONTS, font_mono=("ui-monospace", "monospace"),
)  # fmt: skip

RECALL = "(history, ...fields) => [JSON.parse(localStorage.mmaudio || '[]'), ...fields]"
REMEMBER = f"""history => {{
    const seen = [...JSON.parse(localStorage.mmaudio || '[]'), ...history];
    localStorage.mmaudio = JSON.stringify([...new Set(seen)].slice(-{MAX_HISTORY}));
}}"""
SHOW = "time => { const video = document.querySelector('#preview video'); if (video) video.currentTime = time; }"


class Page(gr.Blocks):
    """Gradio would fetch a file that a visitor gives as a URL, and hold all of it in memory."""

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        traverse(inputs, uploaded, is_file_obj)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


def uploaded(file: dict) -> dict:
    if is_http_url_like(file["path"]):
        raise gr.Error("upload the file itself, not its address")
    return file


def build(engine: Engine) -> gr.Blocks:
    """The page over an engine."""
    desk, infos = Desk(engine), list_variants()
    small = {"min_width": 200, "buttons": []}
    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    with Page(title="mmaudio", analytics_enabled=False, fill_width=True, delete_cache=(CLEANING, KEPT)) as blocks:
        history = gr.JSON([], visible="hidden")  # the jobs that this browser has seen, in all of its tabs
        run = gr.State()
        gr.HTML("<h1>mmaudio</h1><p>Sound for silent video</p>", elem_id="title")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                source = gr.File(
                    label="Video or picture (or only words, below)", height=180,
                    file_types=["video", "image", *sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES)], elem_id="source",
                )  # fmt: skip
                preview = gr.HTML(elem_id="preview")
                with gr.Row():
                    start, end = (
                        gr.Slider(0, 1, 0, step=0.05, label=label, visible=False, elem_id=name, **small)
                        for name, label in (("start", "Start (s)"), ("end", "End (s)"))
                    )
                prompt = gr.Textbox(
                    label="What should be heard", placeholder="a metal ball bounces on wood", lines=2,
                    max_length=MAX_TEXT, elem_id="prompt",
                )  # fmt: skip
                negative = gr.Textbox(label="What should not be heard", max_length=MAX_TEXT, elem_id="negative")
                with gr.Row():
                    for name, words in presets.NEGATIVE.items():
                        button = gr.Button(name, size="sm", min_width=90)
                        button.click(
                            lambda text, words=words: presets.with_words(text, words), negative, negative, **quiet
                        )
                variant = gr.Dropdown(labels(engine, infos), label="Variant", elem_id="variant")
                missing = [info for info in infos if info.name not in engine.variants]
                if missing:
                    with gr.Accordion("Variants that are not installed", open=False):
                        gr.HTML(cards.variants(missing))
                duration = gr.Slider(
                    1, MAX_DURATION, DEFAULT_DURATION, step=0.5, label="Duration (s)", elem_id="duration", buttons=[]
                )
                with gr.Row():
                    steps = gr.Slider(1, 100, 25, step=1, label="Steps", elem_id="steps", **small)
                    strength = gr.Slider(0, 15, 4.5, step=0.5, label="Strength", elem_id="strength", **small)
                with gr.Row():
                    seed = gr.Number(42, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
                    dice = gr.Button("⚄ Roll", min_width=100, scale=0, elem_id="dice")
                with gr.Row():
                    takes = gr.Slider(1, MAX_TAKES, 1, step=1, label="Takes", elem_id="takes", **small)
                    loudness = gr.Dropdown(list(presets.LOUDNESS), label="Loudness", min_width=200, elem_id="loudness")
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", elem_id="go")
                    stop = gr.Button("Cancel", variant="stop", interactive=False, elem_id="stop")
                status = gr.HTML(elem_id="status")
                results = gr.HTML(
                    [], html_template='<div class="jobs"></div>', js_on_load=asset("page.js"), apply_default_css=False,
                    elem_id="results",
                )  # fmt: skip

        fields = [source, start, end, prompt, negative, variant, duration, steps, strength, seed, takes, loudness]
        outputs = [run, history, results, status, go, stop]
        gr.on(
            [go.click, prompt.submit, negative.submit], desk.generate, [history, *fields], outputs, js=RECALL, **quiet
        )
        blocks.load(desk.restore, history, outputs, js=RECALL, **quiet)
        history.change(None, history, None, js=REMEMBER)
        stop.click(desk.cancel, run, None, **quiet)
        gr.on(
            [source.upload, source.clear, source.delete], desk.look, source,
            [status, preview, start, end, duration], **quiet,
        )  # fmt: skip
        results.again(desk.again, None, [*fields, status, preview, duration], **quiet)
        dice.click(None, None, seed, js="() => Math.floor(Math.random() * 2 ** 31)")
        for slider in (start, end):  # the preview shows where the part begins or ends
            slider.input(None, slider, None, js=SHOW)
    return blocks


def labels(engine: Engine, infos: Sequence[VariantInfo]) -> list[tuple[str, str]]:
    """(text, name) of every variant that can be asked for."""
    facts = {
        info.name: f": {info.sample_rate / 1000:g} kHz, {info.parameters / 1e6:.0f}M, {info.weights}" for info in infos
    }
    return [(name + facts.get(name, ""), name) for name in engine.variants]


def asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text()


class OwnHostOnly:
    """Middleware: the page may ask no other host for anything, whatever a library would like to load."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *policy]
            await send(message)

        is_page = scope["type"] == "http" and scope["path"] == "/"
        await self.app(scope, receive, with_policy if is_page else send)


class Tidy:
    """Middleware: files of uploads that broke off, which gradio forgets, go as soon as no upload is under way."""

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder, self.uploads = app, folder, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != UPLOAD:
            return await self.app(scope, receive, send)
        self.uploads += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.uploads -= 1
            for left in self.folder.glob("tmp*") if self.uploads == 0 else ():  # whole ones have folders of their own
                left.unlink(missing_ok=True)


def mount(app: FastAPI, engine: Engine) -> None:
    """Put the page at the root of an app, under what the app has there already."""
    os.environ["GRADIO_TEMP_DIR"] = str(engine.folder / UPLOADS)  # the only way to say where it keeps uploads
    for left in (engine.folder / UPLOADS, *engine.folder.glob(f"{PARTS}*")):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    app.include_router(routes(engine))
    app.add_middleware(OwnHostOnly)
    app.add_middleware(Tidy, folder=engine.folder / UPLOADS)
    gr.mount_gradio_app(
        app, build(engine), "/", theme=THEME, css=asset("page.css"), footer_links=[], run_history=False,
        ssr_mode=False, max_file_size=MAX_UPLOAD,
    )  # fmt: skip

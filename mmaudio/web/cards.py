"""The parts of the page that change, as HTML: what is going on, and jobs with their takes. Texts may be anything."""

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from mmaudio.catalogue import VariantInfo
from mmaudio.jobs import file_safe
from mmaudio.media import MediaInfo, probe
from mmaudio.web.job import Job, State, Take
from mmaudio.web.pictures import video_kind

PARTS = {  # what is told -> the pipeline's stages in it
    "Read": ("load", "decode"),
    "Look": ("CLIP", "sync"),
    "Words": ("text", "conditions"),
    "Compose": ("solve",),
    "Sound": ("VAE", "vocoder"),
    "Write": ("write",),
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)  # seconds between marks
MAX_TICKS = 9


def progress(job: Job, before: int) -> str:
    """How far a job is that is not over; `before` others come first."""
    now = next((i for i, stages in enumerate(PARTS.values()) if job.stage in stages), 0)
    if job.state == State.QUEUED:
        title = "Next in the queue" if not before else f"Waiting: {before} before you"
    else:
        title = "Loading the model" if job.stage == "load" else list(PARTS)[now]
    begun = job.state == State.RUNNING
    states = ["done" if i < now else "now" if i == now and begun else "later" for i in range(len(PARTS))]
    stages = "".join(f'<li class="{state}">{part}</li>' for part, state in zip(PARTS, states, strict=True))
    return (
        f'<div class="progress"><p><span role="status">{title}</span><span>{job.progress:.0%}</span></p>'
        f'<progress max="1" value="{job.progress:.3f}" aria-label="progress"></progress><ol>{stages}</ol></div>'
    )


def message(text: str) -> str:
    return f'<p class="message" role="status">{escape(text)}</p>'


def failure(text: str) -> str:
    return f'<p class="message failure" role="alert">{escape(text)}</p>'


def source(path: str, info: MediaInfo) -> str:
    """A video or picture that was dropped on the page."""
    url = escape("gradio_api/file=" + quote(path))
    facts = f"{info.width} × {info.height}"
    if info.kind == "image":
        return f'<figure class="source"><img alt="your picture" src="{url}"><figcaption>{facts}</figcaption></figure>'
    length = "" if info.duration is None else f", {info.duration:.1f} s"
    return (
        f'<figure class="source"><video controls muted playsinline preload="metadata" aria-label="your video" '
        f'src="{url}"></video>'
        f"<figcaption>{facts}{length}</figcaption></figure>"
    )


def variants(infos: Iterable[VariantInfo]) -> str:
    """What can be had besides."""
    rows = "".join(
        f"<tr><td>{escape(info.name)}</td><td>{info.sample_rate / 1000:g} kHz</td><td>{info.parameters / 1e6:.0f}M</td>"
        f"<td><code>mmaudio download {escape(info.name)}</code></td></tr>"
        for info in infos
    )
    head = "<tr><th>name</th><th>rate</th><th>size</th><th>to install, then restart</th></tr>"
    return f'<div class="scrolls"><table>{head}{rows}</table></div>'


def card(job: Job) -> str:
    """A finished job: its words, what it was made with, and its takes beside each other."""
    ask, seconds = job.ask, probe(job.file(0, "wav")).duration
    facts = [ask.variant, f"{seconds:.1f} s", f"{ask.num_steps} steps", f"strength {ask.cfg_strength:g}"]
    if ask.lufs is not None:
        facts.append(f"{ask.lufs:g} LUFS")
    if ask.negative_prompt:
        facts.append(f"without: {ask.negative_prompt}")
    notes = "".join(f"<li>{escape(note)}</li>" for note in job.notes)
    takes = "".join(_take(job, number, take, seconds) for number, take in enumerate(job.takes))
    return (
        f'<section class="job" data-job="{job.id}"><h2>{escape(ask.prompt) or "Without words"}</h2>'
        f'<p class="facts">{escape(" · ".join(facts))}</p>{f"<ul>{notes}</ul>" if notes else ""}'
        f'<div class="takes">{takes}</div></section>'
    )


def _take(job: Job, number: int, take: Take, seconds: float) -> str:
    url, film, pictures = f"takes/{job.id}", "", video_kind(take.files)
    links = {kind: f"v1/generations/{job.id}/files/{name}" for kind, name in take.files.items()}
    label = f"take {number + 1}, seed {take.seed}"
    player = f'<audio controls preload="metadata" aria-label="{label}" src="{links["wav"]}"></audio>'
    if pictures is not None:
        media = f'preload="metadata" aria-label="{label}" src="{links[pictures]}"'
        player = f"<video controls playsinline {media}></video>"
    if job.ask.video is not None:
        film = f'<img loading="lazy" class="film" alt="frames of the video" src="{url}/film.jpg">'
    name = f"{file_safe(job.ask.prompt)}_{take.seed}"
    files = "".join(f'<a download="{name}.{kind}" href="{link}">{kind.upper()}</a>' for kind, link in links.items())
    return (
        f'<article class="take" aria-label="{label}">{player}'
        f'<div class="timeline">{film}<img loading="lazy" class="sound" alt="waveform and spectrogram" '
        f'src="{url}/{number}.png"><i class="playhead"></i></div>'
        f'<div class="ruler" aria-hidden="true">{_ruler(seconds)}</div>'
        f'<p class="seed">seed <b>{take.seed}</b></p><p class="files">{files}'
        f'<button type="button" class="again" data-take="{number}">More like this</button></p></article>'
    )


def _ruler(seconds: float) -> str:
    step = next((step for step in TICKS if seconds / step <= MAX_TICKS), TICKS[-1])
    marks = (i * step for i in range(int(seconds / step * 0.999) + 1))  # none at the very end, where it has no room
    return "".join(f'<span style="left:{100 * mark / seconds:.2f}%">{mark:g}</span>' for mark in marks)

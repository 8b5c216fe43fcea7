"""The pages of a study as HTML without scripts: what is asked works with a keyboard, on a phone and in the dark."""

from html import escape

from mmaudio.study.questions import HIGHEST, LOWEST, QUESTIONS, SCALE
from mmaudio.study.sheets import Sheet


def page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>' + escape(title) + "</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f'<link rel="stylesheet" href="/study.css"></head><body><main>{body}</main></body></html>'
    )


def welcome(videos: int, methods: int, token: str | None) -> str:
    """The first page; with the token of a participant whom the browser remembers."""
    again = f'<p><a href="/p/{token}">Go on where you stopped</a>, or begin as somebody else:</p>' if token else ""
    return page(
        "Listening study",
        f"<h1>Listening study</h1><p>You will see {videos} videos, one after the other, each with {methods} different "
        f"sounds. Of every sound you say how far you agree with {len(QUESTIONS)} statements. Headphones help. You can "
        "stop at any time and go on later: keep the address of the page that you are on.</p>"
        f'{again}<form method="post" action="/begin"><button>Begin</button></form>',
    )


def questionnaire(sheet: Sheet) -> str:
    sounds = "".join(_sound(place, media_id) for place, media_id in enumerate(sheet.media_ids, 1))
    title = f"Video {sheet.number} of {sheet.total}"
    return page(
        title,
        f'<h1>{title}</h1><progress max="{sheet.total}" value="{sheet.number - 1}" aria-label="progress"></progress>'
        f"<p>Play every sound, then say how far you agree: 1 is “{LOWEST}”, 5 is “{HIGHEST}”.</p>"
        f'<form method="post"><input type="hidden" name="video" value="{sheet.video_id}">'
        f'<div class="sounds">{sounds}</div><button>Send and go on</button></form>',
    )


def _sound(place: int, media_id: str) -> str:
    return (
        f'<section aria-label="Sound {place}"><h2>Sound {place}</h2>'
        f'<video controls playsinline preload="metadata" src="/media/{media_id}"></video>'
        + "".join(_question(f"{place}.{name}", statement) for name, statement in QUESTIONS.items())
        + "</section>"
    )


def _question(field: str, statement: str) -> str:
    choices = "".join(
        f'<label><input type="radio" name="{field}" value="{value}" required><span>{value}</span></label>'
        for value in SCALE
    )
    ends = f'<p class="ends"><span>{LOWEST}</span><span>{HIGHEST}</span></p>'
    return f'<fieldset><legend>{escape(statement)}</legend><div class="scale">{choices}</div>{ends}</fieldset>'


def thanks(videos: int) -> str:
    return page("Thank you", f"<h1>Thank you</h1><p>All {videos} videos are answered. You can close this page.</p>")


def refusal(text: str) -> str:
    return page("Not possible", f'<h1>Not possible</h1><p>{escape(text)}</p><p><a href="/">To the first page</a></p>')

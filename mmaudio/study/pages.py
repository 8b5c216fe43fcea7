"""The pages of a study as HTML without scripts: what is asked works with a keyboard, on a phone and in the dark."""

from collections.abc import Mapping
from html import escape

from mmaudio.study.questions import COMPARISONS, HIGHEST, LOWEST, NEITHER, QUESTIONS, SCALE
from mmaudio.study.sheets import Sheet, Study


def page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>' + escape(title) + "</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f'<link rel="stylesheet" href="/study.css"></head><body><main>{body}</main></body></html>'
    )


def welcome(study: Study, token: str | None) -> str:
    """The first page; with the token of a participant whom the browser remembers."""
    again = f'<p><a href="/p/{token}">Go on where you stopped</a>, or begin as somebody else:</p>' if token else ""
    if study.pairs:
        task = (
            f"You will see {len(study.pages)} pages, one after the other, each with two sounds of one video. You say "
            f"{len(COMPARISONS)} times which of them is better, or that there is {NEITHER}."
        )
    else:
        task = (
            f"You will see {len(study.pages)} videos, one after the other, each with {len(study.answers.methods)} "
            f"different sounds. Of every sound you say how far you agree with {len(QUESTIONS)} statements."
        )
    return page(
        "Listening study",
        f"<h1>Listening study</h1><p>{task} Headphones help. You can "
        "stop at any time and go on later: keep the address of the page that you are on.</p>"
        f'{again}<form method="post" action="/begin"><button>Begin</button></form>',
    )


def questionnaire(sheet: Sheet) -> str:
    """Every sound with its statements."""
    sounds = "".join(
        _sound(place, media_id, "".join(_statement(f"{place}.{name}", text) for name, text in QUESTIONS.items()))
        for place, media_id in enumerate(sheet.media_ids, 1)
    )
    task = f"Play every sound, then say how far you agree: 1 is “{LOWEST}”, 5 is “{HIGHEST}”."
    return _form(sheet, f"Video {sheet.number} of {sheet.total}", task, f'<div class="sounds">{sounds}</div>')


def comparison(sheet: Sheet) -> str:
    """Two sounds beside each other, and the questions below them."""
    sounds = "".join(_sound(place, media_id) for place, media_id in enumerate(sheet.media_ids, 1))
    choices = {"1": "Sound 1", "0": NEITHER.capitalize(), "2": "Sound 2"}
    questions = "".join(_choice(name, text, choices) for name, text in COMPARISONS.items())
    task = "Play both sounds, then say which is better."
    return _form(sheet, f"Pair {sheet.number} of {sheet.total}", task, f'<div class="sounds">{sounds}</div>{questions}')


def _form(sheet: Sheet, title: str, task: str, body: str) -> str:
    return page(
        title,
        f'<h1>{title}</h1><progress max="{sheet.total}" value="{sheet.number - 1}" aria-label="progress"></progress>'
        f'<p>{task}</p><form method="post"><input type="hidden" name="page" value="{sheet.page_id}">'
        f"{body}<button>Send and go on</button></form>",
    )


def _sound(place: int, media_id: str, questions: str = "") -> str:
    return (
        f'<section aria-label="Sound {place}"><h2>Sound {place}</h2>'
        f'<video controls playsinline preload="metadata" src="/media/{media_id}"></video>{questions}</section>'
    )


def _statement(field: str, text: str) -> str:
    ends = f'<p class="ends"><span>{LOWEST}</span><span>{HIGHEST}</span></p>'
    return _choice(field, text, {str(value): str(value) for value in SCALE}, ends)


def _choice(field: str, text: str, choices: Mapping[str, str], below: str = "") -> str:
    """A question with its answers, of which one must be chosen; `choices` are values and what is shown for them."""
    answers = "".join(
        f'<label><input type="radio" name="{field}" value="{value}" required><span>{shown}</span></label>'
        for value, shown in choices.items()
    )
    return f'<fieldset><legend>{escape(text)}</legend><div class="scale">{answers}</div>{below}</fieldset>'


def thanks(study: Study) -> str:
    what = "pairs" if study.pairs else "videos"
    return page(
        "Thank you", f"<h1>Thank you</h1><p>All {len(study.pages)} {what} are answered. You can close this page.</p>"
    )


def refusal(text: str) -> str:
    return page("Not possible", f'<h1>Not possible</h1><p>{escape(text)}</p><p><a href="/">To the first page</a></p>')

"""Who sees what in which order, under which blinded names, and what a filled-in page says."""

import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from mmaudio.study.answers import Answers
from mmaudio.study.methods import StudyError
from mmaudio.study.questions import COMPARISONS, QUESTIONS, SCALE


@dataclass(frozen=True)
class Sheet:
    """One page: a video with the sounds of all methods, or of two, called 1, 2, ... on the page."""

    page_id: str
    video: str  # its stem
    methods: tuple[str, ...]  # in the order of the page; the participant does not see them
    media_ids: tuple[str, ...]  # under which their files are served
    number: int  # from 1
    total: int


class Study:
    """Folders of methods and their answers. Orders follow from the participant's token, so nothing of them is kept.

    Ids are keyed hashes of the names: the same after a restart, and they tell nobody anything.

    Args:
        pairs: each page asks which of two methods is better, instead of ratings of all of them.
    """

    def __init__(self, methods: Mapping[str, Mapping[str, Path]], answers: Answers, pairs: bool = False):
        self.answers, self.pairs = answers, pairs
        self.media = {
            self._opaque(method, video): path for method, videos in methods.items() for video, path in videos.items()
        }
        groups = list(combinations(answers.methods, 2)) if pairs else [tuple(answers.methods)]
        self.pages = {
            self._opaque("page", video, *group): (video, group) for video in answers.videos for group in groups
        }

    def sheet(self, token: str) -> Sheet | None:
        """The first page that the participant has not answered; None if all are done."""
        if self.pairs:
            done = self.answers.compared(token)
        else:
            done = {(video, tuple(self.answers.methods)) for video in self.answers.answered(token)}
        left = [page for page in self._shuffled(list(self.pages), token) if self.pages[page] not in done]
        return self._sheet(token, left[0], len(self.pages) - len(left) + 1) if left else None

    def record(self, token: str, form: Mapping[str, Sequence[str]]) -> None:
        """Keep what was sent: the field `page`, and `K.QUESTION` for the K-th sound of that page.

        Of a pair there is `QUESTION` alone: 1 or 2 is the sound that is preferred, 0 neither.

        Raises:
            StudyError: the form is not of this study, or not filled in.
        """
        page = _only(form, "page")
        if page not in self.pages:
            raise StudyError("this page is not of this study; open your link again")
        sheet = self._sheet(token, page, 0)
        if self.pairs:
            self.answers.prefer(token, sheet.video, sheet.methods, _preferred(form, sheet.methods))
        else:
            self.answers.record(token, sheet.video, _ratings(form, sheet.methods))

    def _sheet(self, token: str, page: str, number: int) -> Sheet:
        video, group = self.pages[page]
        methods = tuple(self._shuffled(group, f"{token}/{page}"))
        media_ids = tuple(self._opaque(method, video) for method in methods)
        return Sheet(page, video, methods, media_ids, number, len(self.pages))

    def _shuffled(self, names: Sequence[str], what: str) -> list[str]:
        return random.Random(f"{self.answers.secret}/{what}").sample(names, len(names))

    def _opaque(self, *names: str) -> str:
        return hmac.new(self.answers.secret.encode(), "\0".join(names).encode(), hashlib.sha256).hexdigest()[:32]


def _ratings(form: Mapping[str, Sequence[str]], methods: Sequence[str]) -> dict[tuple[str, str], int]:
    ratings = {}
    for place, method in enumerate(methods, 1):
        for question in QUESTIONS:
            value = _only(form, f"{place}.{question}")
            if value not in map(str, SCALE):
                raise StudyError(f"sound {place} has no answer to one of the statements; go back and choose one")
            ratings[method, question] = int(value)
    return ratings


def _preferred(form: Mapping[str, Sequence[str]], methods: Sequence[str]) -> dict[str, str | None]:
    meant, preferred = {"1": methods[0], "2": methods[1], "0": None}, {}
    for question in COMPARISONS:
        value = _only(form, question)
        if value not in meant:
            raise StudyError("one of the questions has no answer; go back and choose one")
        preferred[question] = meant[value]
    return preferred


def _only(form: Mapping[str, Sequence[str]], field: str) -> str:
    values = form.get(field, ())
    return values[0] if len(values) == 1 else ""

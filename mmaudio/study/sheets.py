"""Who sees what in which order, under which blinded names, and what a filled-in page says."""

import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmaudio.study.answers import Answers
from mmaudio.study.methods import StudyError
from mmaudio.study.questions import QUESTIONS, SCALE


@dataclass(frozen=True)
class Sheet:
    """One page: a video with the sounds of all methods, called 1, 2, ... on the page."""

    video: str  # its stem
    video_id: str
    methods: tuple[str, ...]  # in the order of the page; the participant does not see them
    media_ids: tuple[str, ...]  # under which their files are served
    number: int  # from 1
    total: int


class Study:
    """Folders of methods and their answers. Orders follow from the participant's token, so nothing of them is kept.

    Ids are keyed hashes of the names: the same after a restart, and they tell nobody anything.
    """

    def __init__(self, methods: Mapping[str, Mapping[str, Path]], answers: Answers):
        self.answers = answers
        self.media = {
            self._opaque(method, video): path for method, videos in methods.items() for video, path in videos.items()
        }

    def sheet(self, token: str) -> Sheet | None:
        """The first video that the participant has not rated; None if all are done."""
        done = self.answers.answered(token)
        left = [video for video in self._shuffled(self.answers.videos, token) if video not in done]
        return self._sheet(token, left[0], len(done) + 1) if left else None

    def record(self, token: str, form: Mapping[str, Sequence[str]]) -> None:
        """Keep what was sent: the field `video`, and `K.QUESTION` for the K-th sound of that page.

        Raises:
            StudyError: the form is not of this study, or not filled in.
        """
        by_id = {self._opaque(video): video for video in self.answers.videos}
        video = by_id.get(_only(form, "video"))
        if video is None:
            raise StudyError("this page is not of this study; open your link again")
        ratings = {}
        for place, method in enumerate(self._sheet(token, video, 0).methods, 1):
            for question in QUESTIONS:
                value = _only(form, f"{place}.{question}")
                if value not in map(str, SCALE):
                    raise StudyError(f"sound {place} has no answer to one of the statements; go back and choose one")
                ratings[method, question] = int(value)
        self.answers.record(token, video, ratings)

    def _sheet(self, token: str, video: str, number: int) -> Sheet:
        methods = tuple(self._shuffled(self.answers.methods, f"{token}/{video}"))
        media_ids = tuple(self._opaque(method, video) for method in methods)
        return Sheet(video, self._opaque(video), methods, media_ids, number, len(self.answers.videos))

    def _shuffled(self, names: Sequence[str], what: str) -> list[str]:
        return random.Random(f"{self.answers.secret}/{what}").sample(names, len(names))

    def _opaque(self, *names: str) -> str:
        return hmac.new(self.answers.secret.encode(), "\0".join(names).encode(), hashlib.sha256).hexdigest()[:32]


def _only(form: Mapping[str, Sequence[str]], field: str) -> str:
    values = form.get(field, ())
    return values[0] if len(values) == 1 else ""

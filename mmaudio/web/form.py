"""What a page asks for, as its fields say it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mmaudio.inputs import DEFAULT_DURATION, MAX_WHOLE_CLIP, MIN_DURATION
from mmaudio.media import probe
from mmaudio.variants import Variant
from mmaudio.web import presets
from mmaudio.web.asks import MAX_VIDEO, Ask
from mmaudio.web.job import Job
from mmaudio.web.trim import cut

SLACK = 0.1  # seconds: sliders cannot say exactly how long a video is
TRIMMED = "trimmed.mp4"


@dataclass(frozen=True)
class Form:
    """The fields of the page, in its order."""

    source: str | None  # video or picture
    start: float | None = None  # seconds of a video
    end: float | None = None
    prompt: str = ""
    negative_prompt: str = ""
    variant: str = ""
    duration: float = DEFAULT_DURATION  # seconds, for pictures and words
    steps: int = 25
    strength: float = 4.5
    seed: int | None = 42
    takes: int = 1
    loudness: str = presets.AS_IT_COMES

    @classmethod
    def of(cls, job: Job) -> "Form":
        """What is known of an ask when its file is gone."""
        ask = job.ask
        names = (name for name, lufs in presets.LOUDNESS.items() if lufs == ask.lufs)
        return cls(
            None, prompt=ask.prompt, negative_prompt=ask.negative_prompt, variant=ask.variant,
            duration=ask.duration or DEFAULT_DURATION, steps=ask.num_steps, strength=ask.cfg_strength, seed=ask.seed,
            takes=ask.num_samples, loudness=next(names, presets.AS_IT_COMES),
        )  # fmt: skip

    def ask(self, variant: Variant, folder: Path, check: Callable[[], None]) -> Ask:
        """Of a video's part that cannot be had by a duration a copy is written into `folder`; `check` as in `cut`.

        Raises:
            ValueError, MediaError: it cannot be done.
        """
        if self.seed is None:
            raise ValueError("the seed is empty: type a number or roll the dice")
        ask = Ask(
            self.variant, prompt=self.prompt, negative_prompt=self.negative_prompt, num_steps=int(self.steps),
            cfg_strength=self.strength, seed=int(self.seed), num_samples=int(self.takes),
            lufs=presets.LOUDNESS[self.loudness],
        )  # fmt: skip
        if self.source is None:
            return replace(ask, duration=self.duration)
        info = probe(self.source)
        if info.kind == "image":
            return replace(ask, image=Path(self.source), duration=self.duration)
        ask = replace(ask, video=Path(self.source))
        start, end = self.start or 0.0, self.end or math.inf
        if info.kind != "video" or info.duration is None or (start <= 0 and end >= info.duration - SLACK):
            return ask
        if start <= 0 and end <= MAX_WHOLE_CLIP:
            return replace(ask, duration=end)
        end = min(end, info.duration)
        if end - start < MIN_DURATION:
            raise ValueError(f"the part is {max(end - start, 0):.1f} s long: move its start and end apart")
        if end - start > MAX_VIDEO:
            raise ValueError(f"the part is {end - start:.1f} s long: at most {MAX_VIDEO:g} s")
        replace(ask, duration=MIN_DURATION).check(variant)  # what does not depend on the part
        cut(ask.video, start, end, folder / TRIMMED, check)
        return replace(ask, video=folder / TRIMMED)

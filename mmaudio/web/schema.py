"""What the service takes and gives, as JSON; limits are those of `asks`."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mmaudio.inputs import MAX_DURATION
from mmaudio.web.asks import MAX_SEED, MAX_STEPS, MAX_STRENGTH, MAX_TAKES, MAX_TEXT, SOLVERS, Ask
from mmaudio.web.jobs import Job, State


class Options(BaseModel):
    """What is wanted. Words alone need a prompt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    variant: str | None = Field(None, max_length=200, description="A model of the server; null is its first.")
    prompt: str = Field("", max_length=MAX_TEXT)
    negative_prompt: str = Field("", max_length=MAX_TEXT)
    duration: float | None = Field(
        None, gt=0, le=MAX_DURATION, allow_inf_nan=False,
        description="Seconds; null is the length of the video, and 8 for pictures and words.",
    )  # fmt: skip
    num_steps: int = Field(25, ge=1, le=MAX_STEPS)
    cfg_strength: float = Field(4.5, ge=0, le=MAX_STRENGTH, allow_inf_nan=False, description="Guidance.")
    seed: int = Field(42, ge=0, le=MAX_SEED, description="Of the first take; take i has the seed plus i.")
    num_samples: int = Field(1, ge=1, le=MAX_TAKES, description="Takes.")
    solver: Literal[SOLVERS] = SOLVERS[0]
    mask_away_clip: bool = Field(False, description="Take only the timing from the video, not its content.")
    lufs: float | None = Field(None, ge=-70, le=0, allow_inf_nan=False, description="Loudness; null leaves it alone.")


class TakeReply(BaseModel):
    seed: int
    files: dict[str, str] = Field(description="Links by kind: flac, wav, and with pictures mp4 (or mkv).")


class Links(BaseModel):
    self: str
    events: str = Field(description="Server-sent events: this reply again at every change, until it is over.")


class Reply(BaseModel):
    """A generation: what was asked for, how far it is, and what came out."""

    id: str
    state: State
    stage: str = Field(description="Of the pipeline, once it runs.")
    progress: float = Field(ge=0, le=1)
    error: str | None = Field(description="Why it failed.")
    notes: list[str]
    options: Options
    created: datetime
    expires: datetime | None = Field(description="When the results are deleted, once it is over.")
    takes: list[TakeReply]
    links: Links


class Health(BaseModel):
    status: Literal["ok"]


class Problem(BaseModel):
    detail: str = Field(description="One line.")


def asked(options: Options, files: dict, default: str) -> Ask:
    return Ask(**{**options.model_dump(), "variant": options.variant or default}, **files)


def reply(job: Job, expire: float) -> Reply:
    link = f"/v1/generations/{job.id}"
    takes = [
        TakeReply(seed=take.seed, files={kind: f"{link}/files/{name}" for kind, name in take.files.items()})
        for take in job.takes
    ]
    return Reply(
        id=job.id,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        error=job.error or None,
        notes=job.notes,
        options=Options(**job.ask.settings()),
        created=moment(job.created),
        expires=None if job.ended is None else moment(job.ended + expire),
        takes=takes,
        links=Links(self=link, events=f"{link}/events"),
    )


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

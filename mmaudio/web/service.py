"""The HTTP service: generations are asked for, watched, fetched and cancelled under /v1."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from mmaudio.media import MediaError
from mmaudio.version import __version__
from mmaudio.web import uploads
from mmaudio.web.asks import told
from mmaudio.web.guard import Guard
from mmaudio.web.jobs import Engine, Job, NoSuchJob, QueueFull
from mmaudio.web.metrics import registry_of
from mmaudio.web.schema import Health, Options, Problem, Reply, asked, reply

LOOK = 0.2  # seconds between two looks at a job that is watched
PROBES = 2  # files that are looked at at once: a frame of each is in memory
ABOUT = """\
Sound for silent video. Send a video, a picture or words alone; watch the generation; fetch its takes.
Nothing is kept beyond its time of expiry.
"""
LASTING = {"Cache-Control": "private, max-age=86400, immutable", "X-Content-Type-Options": "nosniff"}
MEDIA_TYPES = {"flac": "audio/flac", "wav": "audio/wav", "mp4": "video/mp4", "mkv": "video/x-matroska"}


def problems(*codes: int) -> dict:
    """OpenAPI's words for refusals, which are JSON also where the reply is something else."""
    content = {"application/json": {"schema": Problem.model_json_schema()}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in codes}


def create_app(engine: Engine, token: str | None = None, hosts: tuple[str, ...] | None = None) -> FastAPI:
    """The service over an engine; whoever serves it closes the engine. `token` and `hosts` as in `Guard`."""
    incoming = engine.folder / "uploads"
    shutil.rmtree(incoming, ignore_errors=True)  # of a process that was killed
    incoming.mkdir()
    registry, probing, names = registry_of(engine), asyncio.Semaphore(PROBES), tuple(engine.variants)
    arriving: set[Request] = set()
    app = FastAPIOffline(
        title="mmaudio", version=__version__, description=ABOUT, redoc_url=None,
        responses=problems(401) if token else {}, dependencies=[Depends(HTTPBearer(auto_error=False))] if token else [],
    )  # fmt: skip
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.add_exception_handler(RequestValidationError, invalid)

    def find(id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Job:
        try:
            return engine.job(id)
        except NoSuchJob as error:
            raise HTTPException(404, "there is no such generation, or it has expired") from error

    Found = Annotated[Job, Depends(find)]

    @app.post(
        "/v1/generations", status_code=202, responses=problems(400, 403, 408, 413, 415, 422, 429, 507),
        openapi_extra={"requestBody": form_schema(names)},
    )  # fmt: skip
    async def generate(request: Request, response: Response) -> Reply:
        """Ask for a generation. It waits in a queue; the reply says where to look."""
        arriving.add(request)
        try:
            engine.check_room(len(arriving) - 1)  # before anything is read
            async with uploads.received(request, incoming) as form, probing:
                job = await asyncio.to_thread(engine.submit, asked(parsed(form.options), form.files, names[0]))
        except QueueFull as error:
            headers = {"Retry-After": str(error.retry_after), "Connection": "close"}
            raise HTTPException(429, str(error), headers) from error
        except (ValueError, MediaError) as error:
            raise HTTPException(422, told(error, incoming)) from error
        except OSError as error:
            raise uploads.refusal(507, f"no room for the file: {told(error, incoming)}") from error
        finally:
            arriving.discard(request)
        response.headers["Location"] = f"/v1/generations/{job.id}"
        return reply(job, engine.expire)

    @app.get("/v1/generations/{id}", responses=problems(404, 422))
    async def look(job: Found) -> Reply:
        """State, progress and results."""
        return reply(job, engine.expire)

    @app.get("/v1/generations/{id}/events", responses=problems(404, 422), response_class=EventSourceResponse)
    async def watch(job: Found) -> AsyncIterator[Reply]:
        """Server-sent events: the generation now and at every change; they end when it is over."""
        seen = -1
        while True:
            version, last = job.glance()
            if version != seen:
                yield reply(job, engine.expire)
            if last:
                return
            seen = version
            await asyncio.sleep(LOOK)

    @app.delete("/v1/generations/{id}", status_code=204, responses=problems(403, 404, 422))
    async def cancel(job: Found) -> None:
        """Cancel it, or delete its results if it is over."""
        engine.forget(job)

    @app.get(
        "/v1/generations/{id}/files/{name}", response_class=FileResponse,
        responses=problems(404, 422) | {200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}}},
    )  # fmt: skip
    async def fetch(job: Found, name: Annotated[str, Path(pattern=r"^[0-9]\.[a-z0-9]{3,4}$")]) -> FileResponse:
        """A result, by the links of the generation. Ranges are served."""
        path, kind = job.folder / name, name.partition(".")[2]
        if not any(name in take.files.values() for take in job.takes) or not path.is_file():
            raise HTTPException(404, "there is no such result")
        return FileResponse(path, headers=LASTING, media_type=MEDIA_TYPES[kind])

    @app.get("/healthz", responses=problems(503))
    async def health() -> Health:
        """Whether generations are being made."""
        if not engine.alive:
            raise HTTPException(503, "the server makes no generations now")
        return Health(status="ok")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def parsed(options: bytes) -> Options:
    """ValueError says in one line what is wrong with them."""
    try:
        return Options.model_validate_json(options or b"{}")
    except ValidationError as error:
        raise uploads.refusal(422, f"options: {one_line(error.errors())}") from error


def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": one_line(error.errors())}, 422)


def one_line(errors) -> str:
    """The first of pydantic's errors, without the value that was sent."""
    where = ".".join(str(part)[:80] for part in errors[0]["loc"])
    return " ".join(f"{where}: {errors[0]['msg']}".removeprefix(": ").split())


def form_schema(variants: tuple[str, ...]) -> dict:
    """OpenAPI's words for the form; FastAPI would have read it into memory to know them."""
    options = Options.model_json_schema()
    options["properties"]["variant"] |= {"enum": [*variants, None], "default": None}
    file = {"type": "string", "format": "binary"}
    properties = {"video": file, "image": file, "options": options}
    form = {"type": "object", "properties": properties, "additionalProperties": False}
    parts = {"options": {"contentType": "application/json"}}
    return {"required": True, "content": {"multipart/form-data": {"schema": form, "encoding": parts}}}

"""The pictures of takes, for whoever knows the id of their job."""

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from mmaudio.media import MediaError
from mmaudio.web import pictures
from mmaudio.web.jobs import Engine, NoSuchJob
from mmaudio.web.service import LASTING


def routes(engine: Engine) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/takes/{id}/film.jpg")
    def film(id: str) -> FileResponse:
        return sent(lambda: pictures.film(engine.job(id)), "image/jpeg")

    @router.get("/takes/{id}/{take:int}.png")
    def sound(id: str, take: int) -> FileResponse:
        return sent(lambda: pictures.sound(engine.job(id), take), "image/png")

    return router


def sent(find: Callable[[], Path], media_type: str) -> FileResponse:
    try:
        return FileResponse(find(), media_type=media_type, headers=LASTING)
    except (NoSuchJob, MediaError, OSError) as error:
        raise HTTPException(404, "there is no such take, or it has expired") from error

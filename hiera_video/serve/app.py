"""The ASGI application: the page, its data, and answers to uploaded videos."""

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hiera_video.serve.answer import (
    Analyst,
    Answer,
    CancelledError,
    RefusalError,
    Turnstile,
    Work,
    as_json,
    stopped,
)
from hiera_video.serve.folder import UploadFolder
from hiera_video.serve.guard import Guard
from hiera_video.serve.upload import Body, receive_video

TOP_K = 5
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
_MAX_NAME = 64
_GONE = 499  # the client has disconnected and never sees it


class Desk:
    """Receives a few uploads at a time and answers them one after another.

    Args:
        analyst: analyses the videos, in the one thread of `executor`.
        folder: holds each file until it is answered.
        max_bytes: the largest size of a video.
        max_waiting: number of uploads that may wait or be in transfer while one is answered.
        stopping: set when the server shuts down.
    """

    def __init__(
        self,
        analyst: Analyst,
        *,
        folder: UploadFolder,
        executor: Executor,
        max_bytes: int,
        max_waiting: int,
        stopping: Event,
    ) -> None:
        self.analyst = analyst
        self.max_bytes = max_bytes
        self._folder = folder
        self._executor = executor
        self._turnstile = Turnstile(1 + max_waiting)
        self._stopping = stopping
        self._works: dict[str, Work] = {}

    def is_stopping(self) -> bool:
        """Return whether the server is shutting down."""
        return self._stopping.is_set()

    def find(self, name: str) -> Work | None:
        """Return the work in progress that a client gave this name, if any."""
        return self._works.get(name)

    async def answer(self, body: Body, name: str = "") -> Answer:
        """Receive the video of a request and return its answer; `find` looks up `name`.

        Raises:
            RefusalError: the request is refused.
            ClientDisconnect: the client has disconnected.
        """
        self._turnstile.enter()
        work = Work(self._stopping)
        if name:
            self._works[name] = work
        try:
            with self._folder.new_file() as file:
                await receive_video(
                    body, file, max_bytes=self.max_bytes, is_stopping=self.is_stopping
                )
                return await self._analyse(file.name, body, work)
        finally:
            if self._works.get(name) is work:
                del self._works[name]
            self._turnstile.leave()

    async def _analyse(self, path: str, body: Body, work: Work) -> Answer:
        found = asyncio.wrap_future(self._executor.submit(self.analyst.analyse, path, work))
        gone = asyncio.ensure_future(body.gone())
        try:
            waited: set[asyncio.Future[Any]] = {found, gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not found.done():
                work.stop()
            return await found
        except CancelledError:
            if self.is_stopping():
                raise stopped() from None
            raise ClientDisconnect from None
        finally:
            work.stop()
            gone.cancel()


def make_app(
    desk: Desk, *, info: dict[str, Any], names: Sequence[str], only_loopback: bool
) -> Starlette:
    """Make the ASGI application.

    `info` is what `/info` returns to the page. `names` and `only_loopback` are passed to `Guard`.
    """
    pages = [Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()]
    return Starlette(
        routes=[
            *pages,
            Route("/health", partial(_health, desk, info["model"]), methods=["GET"]),
            Route("/info", partial(_info, info), methods=["GET"]),
            Route("/progress", partial(_progress, desk), methods=["GET"]),
            Route("/predict", partial(_predict, desk), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, names=names, only_loopback=only_loopback)],
        exception_handlers={HTTPException: _http_error, Exception: _bug},
    )


def _file(name: str, kind: str) -> Any:
    content = (_PAGE / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _health(desk: Desk, model: str, request: Request) -> Response:
    is_ready = not desk.is_stopping()
    return _json({"model": model, "ready": is_ready}, 200 if is_ready else 503)


async def _info(info: dict[str, Any], request: Request) -> Response:
    return _json(info)


async def _progress(desk: Desk, request: Request) -> Response:
    work = desk.find(request.query_params.get("name", ""))
    done, total = (work.done, work.total) if work else (0, 0)
    return _json({"windows_done": done, "windows": total})


async def _predict(desk: Desk, request: Request) -> Response:
    body = Body(request)
    try:
        try:
            found = await desk.answer(body, request.query_params.get("name", "")[:_MAX_NAME])
        except RefusalError:
            if not desk.is_stopping():
                await body.throw_away(desk.max_bytes)
            raise
    except RefusalError as refusal:
        return _error(refusal.status, refusal.reason)
    except ClientDisconnect:
        return Response(status_code=_GONE)
    except asyncio.CancelledError:  # the server's grace period is over
        if not desk.is_stopping():
            raise
        return Response(status_code=_GONE)
    return _json(as_json(found, desk.analyst.predictor, top_k=TOP_K))


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    reasons = {
        404: "There is no such page here. Try /.",
        405: "POST a video to /predict; everything else is GET.",
    }
    return _error(status, reasons.get(status, str(getattr(error, "detail", "")) + "."))


async def _bug(request: Request, error: Exception) -> Response:
    return _error(500, "The server failed; its log holds the error.")


def _json(content: dict[str, Any], status: int = 200) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # A lone surrogate (of a file name that is not text) becomes an escape that JSON can read.
    content_bytes = f"{text}\n".encode("utf-8", "backslashreplace")
    return Response(content_bytes, status, media_type="application/json")


def _error(status: int, reason: str) -> Response:
    # The connection may still hold the rest of an unread body.
    headers = {"Connection": "close"} | ({"Retry-After": "5"} if status == 503 else {})
    return JSONResponse({"error": reason}, status, headers)

"""Serve a web page for trying a model: `Service(predictor, settings).run()`.

A video dropped on the page is written to a private folder, decoded in a separate process, scored
in windows, and removed. docs/serve.md lists the protections.
"""

import errno
import ipaddress
import logging
import math
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Event, Timer
from typing import Any

from hiera_video.inference.predictor import Predictor
from hiera_video.inference.windows import make_grid
from hiera_video.utils.errors import UserError
from hiera_video.version import __version__

_EXTRA = "pip install -e '.[serve]'"
# Least number of windows for a short video, so that its scores visibly change over time.
_LEAST_WINDOWS = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server.

    Args:
        host, port: the address to listen at; port 0 picks a free one.
        max_upload_mb: the largest size of a video, in 10^6 bytes.
        max_waiting: number of uploads that may wait while one is answered.
        max_windows: the most windows of a video; those of a longer video lie further apart.
        deadline_sec: the longest that decoding may take.
        every_sec, window_sec: as for `make_grid`.
        allow_hosts: host names of this server besides its addresses, "localhost" and `host`.
        grace_sec: how long requests may continue after SIGTERM.
        access_log: called with a line for each request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_upload_mb: float = 200.0
    max_waiting: int = 4
    max_windows: int = 60
    deadline_sec: float = 60.0
    every_sec: float | None = None
    window_sec: float | None = None
    allow_hosts: Sequence[str] = ()
    grace_sec: float = 30.0
    access_log: Callable[[str], None] | None = None


class Service:
    """A server that listens once constructed and answers requests while `run` runs.

    Raises:
        UserError: a setting is invalid, the address is not available, the model's outputs are not
            finite, or a package is not installed.
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        check_settings(settings)
        import uvicorn

        from hiera_video.serve.answer import Analyst
        from hiera_video.serve.app import Desk, make_app
        from hiera_video.serve.folder import UploadFolder
        from hiera_video.serve.http_server import AccessLog, Connection

        grid = make_grid(
            predictor.cfg, every_sec=settings.every_sec, window_sec=settings.window_sec
        )
        self._stopping = Event()
        with ExitStack() as stack:
            listening = stack.enter_context(_listen(settings.host, settings.port))
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self.url = f"http://{shown}:{port}"
            self.folder = stack.enter_context(UploadFolder())
            self.analyst = stack.enter_context(
                Analyst(
                    predictor,
                    grid,
                    least_windows=_LEAST_WINDOWS if settings.every_sec is None else 1,
                    max_windows=settings.max_windows,
                    deadline_sec=settings.deadline_sec,
                )
            )
            self.analyst.warm_up()
            executor = stack.enter_context(ThreadPoolExecutor(1, "hiera_video serve"))
            stack.callback(self._stopping.set)
            desk = Desk(
                self.analyst,
                folder=self.folder,
                executor=executor,
                max_bytes=int(settings.max_upload_mb * 1e6),
                max_waiting=settings.max_waiting,
                stopping=self._stopping,
            )
            app = make_app(
                desk,
                info=describe(predictor, settings, window_sec=grid.window_sec),
                names=[settings.host, *settings.allow_hosts],
                only_loopback=is_local(settings.host),
            )
            log = settings.access_log or (lambda line: None)
            config = _server_config(
                uvicorn,
                AccessLog(app, log),
                connection=partial(Connection, log=log),
                grace_sec=settings.grace_sec,
            )
            self._server = uvicorn.Server(config)
            self._grace_sec = settings.grace_sec
            self._sockets = [listening]
            self._stack = stack.pop_all()

    def run(self) -> None:
        """Answer requests until `stop`, or until Ctrl-C or SIGTERM in the main thread."""
        # Replaces uvicorn's handler, which raises the signal again once the server has ended.
        self._server.handle_exit = self._on_signal
        self._server.run(sockets=self._sockets)

    def stop(self, *, grace_sec: float = 0.0) -> None:
        """Make `run` return: refuse new requests and cancel running ones after `grace_sec`.

        This method is thread-safe.
        """
        self._server.should_exit = True
        if not grace_sec:
            self._stopping.set()
            return
        timer = Timer(grace_sec, self._stopping.set)
        timer.daemon = True
        timer.start()
        self._stack.callback(timer.cancel)

    def close(self) -> None:
        """End the processes, remove the folder of uploads, and release the address."""
        self._stack.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._server.should_exit:  # this is the second signal
            self._server.force_exit = True
        is_first_term = number == signal.SIGTERM and not self._server.should_exit
        self.stop(grace_sec=self._grace_sec if is_first_term else 0.0)


def check_settings(settings: Settings) -> None:
    """Raise a UserError if a setting is invalid or a package is not installed."""
    if not 0 <= settings.port <= 65535:
        raise UserError(f"--port must be 0 to 65535, got {settings.port}. Try 8000.")
    for name, value in (
        ("--max-upload-mb", settings.max_upload_mb),
        ("--decode-timeout-sec", settings.deadline_sec),
    ):
        if not 0 < value < math.inf:
            raise UserError(f"{name} must be above 0, got {value:g}. Try 100.")
    if not 0 <= settings.grace_sec < math.inf:
        raise UserError(f"--grace-sec must be at least 0, got {settings.grace_sec:g}. Try 30.")
    for name, number, least in (
        ("--max-windows", settings.max_windows, 1),
        ("--max-waiting", settings.max_waiting, 0),
    ):
        if number < least:
            raise UserError(f"{name} must be at least {least}, got {number}. Try 4.")
    _import_uvicorn()


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server that listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def describe(predictor: Predictor, settings: Settings, *, window_sec: float) -> dict[str, Any]:
    """Return what the page shows: the model, its classes, and the limits."""
    return {
        "model": predictor.cfg.MODEL.MODEL_NAME,
        "class_names": list(predictor.class_names),
        "max_upload_mb": settings.max_upload_mb,
        "max_windows": settings.max_windows,
        "window_sec": round(window_sec, 3),
        "is_local": is_local(settings.host),
        "version": __version__,
    }


def _import_uvicorn() -> Any:
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"the web page needs starlette, uvicorn and python-multipart ({error}). Try {_EXTRA}."
        ) from None
    return uvicorn


def _server_config(uvicorn: Any, app: Any, *, connection: Any, grace_sec: float) -> Any:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Errors in a client's form go to the client, not to the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    return uvicorn.Config(
        app,
        http=connection,  # pure Python: the same implementation on every installation
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(grace_sec) + 5,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host must be an address or a name of this machine, got {host!r} "
            f"({getattr(error, 'strerror', None) or error}). Try 127.0.0.1."
        ) from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port must be free, got {port}, where another process listens. Try "
                f"--port {port + 1 if port < 65535 else 8000}, or 0 for any free one."
            ) from None
        raise UserError(
            f"--host and --port must be where this process may listen, got {host}:{port} "
            f"({error.strerror}). Try 127.0.0.1 and 8000."
        ) from None
    return listening

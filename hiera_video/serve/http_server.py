"""Add to uvicorn deadlines and limits for connections, and an access log.

Imported only where the extra `serve` is installed.
"""

import http
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

# Called with each line of the access log.
Log = Callable[[str], None]

# Key of scope["state"] that marks a request whose client has too many connections.
CROWDED = "crowded"


class Connection(H11Protocol):
    """A connection with a deadline for its request and a limit on the number of connections.

    A connection without a request in progress is closed after `HEADER_SEC`. Above
    `MAX_CONNECTIONS` in total, or `MAX_PER_CLIENT` from one address, the client with the most
    idle connections loses the one that has been idle longest. If no connection is idle, the new
    request is marked with `CROWDED`.
    """

    app_state: dict[str, Any]  # of H11Protocol

    HEADER_SEC = 10.0
    MAX_CONNECTIONS = 64
    MAX_PER_CLIENT = 16

    def __init__(self, *args: Any, log: Log, **more: Any) -> None:
        super().__init__(*args, **more)
        self._log = log
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Start the deadline and close an idle connection if there are too many."""
        super().connection_made(transport)
        self._watch()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Handle received data; restart or stop the deadline."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Start the deadline of the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._stop_watch()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer data that is not HTTP."""
        self._write_line(400)
        super().send_400_response(msg)

    @property
    def host(self) -> str:
        """The client's address, or that of the proxy it comes through."""
        return self.client[0] if self.client else ""

    def is_waiting(self) -> bool:
        """Return whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self.is_waiting() or self.transport.is_closing():
            self._stop_watch()
        elif self._deadline is None:
            self._waits_since = self.loop.time()
            self._deadline = self.loop.call_later(self.HEADER_SEC, self._end_late)

    def _stop_watch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _make_room(self) -> None:
        there = [one for one in self.connections if not one.transport.is_closing()]
        mine = [one for one in there if one.host == self.host]
        for group, most in ((mine, self.MAX_PER_CLIENT), (there, self.MAX_CONNECTIONS)):
            if len(group) <= most:
                continue
            waiting = [one for one in group if one is not self and one.is_waiting()]
            if not waiting:
                self.app_state = {**self.app_state, CROWDED: True}
                return
            hosts = Counter(one.host for one in waiting)
            min(waiting, key=lambda one: (-hosts[one.host], one._waits_since))._end(503)
            return

    def _end_late(self) -> None:
        self._deadline = None
        if self.is_waiting() and not self.transport.is_closing():
            self._end(408)

    def _end(self, status: int) -> None:
        if self.conn.trailing_data[0]:  # a request has begun; otherwise no answer is expected
            self._write_line(status)
            reason = http.HTTPStatus(status).phrase
            lines = (
                f"HTTP/1.1 {status} {reason}",
                "Connection: close",
                "Content-Length: 0",
                "",
                "",
            )
            self.transport.write("\r\n".join(lines).encode())
        self.transport.close()
        if self.transport.get_write_buffer_size():  # the client does not read
            self.transport.abort()

    def _write_line(self, status: int) -> None:
        self._log(access_line(self.host, "-", status, num_bytes=0, elapsed_sec=0.0))


class AccessLog:
    """ASGI middleware that calls `log` with a line for each finished request.

    It answers a request that `Connection` marked with `CROWDED` with 503.
    """

    def __init__(self, app: Any, log: Log) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = num_bytes = 0
        began = time.monotonic()

        async def send_counted(message: Any) -> None:
            nonlocal status, num_bytes
            status = message.get("status", status)
            num_bytes += len(message.get("body", b""))
            await send(message)

        try:
            if scope.get("state", {}).get(CROWDED):
                answer = JSONResponse(
                    {"error": "Too many connections from your address. Try again in a while."},
                    503,
                    {"Connection": "close", "Retry-After": "5"},
                )
                await answer(scope, receive, send_counted)
            else:
                await self._app(scope, receive, send_counted)
        finally:
            target = scope.get("raw_path", b"").decode("latin-1")
            if scope["query_string"]:
                target += "?" + scope["query_string"].decode("latin-1")
            self._log(
                access_line(
                    (scope.get("client") or ("",))[0],
                    f"{scope['method']} {target} HTTP/{scope['http_version']}",
                    status or 500,
                    num_bytes=num_bytes,
                    elapsed_sec=time.monotonic() - began,
                )
            )


def access_line(
    client: str, request: str, status: int, *, num_bytes: int, elapsed_sec: float
) -> str:
    r"""Return a line in the Common Log Format, with the seconds appended.

    Clients control `request`, and `client` through a proxy's header. So quotes, backslashes and
    everything but printable ASCII are escaped in them as `\xNN`.
    """
    when = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    who = _plain(client).replace(" ", "\\x20") or "-"
    return f'{who} - - [{when}] "{_plain(request)}" {status} {num_bytes} {elapsed_sec:.3f}'


def _plain(text: str) -> str:
    return "".join(
        letter
        if " " <= letter <= "~" and letter not in '"\\'
        else "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
        for letter in text
    )

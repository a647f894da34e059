"""Who may talk to the web page's server, and what its pages may do.

A page of elsewhere, open in the same browser, must get nothing out of a server on this machine, nor
set it to work. So the Host header must be ours (a foreign name that its owner points to 127.0.0.1
is not), requests that a foreign page makes are refused, and no header lets one read an answer.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

HEADERS = {
    # Nothing but what this server sends; the video plays from the browser's own memory (blob:).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, and adds `HEADERS` to every answer.

    `names` are host names that are allowed beside addresses; with `only_loopback`, of addresses
    only those of this machine itself are.
    """

    def __init__(self, app: Any, *, names: Iterable[str], only_loopback: bool) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names) | {"localhost"}
        self._only_loopback = only_loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._reason_against(scope["method"], Headers(scope=scope))
        app = JSONResponse({"error": reason}, 403, {"Connection": "close"}) if reason else self._app
        await app(scope, receive, send_guarded)

    def _reason_against(self, method: str, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                "This server does not go by the name in the Host header. Try its address, or start "
                "it with --allow-host NAME."
            )
        origin = headers.get("origin")
        if origin is not None and origin.split("://", 1)[-1].lower() != host.lower():
            return "Requests of other pages are refused."
        foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if foreign and method not in ("GET", "HEAD"):
            return "Requests of other pages are refused."
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if host.count("@") or name in self._names:
                return name in self._names and "@" not in host
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._only_loopback

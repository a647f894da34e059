"""Protect the server against pages of other sites that are open in the same browser.

Such a page must not read anything from a server on this machine, nor make it work. So the Host
header must name this server; that stops DNS rebinding, where a foreign name is pointed to
127.0.0.1. Requests from foreign pages are refused, and no CORS header lets them read an answer.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

HEADERS = {
    # Only files from this server. The video plays from the browser's own memory (blob:).
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
    """ASGI middleware that refuses foreign hosts and origins and adds `HEADERS` to every answer.

    `names` are the host names that are allowed besides IP addresses. With `only_loopback`, only
    loopback addresses are allowed.
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
                "The Host header must be a name or address of this server. Try its address, or "
                "start it with --allow-host NAME."
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

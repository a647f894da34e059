"""Fetch a URL, only completely and above a minimum rate; fetch nothing if the copy is current.

urllib alone waits forever for a server that sends a byte now and then. It accepts a partial
response (206) as the whole file, and cannot tell a truncated body from a short one.
"""

import io
import multiprocessing
import os
import string
import time
from collections.abc import Callable, Mapping
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from tqdm import tqdm

# Timeout for a server that sends nothing, and for each address that does not answer.
STALL_SEC = 15.0
# Fewer bytes than this in a window also abort the fetch: 10 kB a second.
WINDOW_SEC, WINDOW_BYTES = 30.0, 300_000
_BLOCK_BYTES = 1 << 20
# Headers that state the version of a file -> headers that ask for a newer one (RFC 9110, section
# 13).
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class RefusedError(OSError):
    """The server says that it does not have the file."""


class Pace:
    """Raise TimeoutError if fewer than WINDOW_BYTES arrive in WINDOW_SEC of waiting."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._waited_sec = 0.0

    def read(self, read: Callable[[], Any], size_of: Callable[[Any], int] = len) -> Any:
        """Call `read`, which waits for the server, and return its result."""
        began = time.monotonic()
        found = read()
        self._waited_sec += time.monotonic() - began
        self._num_bytes += size_of(found)
        if self._waited_sec >= WINDOW_SEC:
            if self._num_bytes < WINDOW_BYTES:
                raise TimeoutError(
                    f"too slow: {self._num_bytes} bytes came in {self._waited_sec:.0f} seconds"
                )
            self._num_bytes, self._waited_sec = 0, 0.0
        return found


class _PacedSocket(io.RawIOBase):
    # Also measures the headers, which a server may send one byte at a time.

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._pace = Pace()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._pace.read(lambda: self._raw.readinto(buffer), lambda n: n or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_PacedSocket(self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Handler(HTTPHandler):
    def http_open(self, req: Request) -> Any:
        return self.do_open(_Connection, req)


class _SecureHandler(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        return self.do_open(_SecureConnection, req)


@cache
def _opener() -> OpenerDirector:
    return build_opener(_Handler, _SecureHandler)


def fetch(url: str, file: IO[bytes], known: Mapping[str, str]) -> dict[str, str] | None:
    """Download `url` into `file` and return its version, which is `known` in the next call.

    `known` is the version of the local copy ({}: there is none, or it may be incomplete). If the
    server says that this version is current, writes nothing and returns None. The version is {} if
    the server states none. It is also {} if the server states no length, since a truncated body
    could then not be detected.

    Raises:
        OSError: The file does not exist, or arrived incomplete, encoded or too slowly. HTTPError
            for an HTTP status.
    """
    try:
        # Quote characters that a URL cannot hold, as browsers do. Quoted ones stay unchanged.
        request = Request(quote(url, safe=string.punctuation))
        for name, version in known.items():
            request.add_header(_CONDITIONS[name], version)
        with _opener().open(request, timeout=STALL_SEC) as answer:
            return _receive(answer, file, os.path.basename(url.partition("?")[0]))
    except HTTPError as error:
        error.close()
        if error.code == 304 and known:
            return None
        raise
    except HTTPException as error:
        raise OSError(f"it broke off: {error}") from None
    except (ValueError, LookupError) as error:  # urllib's exceptions for an invalid URL
        raise OSError(f"it is no URL that can be asked: {error}") from None


def _receive(answer: Any, file: IO[bytes], name: str) -> dict[str, str]:
    if answer.status not in (200, None):  # None: ftp has no status
        raise OSError(f"the server answered with status {answer.status}, not 200")
    coding = answer.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise OSError(f"the server sent it encoded ({coding}), which was not asked for")
    is_chunked = bool(getattr(answer, "chunked", False))
    length = None if is_chunked else answer.headers.get("Content-Length")
    if length is not None and not (length.isascii() and length.isdigit()):
        raise OSError(f"its Content-Length must be a number, got {length[:40]!r}")
    total = None if length is None else int(length)
    copy_paced(answer.read1, file, total=total, name=name)
    if file.tell() == 0 or total not in (None, file.tell()):
        raise OSError(f"it broke off after {file.tell()} of {total or 'unknown'} bytes")
    if total is None and not is_chunked:
        return {}
    return {key: answer.headers[key] for key in _CONDITIONS if answer.headers.get(key)}


def copy_paced(
    read: Callable[[int], bytes], file: IO[bytes], *, total: int | None, name: str
) -> None:
    """Copy from `read` to `file` with a progress bar. Raises TimeoutError if it is too slow."""
    pace = Pace()
    # Show one bar at a terminal, but none in loader processes.
    no_bar = True if multiprocessing.parent_process() else None
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=no_bar) as bar:
        while block := pace.read(lambda: read(_BLOCK_BYTES)):
            file.write(block)
            bar.update(len(block))

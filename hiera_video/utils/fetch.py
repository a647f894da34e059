"""Fetch a URL, only completely and above a minimum rate; fetch nothing if the copy is current.

urllib alone waits without end for a server that sends a byte now and then, takes a part (206) for
the whole, and cannot tell a truncated body from a short one.
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

# Time-out for a server that sends nothing, and for each address that does not answer.
STALL_SEC = 15.0
# Fewer bytes than this in a window also abort the fetch: 10 kB a second.
WINDOW_SEC, WINDOW_BYTES = 30.0, 300_000
_BLOCK_BYTES = 1 << 20
# What a server says of a version of a file, and how to ask for a newer one (RFC 9110, section 13).
_CONDITIONS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class RefusedError(OSError):
    """The server says that it has no such file."""


class Pace:
    """Counts what arrives; raises TimeoutError below WINDOW_BYTES in WINDOW_SEC of waiting."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._waited_sec = 0.0

    def read(self, read: Callable[[], Any], size_of: Callable[[Any], int] = len) -> Any:
        """Return what `read` does, which waits for the server."""
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
    # Below the headers too: a server may send those a byte at a time.

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
    """Write what `url` holds to `file`; return what tells its version, to be `known` next time.

    `known` is the version of a copy at hand ({}: there is none, or none that is sure to be whole).
    Returns None, and writes nothing, if the server says that it is current. A version is {} if the
    server states none, or no length, so that a body that was cut could not be told from a whole
    one.

    Raises:
        OSError: it is not there, came in part or encoded, or too slowly (HTTPError for a status).
    """
    try:
        # Letters that no URL may hold, as browsers do it; what is quoted already stays.
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
    except (ValueError, LookupError) as error:  # what is no URL, in urllib's many words
        raise OSError(f"it is no URL that can be asked: {error}") from None


def _receive(answer: Any, file: IO[bytes], name: str) -> dict[str, str]:
    if answer.status not in (200, None):  # None: ftp has none
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
    """Copy from `read` to `file`, behind a bar; raises TimeoutError for what comes too slowly."""
    pace = Pace()
    # One bar for people at a terminal, none from each of many loader processes.
    no_bar = True if multiprocessing.parent_process() else None
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=no_bar) as bar:
        while block := pace.read(lambda: read(_BLOCK_BYTES)):
            file.write(block)
            bar.update(len(block))

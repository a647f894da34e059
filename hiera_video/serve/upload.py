"""Write the video file of a form (multipart/form-data) to the disk while it arrives.

Size, file type and form are checked during the upload. Of the client's file name, only its presence
matters.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from hiera_video.data.decoders._container import HEAD_BYTES, wrong_beginning
from hiera_video.serve.answer import RefusalError, stopped

FIELD = "video"
_HOW = f"Try curl -F {FIELD}=@x.mp4."
# An upload is aborted if it is idle for _IDLE_SEC, takes _WHOLE_SEC in total, or falls _IDLE_SEC
# behind the minimum rate. Otherwise a client that sends a byte now and then would block others.
_IDLE_SEC, _WHOLE_SEC = 30.0, 900.0
_LEAST_BYTES_PER_SEC = 16_000
_OTHER_BYTES = 64 * 1024  # what a form may hold besides the video
# After a refusal this much of the rest is read and discarded: a client that is still sending when
# the connection closes does not see the answer.
_LINGER_SEC, _LINGER_BYTES = 4.0, 16_000_000
_POLL_SEC = 0.25
# File types by the client's content type, for messages.
_TYPES = {
    "application/json": "JSON",
    "application/pdf": "a PDF document",
    "application/zip": "a zip archive",
    "application/x-msdownload": "a program",
}


class Body:
    """The body of a request, piece by piece, and then the client's disconnect."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self.headers = request.headers
        self._more = True

    async def next(self) -> bytes | None:
        """Return the next piece, or None at the end.

        Raises:
            ClientDisconnect: the client has disconnected.
        """
        if not self._more:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def throw_away(self, at_least_bytes: int) -> None:
        """Read and discard the rest for a short while, unless the client asks before sending."""
        if self.headers.get("expect", "").lower() == "100-continue":
            return
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._skip(max(at_least_bytes, _LINGER_BYTES)), _LINGER_SEC)

    async def gone(self) -> None:
        """Return when the client disconnects; call it after reading the body."""
        await self._receive()

    async def _skip(self, num_bytes: int) -> None:
        while num_bytes > 0 and (piece := await self.next()) is not None:
            num_bytes -= len(piece)


async def receive_video(
    body: Body, file: IO[bytes], *, max_bytes: int, is_stopping: Callable[[], bool]
) -> None:
    """Write the form's video to `file`; abort if `is_stopping()` says that the server shuts down.

    Raises:
        RefusalError: the form is broken, holds no video, or holds one above `max_bytes`.
        ClientDisconnect: the client has disconnected.
    """
    form = VideoForm(body.headers.get("content-type", ""), file, max_bytes=max_bytes)
    form.expect(body.headers.get("content-length", ""))
    began = time.monotonic()
    num_bytes = 0
    while True:
        behind_at = began + _IDLE_SEC + num_bytes / _LEAST_BYTES_PER_SEC
        wait_until = min(time.monotonic() + _IDLE_SEC, behind_at, began + _WHOLE_SEC)
        piece = await _next_in_time(body, wait_until, is_stopping)
        if piece is None:
            break
        num_bytes += len(piece)
        form.write(piece)
    form.finish()


async def _next_in_time(
    body: Body, wait_until: float, is_stopping: Callable[[], bool]
) -> bytes | None:
    coming = asyncio.ensure_future(body.next())
    try:
        while True:
            if time.monotonic() > wait_until:
                raise RefusalError(408, "The upload stalled or was too slow.")
            if (await asyncio.wait({coming}, timeout=_POLL_SEC))[0]:
                break
            if is_stopping():
                raise stopped()
        return coming.result()
    finally:
        coming.cancel()


class VideoForm:
    """The state of a form during the upload; raises RefusalError at the first fault.

    `content_type` is the request's. At most `max_bytes` of video are written to `file`.
    """

    def __init__(self, content_type: str, file: IO[bytes], *, max_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise RefusalError(
                415, f"The video must come as a form, multipart/form-data, in {FIELD!r}. {_HOW}"
            )
        self._file = file
        self._max_bytes = max_bytes
        self._video_bytes, self._all_bytes = 0, 0
        self._head = b""
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._is_video = self._has_video = self._is_whole = False
        callbacks: Any = {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError:
            raise self._broken() from None

    def expect(self, content_length: str) -> None:
        """Refuse a form whose Content-Length is too large."""
        if content_length.isdigit() and int(content_length) > self._max_bytes + _OTHER_BYTES:
            raise self._too_large()

    def write(self, chunk: bytes) -> None:
        """Parse the next piece of the form."""
        self._all_bytes += len(chunk)
        if self._all_bytes > self._max_bytes + _OTHER_BYTES:
            raise self._too_large()
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise self._broken() from None
        except OSError as error:
            raise RefusalError(
                507, f"The server has no room for the video ({error.strerror or error})."
            ) from None
        if self._all_bytes - self._video_bytes > _OTHER_BYTES:  # perhaps a file in another field
            raise self._no_file()

    def finish(self) -> None:
        """Refuse the form if it ended early or holds no video."""
        if not self._is_whole:
            raise self._broken()
        if not self._has_video:
            raise self._no_file()

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") != FIELD.encode():
            return
        if b"filename" not in options:
            raise RefusalError(400, f"The field {FIELD!r} must be a file, got text. {_HOW}")
        if self._has_video:
            raise RefusalError(400, "The form must hold one video, got several.")
        kind = _wrong_type(self._headers.get(b"content-type", b"").decode("latin-1"))
        if kind:
            raise self._no_video(kind)
        self._is_video = self._has_video = True

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_video:
            return
        self._video_bytes += end - start
        if self._video_bytes > self._max_bytes:
            raise self._too_large()
        piece = data[start:end]
        if len(self._head) < HEAD_BYTES:
            self._head += piece[:HEAD_BYTES]
            if len(self._head) >= HEAD_BYTES:
                self._check_head()
        self._file.write(piece)

    def _end_part(self) -> None:
        if not self._is_video:
            return
        self._is_video = False
        if not self._video_bytes:
            raise RefusalError(400, "The file is empty (0 bytes).")
        self._check_head()

    def _end(self) -> None:
        self._is_whole = True

    def _check_head(self) -> None:
        if kind := wrong_beginning(self._head):
            raise self._no_video(kind)

    def _too_large(self) -> RefusalError:
        size = f"{self._max_bytes / 1e6:g} MB"
        return RefusalError(413, f"The file is too large: this server takes up to {size}.")

    def _no_file(self) -> RefusalError:
        return RefusalError(
            400, f"The form must hold a file in its field {FIELD!r}, and little else. {_HOW}"
        )

    def _no_video(self, kind: str) -> RefusalError:
        return RefusalError(415, f"This file is {kind}, not a video.")

    def _broken(self) -> RefusalError:
        return RefusalError(400, "The upload is incomplete or damaged. Try again.")


def _wrong_type(content_type: str) -> str:
    """Return the type of file that a content type names, "" if it may be a video."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind in _TYPES:
        return _TYPES[kind]
    room = kind.split("/", 1)[0]
    if room == "image" and kind not in ("image/gif", "image/apng"):
        return "a picture"
    return {"text": "text", "audio": "a sound file", "font": "a font"}.get(room, "")

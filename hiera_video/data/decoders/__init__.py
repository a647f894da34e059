"""Videos as numbered frames, behind one small interface, whatever decodes them.

A backend is a file here with `open_video(path)`; `DATA.DECODING_BACKEND` names it, or "auto".
"""

from hiera_video.data.decoders._errors import DecodeError
from hiera_video.data.decoders._reader import VideoReader, fetch_file
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_module

__all__ = ["DecodeError", "VideoReader", "check_backend", "open_video"]

# PyAV first: exact on every file tried, and the faster of the two.
_LADDER = ("pyav", "decord")


def open_video(path: str, backend: str = "auto") -> VideoReader:
    """Open a video; frame k is the k-th of a full sequential decode, upright, RGB.

    `path` is a local file or a URL that iopath knows. `backend` is a module here ("pyav",
    "decord"), or "auto": PyAV, and decord for a file that PyAV cannot open. Raises DecodeError,
    which names the path and the cause, and UserError for a backend that is not there.
    """
    if backend != "auto":
        return _open_with(backend, path)
    fetch_file(path)  # what is wrong with the file itself is the same for all of them
    first_error: UserError | None = None
    for name in _LADDER:
        try:
            return _open_with(name, path)
        except UserError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def check_backend(backend: str) -> None:
    """Raise UserError if `backend` is neither "auto" nor a decoder that is installed here."""
    if backend != "auto":
        module = find_module(__name__, backend, key="DATA.DECODING_BACKEND")
        getattr(module, "check_available", lambda: None)()


def _open_with(backend: str, path: str) -> VideoReader:
    module = find_module(__name__, backend, key="DATA.DECODING_BACKEND")
    reader: VideoReader = module.open_video(path)
    return reader

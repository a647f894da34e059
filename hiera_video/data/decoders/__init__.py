"""Open videos as numbered frames, with any of several decoders behind one interface.

A backend is a module of this package with `open_video(path, *, file)`. `DATA.DECODING_BACKEND`
names a backend, or is "auto". `path` names the video in errors; `file` is the local file with its
bytes. This module fetches the bytes once, even if several backends try to decode them.

Frame k is defined by a full sequential decode, and no backend is trusted to find it by seeking.
PyAV checks every step against the packets and falls back to decoding from the start. The other
backends refuse the kinds of files in which they returned wrong frames. A refusal is an error if the
config names the backend; "auto" tries the next backend instead.
"""

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import ModuleType

from hiera_video.data.decoders._container import DecodeError
from hiera_video.data.decoders._reader import (
    BaseReader,
    SquareReader,
    VideoReader,
    fetch_file,
    forget_damaged,
)
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_module

__all__ = [
    "DecodeError",
    "Decoding",
    "VideoReader",
    "check_backend",
    "describe_backend",
    "open_video",
]

# The order in which "auto" tries the backends, and their packages. PyAV is first: it was exact on
# every file tested, and fastest on all but AV1. torchcodec is faster than decord and has newer
# codecs.
_LADDER = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}


@dataclass(frozen=True, slots=True)
class Decoding:
    """Settings for decoding videos.

    Args:
        backend: "pyav", "torchcodec", "decord" or "auto". "auto" uses PyAV, and tries the others in
            turn if PyAV cannot open a file.
        square_pixels: resize pictures whose pixels are not square, as a player does; otherwise
            pictures stay as stored.
    """

    backend: str = "auto"
    square_pixels: bool = True


def open_video(path: str, backend: str | Decoding = "auto") -> VideoReader:
    """Open a video; its frame k is the k-th of a full sequential decode, upright, in RGB.

    Args:
        path: a local file, a URL, or a video in a tar shard.
        backend: the decoding settings, or the name of a backend.

    Raises:
        DecodeError: the video cannot be read; the message names the path and the cause.
        UserError: there is no such backend, or its package is not installed.
    """
    decoding = Decoding(backend) if isinstance(backend, str) else backend
    try:
        reader = _open_stored(path, decoding.backend)
    except DecodeError:
        forget_damaged(path)
        raise
    if not decoding.square_pixels or reader.pixel_ratio == 1:
        return reader
    return SquareReader(reader)


def _open_stored(path: str, backend: str) -> BaseReader:
    """Open a video with the first backend that accepts it; its pixels stay as stored."""
    backends = _LADDER if backend == "auto" else (backend,)
    modules = [_backend(name) for name in backends]
    # Some files (videos in shards) exist only while `file` is referenced. Readers keep it.
    file = fetch_file(path)
    first_error: UserError | None = None
    for module in modules:
        try:
            reader: BaseReader = module.open_video(path, file=file)
            return reader
        except UserError as error:
            first_error = first_error or error
    assert first_error is not None
    try:
        raise first_error
    finally:
        # The error's traceback references this frame, the failed readers and the bytes of the file.
        # Without this `del`, the cycle would keep them until the garbage collector runs.
        del first_error, file


@cache
def _backend(name: str) -> ModuleType:
    return find_module(__name__, name, key="DATA.DECODING_BACKEND")


def check_backend(backend: str) -> None:
    """Raise UserError if `backend` is neither "auto" nor a decoder that is installed here."""
    if backend != "auto":
        getattr(_backend(backend), "check_available", lambda: None)()


def describe_backend(backend: str) -> str:
    """Describe in one line, for the log, which decoders `backend` uses and why.

    This looks up the installed packages without importing them.
    """
    versions = {name: _version_of(package) for name, package in _LADDER.items()}
    named = {name: f"{name} {version}".strip() for name, version in versions.items()}
    if backend != "auto":
        return (
            f"Videos are decoded by {named.get(backend, backend)} alone, as DATA.DECODING_BACKEND "
            "says; a file that it cannot read exactly is a bad file."
        )
    best, *others = (named[name] for name in _LADDER if versions[name])
    line = f"Videos are decoded by {best}: the most exact of all, and the fastest on all but AV1."
    if others:
        line += f" A file that it cannot open goes to {', then '.join(others)}."
    missing = [name for name in _LADDER if not versions[name]]
    return line + (f" Not installed: {', '.join(missing)}." if missing else "")


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""

"""Videos as numbered frames, behind one small interface, whatever decodes them.

A backend is a file here with `open_video(path)`; `DATA.DECODING_BACKEND` names it, or "auto".

No backend is trusted to find frame k: what a full sequential decode gives is the judge. PyAV checks
every step against the packets and falls back to decoding from the start. The others are refused the
kinds of files in which they went astray. Named in the config, a backend raises there; "auto" goes
on to the next.
"""

from dataclasses import dataclass
from importlib import metadata

from hiera_video.data.decoders._errors import DecodeError
from hiera_video.data.decoders._pixels import SquareReader
from hiera_video.data.decoders._reader import (
    BaseReader,
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

# The order of "auto", and the package each comes with. PyAV first: exact on every file tried, and
# the fastest on all but AV1. torchcodec before decord: faster, and its codecs are newer.
_LADDER = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}


@dataclass(frozen=True, slots=True)
class Decoding:
    """How videos are decoded.

    backend: a module here ("pyav", "torchcodec", "decord"), or "auto": PyAV, and the others in turn
    for a file that PyAV cannot open. square_pixels: show pixels that are not square as a player
    does; otherwise pictures are as stored.
    """

    backend: str = "auto"
    square_pixels: bool = True


def open_video(path: str, backend: str | Decoding = "auto") -> VideoReader:
    """Open a video; frame k is the k-th of a full sequential decode, upright, RGB.

    `path` is a local file or a URL that iopath knows. `backend` is how to decode it, or the name of
    a backend alone. Raises DecodeError, which names the path and the cause, and UserError for a
    backend that is not there.
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
    """Open a video whose frames come as they are stored."""
    if backend != "auto":
        return _open_with(backend, path)
    # What is wrong with the file itself is the same for all of them. Some files are there only
    # while their path is held.
    held = fetch_file(path)
    first_error: UserError | None = None
    for name in _LADDER:
        try:
            return _open_with(name, path)
        except UserError as error:
            first_error = first_error or error
    assert first_error is not None
    try:
        raise first_error
    finally:
        # An error holds this frame, and with it the readers that failed, and the bytes they held:
        # if the frame held the error in turn, all would stay until the garbage collector comes.
        del first_error, held


def check_backend(backend: str) -> None:
    """Raise UserError if `backend` is neither "auto" nor a decoder that is installed here."""
    if backend != "auto":
        module = find_module(__name__, backend, key="DATA.DECODING_BACKEND")
        getattr(module, "check_available", lambda: None)()


def describe_backend(backend: str) -> str:
    """Say in one line, for the log, what decodes videos under `DATA.DECODING_BACKEND`, and why.

    Looks at what is installed and imports nothing: backends that are not needed stay unloaded.
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


def _open_with(backend: str, path: str) -> BaseReader:
    module = find_module(__name__, backend, key="DATA.DECODING_BACKEND")
    reader: BaseReader = module.open_video(path)
    return reader

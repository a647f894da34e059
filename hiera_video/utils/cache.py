"""Cache copies of URLs in a shared folder: check versions, bound the size, drop damaged copies.

`KEY-NAME` is a copy; its modification time is the time of its last use. `KEY-NAME.origin` holds
the version that the server stated; its modification time is the time of the last check.
"""

import hashlib
import logging
import math
import os
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl

import simplejson
from iopath.common.file_io import HTTPURLHandler, file_lock, get_cache_dir

from hiera_video.utils.disk import write_atomic
from hiera_video.utils.errors import UserError
from hiera_video.utils.fetch import RefusedError, fetch

SIZE_VARIABLE = "HIERA_VIDEO_CACHE_GIB"
DEFAULT_GIB = 50.0

# A process checks a copy with the server on first use, and again after this time.
FRESH_SEC = 300.0
# A copy without a version cannot be checked, so each process fetches it again. Processes that
# start within this time share one copy.
_TOGETHER_SEC = 10.0
# A partial download unchanged for this long is left over from a killed process.
_STALE_SEC = 3600.0
# A fetched file is not removed before this time, within which its process opens it.
_GRACE_SEC = 60.0
_RETRIED_STATUS = (408, 425, 429)
# Parameter names in the query of a URL that is signed for one user and a few hours.
_SECRETS = re.compile(
    r"x-(amz|goog)-.*|.*signature|sig|.*token|.*api[-_]?key|key-pair-id|auth|authorization",
    re.IGNORECASE,
)
_COPY = re.compile(r"[0-9a-f]{16}-[^/]*(?<!\.lock)(?<!\.origin)", re.DOTALL)

Fetch = Callable[[str, IO[bytes], Mapping[str, str]], dict[str, str] | None]


class _CurrentError(Exception):
    """The server says that the local copy is current."""


@dataclass(slots=True)
class _Memory:
    """What this process remembers about copies.

    checked: time of the last check, by path. failed: time of the last failure, by host. brought:
    bytes fetched since the last clean-up, by folder. held: copies of signed URLs in use, by URL.
    """

    checked: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)
    brought: dict[str, float] = field(default_factory=dict)
    held: "weakref.WeakValueDictionary[str, _TemporaryCopy]" = field(
        default_factory=weakref.WeakValueDictionary
    )


@cache
def _memory() -> _Memory:
    return _Memory()


class UrlHandler(HTTPURLHandler):
    """Let iopath cache http and https URLs with version checks.

    iopath's own handler keeps a copy for ever. It also names a copy only after the path of its
    URL, so that a mirror's file would be taken for the original's.
    """

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        self._check_kwargs(kwargs)
        folder = get_cache_dir(cache_dir)
        if is_signed(path):
            return _fetch_signed(path, folder)
        limit = limit_bytes(SIZE_VARIABLE, DEFAULT_GIB)
        return copy_of(path, folder, fetch=fetch, limit=limit, grace_sec=_GRACE_SEC, force=force)


class _TemporaryCopy(str):
    """The path of a copy that is removed when this object is collected."""


def is_signed(url: str) -> bool:
    """Return whether the query of `url` holds a signature or a token.

    Such a URL is different each time it is issued. Only those who know it may access the file.
    """
    query = url.partition("?")[2].partition("#")[0]
    return any(_SECRETS.fullmatch(name) for name, _ in parse_qsl(query, keep_blank_values=True))


def _fetch_signed(url: str, folder: str) -> str:
    """Return a private copy, or the one that this process still holds."""
    held = _memory().held.get(url)
    if held is not None:
        return held
    name = os.path.basename(cached_path(url, folder))
    descriptor, path = tempfile.mkstemp(suffix=f"-{name}")
    copy = _TemporaryCopy(path)
    weakref.finalize(copy, _remove, path)
    with os.fdopen(descriptor, "wb") as file:
        fetch(url, file, {})
    _memory().held[url] = copy
    return copy


def copy_of(
    url: str,
    folder: str,
    *,
    fetch: Fetch,
    limit: int,
    grace_sec: float = 0.0,
    force: bool = False,
    asks_again: bool = True,
) -> str:
    """Return the path of a current copy of `url`, fetching it if necessary.

    If the server does not answer, an existing copy is used with a warning.

    Args:
        url: The URL.
        folder: The cache.
        fetch: `fetch.fetch` or an equivalent.
        limit: Bytes that the folder may hold.
        grace_sec: Copies used in the last `grace_sec` seconds are not removed.
        force: Fetch the URL even if the copy is current.
        asks_again: If False, an existing copy counts as current.

    Raises:
        OSError: The server refuses the URL, or does not answer and there is no copy.
    """
    target = cached_path(url, folder)
    began, brought = time.time(), 0
    if not force and _is_current(url, target, since=began, asks_again=asks_again):
        _touch(target)
        return target
    try:
        with file_lock(target):  # another process may be fetching it, so check again
            is_current = _is_current(url, target, since=began, asks_again=asks_again)
            if (force or not is_current) and _refresh(url, target, fetch, force=force):
                brought = os.path.getsize(target)
    except OSError as error:
        if not os.path.isfile(target) or _is_refusal(error):
            raise
        _memory().failed[_host(url)] = time.monotonic()
        logging.getLogger("hiera_video").warning(
            "%s did not say whether %s has changed (%s); the local copy is used",
            *(_host(url), url, str(error) or type(error).__name__),
        )
    else:
        _memory().checked[target] = time.monotonic()
        if brought:
            _bound(folder, limit, brought, keep=target, grace_sec=grace_sec)
    return target


def cached_path(url: str, cache_dir: str | None = None) -> str:
    """Return the path of the copy of `url`, in $FVCORE_CACHE or iopath's default folder."""
    key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    # Keep the ending, which tells the type; replace characters that a file name cannot hold.
    name = re.sub(r"[^a-zA-Z0-9._%+-]", "_", name)[-100:]
    return os.path.join(get_cache_dir(cache_dir), f"{key}-{name}")


def forget_copy(copy: str) -> None:
    """Remove a copy of a URL and the record of its version, if there is one."""
    for path in (copy, origin_path(copy)):
        with suppress(OSError):  # it does not exist, or belongs to another user
            os.unlink(path)


def origin_path(copy: str) -> str:
    """Return the path of the file that holds the version of a copy, as the server stated it."""
    return f"{copy}.origin"


def was_checked_lately(target: str) -> bool:
    """Return whether any process fetched or checked a copy in the last FRESH_SEC seconds."""
    return _check_time(target) > time.time() - FRESH_SEC


def limit_bytes(variable: str, default_gib: float) -> int:
    """Return in bytes a limit that an environment variable gives in GiB. Raises UserError."""
    text = os.environ.get(variable) or str(default_gib)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise UserError(f"{variable} must be a number above 0, in GiB, got {text!r}.")
    return int(limit * 2**30)


def make_room(folder: str, limit: int, *, keep: str, grace_sec: float = 0.0) -> None:
    """Remove the least recently used copies until the folder holds at most `limit` bytes.

    Does not remove `keep`, nor copies used in the last `grace_sec` seconds. Also removes partial
    downloads of killed processes.
    """
    with file_lock(os.path.join(folder, "room")):
        copies = _copies(folder)
        too_much = sum(size for _, size, _ in copies) - limit
        for used, size, path in sorted(copies):
            if too_much <= 0 or used > time.time() - grace_sec:
                return
            if path != keep:
                forget_copy(path)
                _remove(f"{path}.lock")
                too_much -= size


def _is_current(url: str, target: str, *, since: float, asks_again: bool) -> bool:
    if not os.path.isfile(target):
        return False
    oldest = time.monotonic() - FRESH_SEC
    memory = _memory()
    if not asks_again or memory.checked.get(target, -math.inf) > oldest:
        return True
    if memory.failed.get(_host(url), -math.inf) > oldest:
        return True
    return _check_time(target) >= since - (0.0 if _version(target) else _TOGETHER_SEC)


def _bound(folder: str, limit: int, num_bytes: int, *, keep: str, grace_sec: float) -> None:
    """Make room once this process has fetched more than a hundredth of `limit` bytes.

    The folder may hold many files, so listing it for every new one would take too long.
    """
    brought = _memory().brought
    brought[folder] = brought.get(folder, math.inf) + num_bytes
    if brought[folder] > limit / 100:
        make_room(folder, limit, keep=keep, grace_sec=grace_sec)
        brought[folder] = 0.0


def _refresh(url: str, target: str, fetch: Fetch, *, force: bool) -> bool:
    """Replace the copy unless it is current; return whether it was replaced."""
    known = {} if force or not os.path.isfile(target) else _version(target)
    found: dict[str, str] = {}

    def receive(file: IO[bytes]) -> None:
        version = fetch(url, file, known)
        if version is None:
            raise _CurrentError
        found.update(version)

    try:
        write_atomic(target, receive)
    except _CurrentError:
        _touch(origin_path(target))
        return False
    # Write the version after the copy: if the process is killed in between, the copy is refetched.
    text = simplejson.dumps(found).encode()
    write_atomic(origin_path(target), lambda file: file.write(text))
    return True


def _is_refusal(error: OSError) -> bool:
    """Return whether the server answered that the file does not exist or is forbidden."""
    if isinstance(error, HTTPError):
        return 400 <= error.code < 500 and error.code not in _RETRIED_STATUS
    return isinstance(error, RefusedError)


def _version(target: str) -> dict[str, str]:
    try:
        with open(origin_path(target), "rb") as file:
            version = simplejson.load(file)
    except (OSError, ValueError):
        return {}
    good = isinstance(version, dict) and all(isinstance(v, str) for v in version.values())
    return version if good else {}


def _check_time(target: str) -> float:
    try:
        return os.stat(origin_path(target)).st_mtime
    except OSError:
        return -math.inf


def _host(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _copies(folder: str) -> list[tuple[float, int, str]]:
    """Return (time of last use, bytes, path) of all copies; remove old partial downloads."""
    found: list[tuple[float, int, str]] = []
    for entry in os.scandir(folder):
        with suppress(OSError):
            state: Any = entry.stat()
            is_left = entry.name.startswith(".") and entry.name.endswith(".tmp")
            if is_left and state.st_mtime < time.time() - _STALE_SEC:
                os.unlink(entry.path)
            elif entry.is_file() and _COPY.fullmatch(entry.name):
                found.append((state.st_mtime, state.st_size, entry.path))
    return found


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _touch(path: str) -> None:
    with suppress(OSError):  # already removed, or owned by another user
        os.utime(path)

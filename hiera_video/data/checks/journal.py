"""Write the verdicts of a scan to disk one by one, so that a killed scan can continue.

Each line is one json object. A verdict is reused only if its file has the same size and
modification time, and only by a scan with the same settings. Others stay in the journal.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

import simplejson

from hiera_video.data.checks.fingerprint import VideoFacts
from hiera_video.utils import io
from hiera_video.utils.errors import UserError
from hiera_video.utils.read_json import parse_json


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of scanning a video: its facts, or the reason why it is bad.

    `lost_after_sec` is the time limit that was set when the process hung or died on this video;
    None if the verdict came from the decoder.
    """

    facts: VideoFacts | None = None
    reason: str = ""
    lost_after_sec: float | None = None


_State = tuple[int, int] | None  # bytes and modification time in ns; None: no such file, or a URL


class Journal:
    """The journal of a split, open for appending. Close it, or use it as a context manager.

    Raises UserError if it cannot be read or written.
    """

    def __init__(self, path: str, settings: Mapping[str, Any], *, afresh: bool = False) -> None:
        text = simplejson.dumps(dict(settings), sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:8]
        self._known: dict[str, tuple[_State, Verdict]] = {}
        try:
            if not afresh and io.is_file(path):
                self._known = dict(self._read(path))
            self._file: IO[str] = io.open_file(path, "w" if afresh else "a")
            # A killed scan may have left an incomplete line.
            self._file.write("\n" if self._file.tell() else "")
        except OSError as error:
            raise UserError(
                f"{path} must be writable, got: {error.strerror}. Try another --output."
            ) from None

    def verdict(self, path: str, *, time_limit_sec: float) -> Verdict | None:
        """Return the recorded verdict of a video; None if there is none or the file has changed.

        Also None for a video whose process was lost, if the time limit is longer now.
        """
        state, verdict = self._known.get(path, (None, None))
        if verdict is None or state != _state(path):
            return None
        if verdict.lost_after_sec is not None and verdict.lost_after_sec < time_limit_sec:
            return None
        return verdict

    def add(self, path: str, verdict: Verdict) -> None:
        """Append a verdict and flush it, so that it survives if this process is killed."""
        entry = {"key": self._key, "path": path, "state": _state(path), **asdict(verdict)}
        self._file.write(simplejson.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, path: str) -> Iterator[tuple[str, tuple[_State, Verdict]]]:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = parse_json(line)
                    if entry["key"] != self._key:
                        continue
                    facts = VideoFacts(**entry["facts"]) if entry["facts"] else None
                    verdict = Verdict(facts, entry["reason"], entry["lost_after_sec"])
                    state = entry["state"] and (entry["state"][0], entry["state"][1])
                    yield entry["path"], (state, verdict)
                except (ValueError, KeyError, TypeError, IndexError):
                    continue  # incomplete or from another version: the video is decoded again


def _state(path: str) -> _State:
    for file in (path, path.rpartition("::")[0]):  # a video in a shard changes with its shard
        try:
            status = os.stat(file)
        except OSError:
            continue
        return status.st_size, status.st_mtime_ns
    return None

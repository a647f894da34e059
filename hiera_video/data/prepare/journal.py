"""Record the finished videos of a folder, one json line each, so that a rerun skips them."""

import os
from typing import IO, Any

import simplejson

from hiera_video.data.prepare.plan import Job
from hiera_video.utils.errors import UserError
from hiera_video.utils.read_json import parse_json

try:
    import fcntl
except ImportError:  # Windows has no fcntl: two runs writing to one folder go unnoticed
    fcntl = None  # type: ignore[assignment]

JOURNAL = "prepare_videos.jsonl"


class Journal:
    """The journal of one output folder, open and locked. Truncated lines are skipped."""

    def __init__(self, output: str, settings: dict[str, Any]) -> None:
        """Open or create the journal. Raises OSError, and UserError if another run holds it."""
        self._output = output
        self._settings = settings
        self._file: IO[str] = open(  # noqa: SIM115  (closed by `close`)
            os.path.join(output, JOURNAL), "a+", encoding="utf-8"
        )
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.close()
                raise UserError(
                    f"OUTPUT must be written by one run at a time, got {output!r}, which another "
                    "run is writing. Try again when that has ended."
                ) from None
            except OSError:
                pass  # a file system without locks
        self._file.seek(0)
        text = self._file.read()
        self._done = {line["output"]: line for line in map(_parse, text.splitlines()) if line}
        if text and not text.endswith("\n"):
            self._file.write("\n")

    def finished(self, job: Job) -> dict[str, Any] | None:
        """Return the line of a job that need not be done again, or None.

        A job is finished if three things hold: its source has the size and modification time that
        were recorded, the settings are the same, and the output has the size that was verified.
        """
        line = self._done.get(job.output)
        try:
            if (
                line is not None
                and line["settings"] == self._settings
                and line["source"] == source_state(job.source)
                and line["output_bytes"] == os.path.getsize(os.path.join(self._output, job.output))
            ):
                return line
        except (OSError, KeyError):
            pass
        return None

    def add(self, job: Job, **facts: Any) -> dict[str, Any]:
        """Record that a job is finished; return its line."""
        line = {"output": job.output, "settings": self._settings, **facts}
        self._file.write(simplejson.dumps(line) + "\n")
        self._file.flush()
        self._done[job.output] = line
        return line

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def source_state(path: str) -> dict[str, Any]:
    """Return path, size and modification time, by which a change is seen. Raises OSError."""
    found = os.stat(path)
    return {"path": path, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = parse_json(text)
    except simplejson.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and "output" in line else None

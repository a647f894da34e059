"""Prepare a whole dataset in a worker pool, with time limits, continuing an earlier run."""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tqdm import tqdm

from hiera_video.data.prepare.encode import Encoding
from hiera_video.data.prepare.folders import Source
from hiera_video.data.prepare.journal import JOURNAL, Journal
from hiera_video.data.prepare.lists import label_numbers, number_classes, write_lists
from hiera_video.data.prepare.one import (
    Outcome,
    Task,
    describe_step,
    partial_path,
    prepare_one,
    remove_partials,
)
from hiera_video.data.prepare.plan import VIDEOS, Job, is_listable, plan_jobs
from hiera_video.data.records import SPLITS
from hiera_video.data.workers.pool import Done, WorkerPool
from hiera_video.utils.disk import write_atomic
from hiera_video.utils.errors import UserError

FAILED = "failed.csv"

_AHEAD = 2  # jobs queued in the pool for each worker


@dataclass(slots=True)
class Summary:
    """The result of a run.

    num_ready: files that are ready now. num_before: those of them that an earlier run made.
    num_damaged: those of them whose source has frames marked as damaged. source_bytes,
    output_bytes: sizes of the ready files. failed: (path, reason). lists: number of lines by split.
    """

    num_ready: int = 0
    num_before: int = 0
    num_damaged: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    lists: dict[str, int] = field(default_factory=dict)

    @property
    def share_failed(self) -> float:
        """Return the fraction of files that could not be prepared."""
        return len(self.failed) / max(1, len(self.failed) + self.num_ready)

    def count(self, line: dict[str, Any]) -> None:
        """Add a finished file, by its line of the journal."""
        self.num_ready += 1
        self.num_damaged += line["damaged_frames"] > 0
        self.source_bytes += line["source"]["bytes"]
        self.output_bytes += line["output_bytes"]

    def describe(self, output: str) -> str:
        """Return a line: what is ready, what failed, and the lists in the folder `output`."""
        parts = [f"{self.num_ready} videos ready"]
        if self.num_before:
            parts[0] += f" ({self.num_before} from before)"
        if self.source_bytes:
            before, after = self.source_bytes / 1e6, self.output_bytes / 1e6
            parts.append(f"{before:.1f} MB -> {after:.1f} MB")
        if self.num_damaged:
            parts.append(f"{self.num_damaged} with damaged frames in the source")
        parts.append(f"{len(self.failed)} failed")
        if self.failed:
            parts[-1] += f", see {os.path.join(output, FAILED)}"
        lists = ", ".join(f"{split}.csv {count}" for split, count in self.lists.items())
        return f"{'; '.join(parts)}; in {output}: {lists or 'no lists'}"


def prepare(
    source: Source,
    output: str,
    *,
    encoding: Encoding,
    num_workers: int,
    time_limit_sec: float,
    classes_file: str = "",
) -> Summary:
    """Write all videos of `source` below `output`, the lists, and `failed.csv`.

    Files that an earlier run finished are kept. `time_limit_sec` applies to each step of a file
    (64 frames), not to the whole file. However the run ends, it leaves no partial file. Raises
    UserError for values out of range, and if `output` belongs to something else or cannot be
    written.
    """
    encoding.check()
    if num_workers < 1:
        raise UserError(f"--workers must be at least 1, got {num_workers}. Try 1.")
    if time_limit_sec <= 0:
        raise UserError(f"--time-limit must be above 0 seconds, got {time_limit_sec:g}. Try 120.")
    _refuse_what_is_not_ours(source, output)
    if os.path.realpath(output) == os.path.realpath(source.root):
        raise UserError(f"OUTPUT must be another folder than that of the videos, got {output!r}.")
    jobs = plan_jobs(source, output)
    names = number_classes(source, output, classes_file)
    summary = Summary(failed=list(source.lacking))
    with _disk_errors(output), _open_journal(output, encoding.as_dict()) as journal:
        remove_partials(os.path.join(output, VIDEOS))
        ready: set[str] = set()
        try:
            left = []
            for job in jobs:
                if (line := journal.finished(job)) is None:
                    left.append(job)
                else:
                    ready.add(job.source)
                    summary.count(line)
                    summary.num_before += 1
            outcomes = _run(left, output, encoding, num_workers, time_limit_sec)
            with tqdm(total=len(jobs), initial=len(ready), unit="video", disable=None) as bar:
                for job, outcome in outcomes:
                    bar.update()
                    if outcome.facts is None:
                        summary.failed.append((job.source, outcome.reason))
                        bar.set_postfix(failed=len(summary.failed))
                    else:
                        summary.count(journal.add(job, **outcome.facts))
                        ready.add(job.source)
        except BaseException:
            remove_partials(os.path.join(output, VIDEOS))
            with suppress(OSError):  # a full disk makes this fail too
                _write_failed(output, summary.failed)
            raise
        _write_failed(output, summary.failed)
        outputs = {job.source: job.output for job in jobs if job.source in ready}
        summary.lists = _write_lists(source, output, outputs, names)
    return summary


def list_only(source: Source, output: str, *, classes_file: str = "") -> Summary:
    """Write the lists of the unchanged source videos where they are, and `failed.csv`.

    Raises UserError as `prepare` does.
    """
    _refuse_what_is_not_ours(source, output)
    names = number_classes(source, output, classes_file)
    summary = Summary(failed=list(source.lacking))
    outputs = {}
    for path in dict.fromkeys(entry.path for entry in source.entries):
        if is_listable(path):
            inside = os.path.relpath(path, output)
            outputs[path] = path if inside.startswith(os.pardir) else inside.replace(os.sep, "/")
        else:
            summary.failed.append((path, "has a name that a line of a list cannot hold"))
    summary.num_ready = len(outputs)
    with _disk_errors(output), _open_journal(output, {}):
        _write_failed(output, summary.failed)
        summary.lists = _write_lists(source, output, outputs, names)
    return summary


def _run(
    jobs: list[Job], output: str, encoding: Encoding, num_workers: int, time_limit_sec: float
) -> Iterator[tuple[Job, Outcome]]:
    """Yield each outcome as it arrives. Raises OSError for a fault of the disk."""
    if not jobs:
        return
    tasks = [Task(job.source, os.path.join(output, job.output), encoding) for job in jobs]
    num_workers = min(num_workers, len(jobs))
    with WorkerPool(prepare_one, num_workers=num_workers, deadline_sec=time_limit_sec) as pool:
        waiting = iter(enumerate(tasks))
        for number, task in islice(waiting, num_workers * _AHEAD):
            pool.submit(number, task)
        for _ in jobs:
            result = pool.next()
            assert result is not None
            for number, task in islice(waiting, 1):
                pool.submit(number, task)
            job = jobs[result.task_id]
            if isinstance(result, Done):
                outcome: Outcome = result.value
            else:
                outcome = Outcome(reason=f"{result.reason} ({describe_step(result.step)})")
                with suppress(OSError):
                    os.unlink(partial_path(tasks[result.task_id].target))
            if outcome.disk_error is not None:
                raise OSError(outcome.disk_error, outcome.reason, job.output)
            yield job, outcome


def _refuse_what_is_not_ours(source: Source, output: str) -> None:
    paths = [os.path.join(output, f"{split}.csv") for split in SPLITS]
    lists = [path for path in paths if os.path.exists(path)]
    if {os.path.realpath(path) for path in lists} & set(map(os.path.realpath, source.list_files)):
        raise UserError(
            f"OUTPUT must be another folder than that of SOURCE's lists, got {output!r}."
        )
    if lists and not os.path.exists(os.path.join(output, JOURNAL)):
        raise UserError(
            f"OUTPUT must be a new folder or one of an earlier run, got {output!r}, which has a "
            f"{os.path.basename(lists[0])} of another origin. Try another folder."
        )


def _open_journal(output: str, settings: dict[str, Any]) -> Journal:
    os.makedirs(output, exist_ok=True)
    return Journal(output, settings)


@contextmanager
def _disk_errors(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"OUTPUT must be a folder with room that can be written, got {output!r} "
            f"({error.filename or 'a file there'}: {error.strerror or error}). What is finished "
            "is kept. Try the same command again when that is put right."
        ) from None


def _write_lists(
    source: Source, output: str, outputs: dict[str, str], names: list[str] | None
) -> dict[str, int]:
    lines: dict[str, list[tuple[str, int]]] = {split: [] for split in source.splits()}
    labels = label_numbers(source.entries, names)
    for entry, label in zip(source.entries, labels, strict=True):
        if entry.path in outputs:
            lines[entry.split].append((outputs[entry.path], label))
    return write_lists(output, lines, names) if outputs else {}


def _write_failed(output: str, failed: Iterable[tuple[str, str]]) -> None:
    path = os.path.join(output, FAILED)
    rows = sorted(failed)
    if not rows:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", "reason"), *rows])
    # The reader of this file must be able to find a name that is not valid UTF-8.
    content = text.getvalue().encode("utf-8", "backslashreplace")
    write_atomic(path, lambda file: file.write(content))

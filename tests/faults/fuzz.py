"""Read a thousand damaged videos with every decoder: python tests/faults/fuzz.py --files 1000

Each file must give frames or one DecodeError. Anything else (an exception, a process that dies, a
hang) is reported with the file's number, and the exit status is 1. The frames are compared with
those of a plain decode from the start. `--only NUMBER --keep FOLDER` makes one file again.
"""

import argparse
import collections
import json
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from mutants import make_sources, mutant
from reading import judge, read_sample

from hiera_video.data.decoders import check_backend
from hiera_video.data.workers.pool import Done, WorkerPool

BACKENDS = ("pyav", "torchcodec", "decord", "auto")
_CHUNK = 50  # number of files whose frames are in memory at once
# Largest mean difference (of 255 levels) between two pictures that count as the same.
_SAME = 3.0

# The outcomes of a file, in the order of the table.
OUTCOMES = {
    "exact": "the frames of a decode from the start, bit for bit",
    "close": f"the same pictures to within {_SAME:g} of 255 levels (mean)",
    "by time": "the frame of the right time; a decode from the start loses frames",
    "concealed": "other pixels in damaged places, but not those of another frame",
    "wrong": "another frame than the one asked for",
    "not judged": "a decode from the start gives nothing, or too much to keep",
    "refused": "one DecodeError",
    "hung": "its process was killed at the deadline",
    "died": "its process died",
    "bug": "another exception",
}


class Tally:
    """Counts of the outcomes, by backend."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[int, str]] = collections.defaultdict(dict)
        self.memory_mib: dict[str, list[float]] = collections.defaultdict(list)
        self.peak: dict[str, tuple[float, int]] = {}
        self.notes: list[str] = []
        self.wrong: dict[str, list[int]] = collections.defaultdict(list)

    def add(self, backend: str, number: int, outcome: str, note: str = "") -> None:
        """Count a file; `note` is printed at the end."""
        self.outcomes[backend][number] = outcome
        if note:
            self.notes.append(f"{backend}, file {number}: {outcome}: {note}")

    def add_memory(self, backend: str, number: int, found: dict[str, Any]) -> None:
        """Record the memory of a process after a file, and its peak while reading."""
        self.memory_mib[backend].append(found["after_kib"] / 1024)
        peak = (found["peak_kib"] / 1024, number)
        self.peak[backend] = max(self.peak.get(backend, peak), peak)

    def table(self) -> str:
        """Return the counts as a table in Markdown."""
        backends = list(self.outcomes)
        rows = [["", *backends], ["---", *("---:" for _ in backends)]]
        for outcome, meaning in OUTCOMES.items():
            counts = [list(self.outcomes[b].values()).count(outcome) for b in backends]
            rows.append([f"{outcome}: {meaning}", *map(str, counts)])
        for share in (0, 0.25, 0.5, 0.75, 1):
            label = f"MiB of the process after {share:.0%} of the files"
            rows.append([label, *(self._mib_after(b, share) for b in backends)])
        peaks = ["{:.0f} (file {})".format(*self.peak.get(b, (0.0, 0))) for b in backends]
        rows.append(["peak MiB while a file was read", *peaks])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _mib_after(self, backend: str, share: float) -> str:
        row = self.memory_mib[backend]
        place = max(10, round(share * len(row)))
        return f"{np.median(row[place - 10 : place]):.0f}" if row else ""

    def is_fine(self) -> bool:
        """Return whether every file gave frames or one DecodeError with every backend."""
        bad = {"hung", "died", "bug"}
        return not any(bad & set(outcomes.values()) for outcomes in self.outcomes.values())


def compare(found: dict[str, Any], judged: dict[str, Any] | None) -> str:
    """Return the outcome of a file that gave frames, which is that of its worst frame."""
    if judged is None or judged["later_NHWC"].shape[1:] != found["frames_THWC"].shape[1:]:
        return "not judged"
    pairs = zip(found["indices_T"].tolist(), found["frames_THWC"], strict=True)
    outcomes = {compare_frame(index, frame_HWC, judged) for index, frame_HWC in pairs}
    return max(outcomes, key=list(OUTCOMES).index)


def compare_frame(index: int, frame_HWC: np.ndarray, judged: dict[str, Any]) -> str:
    """Return the outcome of frame `index`."""
    right_NHWC = judged["frames_NHWC"]
    if index < len(right_NHWC):
        distance = np.abs(right_NHWC[index].astype(np.int16) - frame_HWC).mean()
        if distance <= _SAME:
            return "close" if distance else "exact"
    distance_N = np.abs(judged["later_NHWC"].astype(np.int16) - frame_HWC).mean(axis=(1, 2, 3))
    (same_N,) = np.nonzero(distance_N <= _SAME)
    times = judged["packet_pts"]
    if index < len(times) and times[index] in [judged["later_pts"][n] for n in same_N]:
        return "by time"
    return "wrong" if len(same_N) else "concealed"


def run(args: argparse.Namespace, folder: Path) -> Tally:
    """Make the files and read each by every backend."""
    sources, tally = make_sources(folder), Tally()
    numbers = range(args.files) if args.only is None else [args.only]
    pools = {
        b: WorkerPool(read_sample, num_workers=1, deadline_sec=args.deadline_sec)
        for b in args.backends
    }
    judges = WorkerPool(judge, num_workers=1, deadline_sec=args.deadline_sec)
    for start in range(0, len(numbers), _CHUNK):
        chunk = {}
        for number in numbers[start : start + _CHUNK]:
            name, content = mutant(number, args.seed, sources)
            chunk[number] = folder / name
            chunk[number].write_bytes(content)
        judged = read_all(judges, {n: str(path) for n, path in chunk.items()})
        for backend, pool in pools.items():
            results = read_all(pool, {n: (n, str(p), backend) for n, p in chunk.items()})
            for number, result in results.items():
                take(tally, backend, number, result, judged[number])
        if not args.keep:
            for path in chunk.values():
                path.unlink()
        print(f"{start + len(chunk)} of {len(numbers)} files", file=sys.stderr)
    for pool in (*pools.values(), judges):
        pool.close()
    return tally


def read_all(pool: WorkerPool, tasks: dict[int, Any]) -> dict[int, Any]:
    """Return the result of each task: Done, with copies of its arrays, or Lost."""
    for number, task in tasks.items():
        pool.submit(number, task)
    results = {}
    while len(results) < len(tasks):
        result = pool.next()
        assert result is not None
        if isinstance(result, Done) and result.value is not None:
            value = {k: np.array(v) if k.endswith("C") else v for k, v in result.value.items()}
            result = Done(result.task_id, value)
        results[result.task_id] = result
    return results


def take(tally: Tally, backend: str, number: int, result: Any, judged: Any) -> None:
    """Add the result of a file to the counts."""
    if not isinstance(result, Done):
        tally.add(backend, number, "hung" if result.hung else "died", result.reason)
        return
    found = result.value
    tally.add_memory(backend, number, found)
    if "bug" in found:
        tally.add(backend, number, "bug", found["bug"])
    elif "reason" in found:
        tally.add(backend, number, "refused")
    else:
        outcome = compare(found, judged.value if isinstance(judged, Done) else None)
        tally.add(backend, number, outcome)
        if outcome == "wrong":
            tally.wrong[backend].append(number)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="number of files (1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the files (0)")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, metavar="NAME")
    parser.add_argument("--deadline-sec", type=float, default=20.0, help="limit per file (20)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run only this file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each file's outcome")
    args = parser.parse_args()
    packages = [name for name in ("torchcodec", "decord") if name in args.backends]
    for backend in args.backends:
        check_backend(backend)
    start_sec = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tally = run(args, folder)
    print(", ".join(f"{name} {metadata.version(name)}" for name in ("av", "torch", *packages)))
    print(f"seed {args.seed}, {time.monotonic() - start_sec:.0f} s\n\n{tally.table()}\n")
    for backend, numbers in tally.wrong.items():
        print(f"wrong, {backend}: files {', '.join(map(str, numbers))}")
    print("\n".join(tally.notes))
    if args.json:
        args.json.write_text(json.dumps(tally.outcomes, indent=1))
    return 0 if tally.is_fine() else 1


if __name__ == "__main__":
    sys.exit(main())

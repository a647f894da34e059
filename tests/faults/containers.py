"""Compare videos of many containers and codecs with ffmpeg: python tests/faults/containers.py

The ffmpeg command makes the files. It also decodes them from the start, as the reference for their
frames, order, rate and orientation. `--output TABLE.md` writes the table of docs/reliability.md.
The exit status is 1 if PyAV or `auto` differs from ffmpeg.
"""

import argparse
import collections
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import read_all
from kinds import Kind, all_kinds
from viewing import SAME, view

from hiera_video.data.decoders import check_backend
from hiera_video.data.workers.pool import Done, WorkerPool

BACKENDS = ("pyav", "torchcodec", "decord", "auto")
NUM_FRAMES = 30

# Outcomes for a file, worst last; all but the first two are faults.
OUTCOMES = (
    "right",
    "refused",
    "colours",
    "shape",
    "rate",
    "frames",
    "count",
    "bug",
    "hung",
    "died",
)

# Frames 0 to 14 at the frame rate, then one every three steps.
_VARIABLE = "setpts='if(lt(N,15),N,15+3*(N-15))*{step}/TB'"


def make(kind: Kind, folder: Path) -> Path | None:
    """Make a file and return its path; None if this ffmpeg cannot make it."""
    path = folder / kind.name
    first = folder / f"first pass {path.name}" if kind.copied else path
    filters = kind.filters.replace("VARIABLE", _VARIABLE.format(step=1 / Fraction(kind.fps)))
    options = shlex.split(kind.options)
    words = [*f"-f rawvideo -pix_fmt rgb24 -s {kind.size} -r {kind.fps} -i -".split()]
    words += ["-vf", filters or "null", *options]
    if "-pix_fmt" not in options and any(
        codec in kind.options for codec in ("264 ", "265 ", "vpx", "av1", "theora", "xvid")
    ):
        words += ["-pix_fmt", "yuv420p"]
    if "VARIABLE" in kind.filters:
        words += ["-fps_mode", "passthrough", "-enc_time_base", "1/1000"]
    pictures = pictures_of(kind.size).tobytes()
    for number in range(1, kind.passes + 1):
        more = f"-pass {number} -passlogfile {shlex.quote(str(folder / f'pass {kind.name}'))}"
        two = shlex.split(more) if kind.passes > 1 else []
        if not ffmpeg([*words, *two, str(first)], pictures):
            return None
    if kind.copied:
        words = [*shlex.split(kind.input_options), "-i", str(first), "-c", "copy"]
        if not ffmpeg([*words, *shlex.split(kind.copied), str(path)]):
            return None
        first.unlink()
    return path


def pictures_of(size: str) -> np.ndarray:
    """Return frames [N,H,W,3], all different: a moving ramp and jumping squares."""
    width, height = map(int, size.split("x"))
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    frames_NHWC = np.empty((NUM_FRAMES, height, width, 3), np.uint8)
    for number, frame_HWC in enumerate(frames_NHWC):
        ramp = (columns + rows + 7 * number) % 180 + 20
        frame_HWC[:] = np.stack([ramp, ramp // 2 + 60, 220 - ramp], axis=-1)
        for _ in range(2):
            top, left = rng.integers(height // 2), rng.integers(width // 2)
            frame_HWC[top : top + height // 2, left : left + width // 2] = rng.integers(256, size=3)
    return frames_NHWC


def ffmpeg(words: list[str], content: bytes = b"") -> bool:
    """Run ffmpeg; return whether it wrote the file."""
    run = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *words],
        input=content,
        capture_output=True,
        env={**os.environ, "SVT_LOG": "1"},
    )
    target = Path(words[-1])
    return run.returncode == 0 and target.exists() and target.stat().st_size > 0


def reference(path: Path, kind: Kind) -> Path | None:
    """Decode a file by ffmpeg; return an npz file of the result, None if there are no frames."""
    words = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json"]
    entries = "stream=width,height,sample_aspect_ratio,avg_frame_rate"
    words += ["-show_entries", f"{entries}:frame=best_effort_timestamp_time", str(path)]
    probed = subprocess.run(words, capture_output=True)
    picture_words = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe"]
    decoded = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            str(path),
            *picture_words,
            "-c:v",
            "ppm",
            "-pix_fmt",
            "rgb24",
            "-",
        ],
        capture_output=True,
    )
    if probed.returncode or decoded.returncode:
        return None  # ffmpeg cannot read the file that it wrote
    found = json.loads(probed.stdout)
    stream, frames = found["streams"][0], found["frames"]
    pictures = list(split_ppm(decoded.stdout))
    if not pictures or len({picture.shape for picture in pictures}) > 1:
        return None
    height, width = pictures[0].shape[:2]
    # The command applies the rotation tag, but reports the pixel ratio before rotation.
    stated = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", stream.get("sample_aspect_ratio", ""))
    ratio = Fraction(int(stated[1]), int(stated[2])) if stated else Fraction(1)
    turned = (width, height) != (stream["width"], stream["height"])
    display = (height, round(width * ratio)) if not turned else (round(height * ratio), width)
    times = [float(frame.get("best_effort_timestamp_time", "nan")) for frame in frames]
    target = path.with_name(f"{path.name}.npz")
    np.savez(
        target,
        frames_NHW3=np.stack(pictures),
        times_N=np.array(times),
        fps=0.0 if "VARIABLE" in kind.filters else float(Fraction(kind.fps)),
        display_HW=np.array(display),
    )
    return target


def split_ppm(raw: bytes) -> Any:
    """Yield the pictures [H,W,3] of concatenated PPM files."""
    place = 0
    while match := re.compile(rb"P6\s(\d+) (\d+)\s255\s").match(raw, place):
        width, height = int(match[1]), int(match[2])
        place = match.end() + 3 * width * height
        yield np.frombuffer(raw[match.end() : place], np.uint8).reshape(height, width, 3)


def make_pair(kind: Kind, folder: Path) -> tuple[str, str] | None:
    """Return a file and ffmpeg's decoding of it; None if this ffmpeg cannot make it.

    Files of an earlier run with the same `--keep` are reused.
    """
    path, shown = folder / kind.name, folder / f"{kind.name}.npz"
    if path.exists() and shown.exists():
        return str(path), str(shown)
    if make(kind, folder) is None or reference(path, kind) is None:
        return None
    return str(path), str(shown)


def run(args: argparse.Namespace, folder: Path) -> dict[Kind, dict[str, dict[str, str]]]:
    """Make the files and read each by every backend; return the outcomes."""
    kinds = [kind for kind in all_kinds() if fnmatch.fnmatch(kind.name, args.only)][:: args.every]
    tasks: dict[Kind, tuple[str, str]] = {}
    with ThreadPoolExecutor(args.jobs) as threads:
        pairs = threads.map(partial(make_pair, folder=folder), kinds)
        for kind, made in zip(kinds, pairs, strict=True):
            if made:
                tasks[kind] = made
            else:
                print(f"not made: {kind.name}", file=sys.stderr)
    outcomes: dict[Kind, dict[str, dict[str, str]]] = {kind: {} for kind in tasks}
    for backend in args.backends:
        with WorkerPool(view, num_workers=1, deadline_sec=args.deadline_sec) as pool:
            numbered = dict(enumerate(tasks))
            work = {n: (tasks[k][0], backend, tasks[k][1]) for n, k in numbered.items()}
            for number, result in read_all(pool, work).items():
                if isinstance(result, Done):
                    outcomes[numbered[number]][backend] = result.value
                else:
                    outcome = "hung" if result.hung else "died"
                    outcomes[numbered[number]][backend] = {"outcome": outcome, "note": ""}
    return outcomes


def table(outcomes: dict[Kind, dict[str, dict[str, str]]], backends: list[str]) -> str:
    """Return the outcomes as a Markdown table with one row per codec."""
    head = ["codec", "containers", "files", *backends]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    groups: dict[str, list[Kind]] = collections.defaultdict(list)
    for kind in outcomes:
        groups[kind.codec].append(kind)
    for codec, kinds in [*groups.items(), ("all", list(outcomes))]:
        containers = dict.fromkeys(kind.container for kind in kinds)
        counts = [collections.Counter(outcomes[k][b]["outcome"] for k in kinds) for b in backends]
        cells = [", ".join(f"{c[o]} {o}" for o in OUTCOMES if c[o]) for c in counts]
        names = "" if codec == "all" else " ".join(containers)
        rows.append([codec, names, str(len(kinds)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, metavar="NAME")
    parser.add_argument("--only", default="*", metavar="PATTERN", help='files by name, "h264*.mp4"')
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th file")
    parser.add_argument("--deadline-sec", type=float, default=60.0, help="limit per file (60)")
    parser.add_argument("--jobs", type=int, default=4, help="ffmpeg commands at a time (4)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files there")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there")
    args = parser.parse_args()
    for backend in args.backends:
        check_backend(backend)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = run(args, folder)
    bad = 0
    for kind, of_backend in outcomes.items():
        for backend, found in of_backend.items():
            exact = backend in ("pyav", "auto")
            if found["outcome"] != "right" and (exact or found["outcome"] != "refused"):
                bad += exact
                print(f"{kind.name}, {backend}: {found['outcome']}: {found['note']}")
    text = table(outcomes, list(args.backends))
    packages = [n for n in ("av", "torchcodec", "decord") if n == "av" or n in args.backends]
    version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    made_by = " ".join(version.stdout.split()[:3])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(f"{made_by}; {versions}; same picture: {SAME:g} levels\n\n{text}")
    if args.output:
        args.output.write_text(f"{text}\n\n{made_by}; {versions}.\n")
    return 1 if bad else 0


if __name__ == "__main__":
    if shutil.which("ffmpeg") is None:
        sys.exit("containers.py needs the ffmpeg and ffprobe commands.")
    sys.exit(main())

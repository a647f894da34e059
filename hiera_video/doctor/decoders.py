"""Check that decoders and loader processes work, each in isolation.

A decoder is native code that may fail to load, crash or hang. So each one is tried in its own
process, which runs this module as a program, on a video that the process makes itself.

Shape suffixes: T frames, H height, W width, C channels (RGB).
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from hiera_video.doctor.machine import (
    NOTE,
    OK,
    TROUBLE,
    Finding,
    stderr_in,
    version_of,
)
from hiera_video.utils.errors import reason_of

# Backends of data/decoders and the packages that hold them; only the first is required.
DECODERS = {"pyav": "av", "torchcodec": "torchcodec", "decord": "decord"}
_ADVICE = {
    "pyav": "pip install --force-reinstall av, and check that no file of yours is named av.py.",
    "torchcodec": "Install FFmpeg's shared libraries (apt-get install ffmpeg) and the torchcodec "
    "made for this torch, or pip uninstall torchcodec: DATA.DECODING_BACKEND auto does without.",
    "decord": "pip install --force-reinstall decord, or pip uninstall decord: "
    "DATA.DECODING_BACKEND auto does without.",
}
_NUM_FRAMES, _HEIGHT, _WIDTH = 12, 64, 96
_ASKED = (0, 5, 11)
_TOLERANCE = 6  # grey levels: the codec is lossy, and successive frames differ by 16
_RESULT_BYTES = 1 << 20


def check_decoders(*, time_limit_sec: float = 120.0) -> Iterator[Finding]:
    """Make every installed decoder read a newly written H.264 video."""
    # The processes use this folder as TMPDIR: one that crashes or is killed leaves its files there.
    with tempfile.TemporaryDirectory(prefix="hiera_video_doctor_") as folder:
        yield from _check_decoders(folder, time_limit_sec)


def _check_decoders(folder: str, time_limit_sec: float) -> Iterator[Finding]:
    installed = [name for name, package in DECODERS.items() if version_of(package)]
    started = {name: _start(name, folder) for name in installed}
    give_up_at = time.monotonic() + time_limit_sec
    try:
        for name, package in DECODERS.items():
            if name in started:
                yield _finding(name, started[name], give_up_at)
            elif name == "pyav":
                advice = "pip install -c constraints.txt -e . in the folder of the clone."
                yield Finding(f"decoder {name}", TROUBLE, f"{package} is not installed", advice)
            else:
                said = f"{package} is not installed; DATA.DECODING_BACKEND auto does without"
                yield Finding(f"decoder {name}", NOTE, said)
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


def _start(name: str, folder: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", __name__, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": folder},
    )


def _finding(name: str, process: subprocess.Popen[bytes], give_up_at: float) -> Finding:
    what, advice = f"decoder {name}", _ADVICE[name]
    try:
        out, err = process.communicate(timeout=max(give_up_at - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        return Finding(what, TROUBLE, "hangs on a video of 12 frames", advice)
    if process.returncode < 0:
        cause = signal.Signals(-process.returncode).name
        return Finding(what, TROUBLE, f"crashes ({cause})", advice)
    try:
        answer = json.loads(out.decode(errors="replace").splitlines()[-1])
        status, said = str(answer["status"]), str(answer["said"])
    except (ValueError, LookupError, TypeError):
        last = (err.decode(errors="replace").strip().splitlines() or ["without any output"])[-1]
        return Finding(what, TROUBLE, f"its process ended ({last})", advice)
    return Finding(what, status, said, "" if status == OK else advice)


def try_decoder(name: str) -> Finding:
    """Write a video, read it with a decoder, compare the frames, and return the result."""
    what = f"decoder {name}"
    with tempfile.TemporaryDirectory(prefix="hiera_video_doctor_") as folder:
        path = os.path.join(folder, "sample.mp4")
        try:
            write_sample(path)
        except BaseException as error:  # a broken package may raise anything, even SystemExit
            said = f"PyAV, which every decoder needs, cannot write a video ({reason_of(error)})"
            return Finding(what, TROUBLE, said)
        try:
            module = importlib.import_module(f"hiera_video.data.decoders.{name}")
            getattr(module, "check_available", lambda: None)()
            begin = time.monotonic()
            reader = module.open_video(path, file=path)
            frames_THWC = reader.frames_at(_ASKED)
            elapsed_sec = time.monotonic() - begin
            reader.close()
        except BaseException as error:
            return Finding(what, TROUBLE, f"does not work ({reason_of(error)})")
    found_T = frames_THWC.mean((1, 2, 3))
    expected_T = np.array([_grey(index) for index in _ASKED])
    if np.abs(found_T - expected_T).max() > _TOLERANCE:
        return Finding(what, TROUBLE, f"returns wrong frames ({found_T} for {expected_T})")
    version = version_of(DECODERS[name])
    return Finding(what, OK, f"{version}, reads the sample in {1000 * elapsed_sec:.0f} ms")


def write_sample(path: str) -> None:
    """Write an H.264 mp4 of 12 grey frames, each brighter than the one before."""
    av = importlib.import_module("av")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "6"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for index in range(_NUM_FRAMES):
            frame_HWC = np.full((_HEIGHT, _WIDTH, 3), _grey(index), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())


def _grey(index: int) -> int:
    return 30 + 16 * index


def check_loader(*, num_workers: int = 2, time_limit_sec: float = 120.0) -> Iterator[Finding]:
    """Start loader processes and make each send a megabyte the way decoded videos are sent."""
    what, begin = "loader processes", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hiera_video_doctor_") as folder:
        log = os.path.join(folder, "stderr")
        try:
            with stderr_in(log):
                said, status = _run_pool(num_workers, time_limit_sec)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            said, status = f"do not start ({reason_of(error)})", TROUBLE
        with open(log, errors="replace") as file:
            words = file.read().strip().splitlines()
    if status == OK:
        yield Finding(what, OK, f"{said} in {time.monotonic() - begin:.1f} s")
        return
    if words:
        said += f"; their last output: {words[-1]}"
    advice = (
        "Fix the troubles above first: memory, open files, a package that does not import. "
        "DATA_LOADER.NUM_WORKERS 0 loads without worker processes."
    )
    yield Finding(what, TROUBLE, said, advice)


def _run_pool(num_workers: int, time_limit_sec: float) -> tuple[str, str]:
    workers: Any = importlib.import_module("hiera_video.data.workers.pool")
    give_up_at = time.monotonic() + time_limit_sec
    with workers.WorkerPool(_answer, num_workers=num_workers, deadline_sec=30.0) as pool:
        for task_id in range(num_workers):
            pool.submit(task_id, task_id)
        for _ in range(num_workers):
            result = pool.next(timeout_sec=max(give_up_at - time.monotonic(), 0.1))
            if result is None:
                return f"do not answer within {time_limit_sec:g} s", TROUBLE
            if isinstance(result, workers.Lost):
                return f"end unexpectedly ({result.reason})", TROUBLE
            if not bool((result.value == result.task_id).all()):
                return "send wrong numbers", TROUBLE
    return f"{num_workers} start and send their results", OK


def _answer(task: int, job: Any) -> np.ndarray:
    job.begin(0)
    numbers = job.empty((_RESULT_BYTES,), np.uint8)
    numbers[:] = task
    return numbers


def main() -> None:
    """Try the decoder named on the command line and print the result as JSON."""
    found = try_decoder(sys.argv[1])
    print("\n" + json.dumps({"status": found.status, "said": found.said}), flush=True)


if __name__ == "__main__":
    main()

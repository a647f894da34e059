import os
import signal
import time
from pathlib import Path

import pytest

from hiera_video.engine.parallel.watchdog import BACKWARD, Watchdog


def test_alone_it_only_passes_the_batches_on():
    watchdog = Watchdog(0.01, pytest.fail)
    passed = []
    for batch in watchdog.follow("abc"):
        watchdog.enter(BACKWARD)
        passed.append(batch)
    time.sleep(0.05)
    watchdog.close()
    assert passed == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process by /proc")
@pytest.mark.parametrize(("num_processes", "rank"), [(2, 1), (3, 1), (3, 2)])
def test_a_process_that_stands_still_is_named(
    start_torchrun, small_run, tmp_path, pid_of_rank, num_processes, rank
):
    words = small_run("SOLVER.MAX_EPOCH 60 LOG_PERIOD 1 DIST.WATCHDOG_SEC 1 TRAIN.BATCH_SIZE 6 "
                      "TRAIN.EVAL_PERIOD 100 TRAIN.CHECKPOINT_PERIOD 100")  # fmt: skip
    running = start_torchrun(num_processes, *words)
    log = tmp_path / "output" / "stdout.log"
    end = time.monotonic() + 90

    def wait_for(words):
        while not (log.exists() and words in log.read_text()):
            assert time.monotonic() < end
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)

    wait_for("epoch 3/60 iteration 1/2")
    still = pid_of_rank(rank, running.pid)
    os.kill(still, signal.SIGSTOP)
    try:
        wait_for("keeps the others waiting")
    finally:
        os.kill(still, signal.SIGCONT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    (warning,) = [line for line in log.read_text().splitlines() if "a step takes" in line]
    assert f"rank {rank} keeps the others waiting: it " in warning


ENDS = """
import threading
from hiera_video.engine.parallel.processes import process_group
from hiera_video.engine.parallel.watchdog import Watchdog

def threads():
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]

with process_group(cpu_only=True, timeout_sec=60):
    try:
        with Watchdog(1.0, print) as watchdog:
            for batch in watchdog.follow("abc"):
                assert threads()
                raise SystemExit(75)
    except SystemExit:
        assert not threads()
"""


def test_its_thread_ends_with_a_run_that_is_broken_off(torchrun, script):
    # One that is at the store when Python ends takes the exit status along: 134, not 75.
    ended = torchrun(2, script(ENDS))
    assert ended.status == 0, ended.err

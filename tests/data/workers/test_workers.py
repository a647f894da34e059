"""Processes that are made to hang, crash and vanish: the pool goes on and says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hiera_video.data.workers import pool as workers
from hiera_video.data.workers.pool import Done, Lost, WorkerError, WorkerPool
from hiera_video.utils.errors import UserError


def work(task, job):
    """Do what the task says, a step for each word."""
    for step, word in enumerate(task):
        job.begin(step)
        if word == "hang":
            time.sleep(1000)
        elif word == "download":
            job.begin(-1)
            time.sleep(2.5)
        elif word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif word == "exit":
            os._exit(7)
        elif word == "wait":
            time.sleep(0.3)
        elif word == "bug":
            raise ZeroDivisionError("a bug")
        elif word == "refuse":
            raise UserError("KEY must be right.")
        elif isinstance(word, int):
            array = job.empty((word,), np.uint8)
            array[:] = word % 251
            return {"pid": os.getpid(), "shared": array, "copied": np.arange(word)}
    return os.getpid()


def results(pool, count):
    return [pool.next(timeout_sec=60) for _ in range(count)]


def test_results_come_back_with_their_task_and_from_other_processes():
    with WorkerPool(work, num_workers=2, deadline_sec=0) as pool:
        for task_id in range(8):
            pool.submit(task_id, ["wait"])
        done = results(pool, 8)
        assert sorted(d.task_id for d in done) == list(range(8))
        pids = {d.value for d in done}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert pool.next(timeout_sec=0.1) is None


def test_arrays_cross_in_shared_memory_and_stay_while_they_are_read():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        kept = []
        for task_id, size in enumerate([10_000, 20_000, 100_000, 5_000, 100_000] * 3):
            pool.submit(task_id, [size])
            (done,) = results(pool, 1)
            kept.append((size, done.value["shared"], done.value["copied"]))
        for size, shared, copied in kept:
            assert shared.shape == (size,)
            assert (shared == size % 251).all()
            assert (copied == np.arange(size)).all()


def test_memory_is_used_again_once_nobody_reads_it():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        addresses = set()
        for task_id in range(10):
            pool.submit(task_id, [1_000_000])
            (done,) = results(pool, 1)
            addresses.add(done.value["shared"].__array_interface__["data"][0])
            open_files = len(os.listdir("/proc/self/fd"))
            del done
        assert len(addresses) <= 3
        assert open_files == len(os.listdir("/proc/self/fd"))


def test_a_step_that_hangs_costs_its_process_and_nothing_else():
    with WorkerPool(work, num_workers=1, deadline_sec=1.0) as pool:
        pool.submit(0, ["fine", "hang", "fine"])
        pool.submit(1, ["fine"])
        pool.submit(2, ["fine"])
        lost, *others = results(pool, 3)
        assert isinstance(lost, Lost)
        assert (lost.task_id, lost.step, lost.hung, lost.signal) == (0, 1, True, 0)
        assert "longer than 1 s" in lost.reason
        assert [(type(d), d.task_id) for d in others] == [(Done, 1), (Done, 2)]


def test_the_deadline_is_for_a_step_not_for_a_task():
    with WorkerPool(work, num_workers=1, deadline_sec=1.5) as pool:
        pool.submit(0, ["wait"] * 8)
        (done,) = results(pool, 1)
        assert isinstance(done, Done)


def stop_and_wait(pid):
    os.kill(pid, signal.SIGSTOP)
    give_up_at = time.monotonic() + 20
    while "T (stopped)" not in state_of(pid):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_process_that_is_stopped_between_tasks_is_replaced_and_no_task_is_lost():
    with WorkerPool(work, num_workers=1, deadline_sec=1.0) as pool:
        pool.submit(0, ["fine"])
        (first,) = results(pool, 1)
        while pool._workers[0].current()[0] is not None:
            time.sleep(0.01)  # it has answered, and is not yet at rest
        stop_and_wait(first.value)
        pool.submit(1, ["fine"])
        pool.submit(2, ["fine"])
        done = results(pool, 2)
        assert [(type(d), d.task_id) for d in done] == [(Done, 1), (Done, 2)]
        assert first.value not in {d.value for d in done}
        with pytest.raises(ProcessLookupError):
            os.kill(first.value, 0)


def test_a_process_without_a_task_has_no_deadline():
    with WorkerPool(work, num_workers=1, deadline_sec=0.5) as pool:
        pool.submit(0, ["fine"])
        (first,) = results(pool, 1)
        assert [pool.next(timeout_sec=0.6) for _ in range(2)] == [None, None]
        pool.submit(1, ["fine"])
        (second,) = results(pool, 1)
        assert second.value == first.value


@pytest.mark.slow
def test_a_process_that_is_stopped_while_it_starts_is_replaced(monkeypatch):
    monkeypatch.setattr(workers, "_MAX_START_SEC", 6.0)
    with WorkerPool(work, num_workers=1, deadline_sec=0.1) as pool:
        pool.submit(0, ["fine"])
        (first,) = pool.process_ids
        stop_and_wait(first)
        (done,) = results(pool, 1)
        assert isinstance(done, Done)
        assert done.value != first


def test_what_is_no_step_has_no_deadline():
    with WorkerPool(work, num_workers=1, deadline_sec=1.0) as pool:
        pool.submit(0, ["download", "fine"])
        (done,) = results(pool, 1)
        assert isinstance(done, Done)


@pytest.mark.parametrize(("word", "cause"), [("crash", "SIGSEGV"), ("exit", "exit code 7")])
def test_a_process_that_dies_is_replaced_and_its_queue_kept(word, cause):
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        pool.submit(0, ["fine", "fine", word])
        pool.submit(1, ["fine"])
        lost, done = results(pool, 2)
        assert (lost.task_id, lost.step, lost.hung) == (0, 2, False)
        assert cause in lost.reason
        assert lost.signal == (signal.SIGSEGV if word == "crash" else 0)
        assert done.task_id == 1


def test_a_process_killed_from_outside_is_told_apart():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        pool.submit(0, ["fine"])
        results(pool, 1)
        pool.submit(1, ["hang"])
        time.sleep(0.5)
        os.kill(pool.process_ids[0], signal.SIGKILL)
        (lost,) = results(pool, 1)
        assert (lost.task_id, lost.signal) == (1, signal.SIGKILL)


SERVER = """
import signal
from multiprocessing import forkserver
from pathlib import Path
from hiera_video.data.workers import process as worker
worker._start_server()
status = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()
blocked = int(status.split("SigBlk:")[1].split()[0], 16)
print(*(one.name for one in worker._signals_of_runs() if blocked >> (one - 1) & 1))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_the_server_of_workers_is_deaf_to_signals_of_the_run_from_its_start():
    done = subprocess.run([sys.executable, "-c", SERVER], capture_output=True, text=True)
    assert done.stdout == "SIGINT SIGTERM SIGUSR1\nset()\n"


def test_signals_for_the_run_do_not_end_its_workers():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        pool.submit(0, ["fine"])
        (first,) = results(pool, 1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(first.value, number)
        pool.submit(1, ["fine"])
        (second,) = results(pool, 1)
        assert second.value == first.value


def test_exceptions_keep_their_traceback_and_user_errors_their_kind():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        pool.submit(0, ["bug"])
        with pytest.raises(WorkerError, match=r"(?s)in work.*ZeroDivisionError: a bug"):
            pool.next(timeout_sec=60)
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        pool.submit(0, ["refuse"])
        with pytest.raises(UserError, match="KEY must be right"):
            pool.next(timeout_sec=60)


class DiesAtBirth:
    """Cannot be unpickled, as what a worker lacks a module for."""

    def __call__(self, task, job):
        """Never called."""

    def __reduce__(self):
        return os._exit, (3,)


def test_processes_that_end_before_they_begin_are_not_started_for_ever():
    with WorkerPool(DiesAtBirth(), num_workers=2, deadline_sec=0) as pool:
        pool.submit(0, None)
        with pytest.raises(WorkerError, match=r"end as soon as they start \(exit code 3\)"):
            pool.next(timeout_sec=60)
        assert pool.process_ids == []


def test_forgotten_tasks_give_nothing():
    with WorkerPool(work, num_workers=1, deadline_sec=0) as pool:
        for task_id in range(5):
            pool.submit(task_id, ["wait"])
        pool.cancel()
        pool.submit(5, ["fine"])
        (done,) = results(pool, 1)
        assert done.task_id == 5
        assert pool.next(timeout_sec=0.5) is None


def test_close_ends_processes_that_hang():
    pool = WorkerPool(work, num_workers=2, deadline_sec=0)
    pool.submit(0, ["hang"])
    pool.submit(1, ["hang"])
    time.sleep(0.5)
    pids = pool.process_ids
    assert len(pids) == 2
    pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


SCRIPT = """
import multiprocessing, os, signal, sys, time
from hiera_video.data.workers.pool import WorkerPool

def work(task, job):
    job.begin(0)
    if task == "hang":
        time.sleep(1000)
    return os.getpid()

if __name__ != "__main__" and sys.argv[1] == "early":
    time.sleep(1)  # a process that is still starting when the one that it works for is killed

if __name__ == "__main__":
    pool = WorkerPool(work, num_workers=1, deadline_sec=0)
    if sys.argv[1] == "early":
        pool.submit(0, "hang")
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    pool.submit(0, "fine")
    print(pool.next().value, flush=True)
    pool.submit(1, "hang")
    if sys.argv[1] == "stay":
        time.sleep(1000)
"""


@pytest.mark.parametrize("ending", ["leave", "stay", "early"])
def test_processes_end_with_the_one_that_started_them(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.Popen([sys.executable, script, ending], stdout=subprocess.PIPE, text=True)
    pid = int(run.stdout.readline())
    if ending == "stay":
        time.sleep(0.3)
        run.kill()
    assert run.wait(timeout=30) == (0 if ending == "leave" else -signal.SIGKILL)
    give_up_at = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and "zombie" not in state_of(pid):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def state_of(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(line for line in status if line.startswith("State"))
    except FileNotFoundError:
        return "zombie"

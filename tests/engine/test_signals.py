"""Real signals to real runs: saved, an exit status to requeue on, and nothing lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hiera_video.checkpoints.run_folder import checkpoint_path, positions
from hiera_video.config import to_yaml
from hiera_video.engine.launch import launch
from hiera_video.engine.signals import REQUEUE_STATUS, Requeue, StopSignals
from hiera_video.models.hiera import Hiera

# Long enough not to end before the signal comes.
LONG = (
    "TRAIN.BATCH_SIZE 2 SOLVER.MAX_EPOCH 500 TRAIN.CHECKPOINT_PERIOD 500 TRAIN.EVAL_PERIOD 500 "
    "MODEL.DROP_PATH_RATE 0.3 TEST.ENABLE False DATA_LOADER.NUM_WORKERS 2"
)


def log_of(cfg):
    path = Path(cfg.OUTPUT_DIR) / "stdout.log"
    return path.read_text() if path.exists() else ""


def wait_for(words, cfg, process):
    deadline = time.monotonic() + 240
    while words not in log_of(cfg):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def handlers():
    """Leave the process's handlers as they were."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield numbers
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def start_run():
    """Start a run as the leader of a process group; return its process."""
    started = []

    def start(cfg, program="tools/run_net.py"):
        config = Path(f"{cfg.OUTPUT_DIR}.yaml")
        config.write_text(to_yaml(cfg))
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        process = subprocess.Popen(
            [sys.executable, *program.split(), "--cfg", str(config)],
            env=os.environ | threads,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


# Slurm signals all processes of a job: those of the loader are in the group, too.
@pytest.mark.parametrize(
    ("number", "send", "workers", "status"),
    [
        (signal.SIGTERM, os.killpg, 2, REQUEUE_STATUS),
        (signal.SIGUSR1, os.kill, 0, REQUEUE_STATUS),
        (signal.SIGINT, os.killpg, 2, 130),  # as a terminal does at Ctrl-C
    ],
)
def test_a_signal_ends_the_step_saves_and_exits_to_be_requeued(
    small_cfg, start_run, number, send, workers, status
):
    cfg = small_cfg(LONG, f"DATA_LOADER.NUM_WORKERS {workers}")
    process = start_run(cfg)
    wait_for("epoch 2/500 iteration 3/8", cfg, process)
    send(process.pid, number)
    assert process.wait(timeout=60) == status
    name, said = signal.Signals(number).name, ""
    if number == signal.SIGINT:
        name = "Ctrl-C"
        said = "\nCtrl-C: the run ends after this step. Ctrl-C again ends it at once, unsaved.\n"
    assert process.stderr.read() == said
    (saved,) = positions(cfg.OUTPUT_DIR)
    assert f"stopped by {name}; saved after {saved} in" in log_of(cfg)
    assert f"exit status {status}: the same command goes on from there" in log_of(cfg)

    done = saved.epoch + 1
    more = f"{LONG} SOLVER.MAX_EPOCH {done} SOLVER.WARMUP_EPOCHS 0 DATA_LOADER.NUM_WORKERS 0"
    launch(small_cfg(more))
    assert f"resumed after {saved} from" in log_of(cfg)
    assert f"epoch {done}/{done} done" in log_of(cfg)


def test_a_second_signal_ends_a_run_that_is_stuck_at_once(small_cfg, tiny_set, tmp_path, start_run):
    endless = tmp_path / "stuck.webm"
    video = next(Path(tiny_set).rglob("*.mp4"))
    with av.open(str(endless), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=30)
        stream.width = stream.height = 64
        for _ in range(9):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    os.truncate(endless, 1 << 40)  # whoever looks for the next packet looks for hours
    (tmp_path / "train.csv").write_text(f"{endless} 0\n{endless} 1\n")
    (tmp_path / "val.csv").write_text(f"{video} 0\n")
    stuck = "DATA_LOADER.TIMEOUT_SEC 0 DATA_LOADER.NUM_WORKERS 1"
    cfg = small_cfg(f"DATA.PATH_TO_DATA_DIR {tmp_path} {stuck}", LONG)
    process = start_run(cfg)
    wait_for("training hiera", cfg, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # as from a launcher that passes it on: the same notice
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 128 + signal.SIGTERM


def test_a_signal_in_the_final_test_is_requeued_on_and_the_test_begins_anew(small_cfg, handlers):
    cfg = small_cfg("SOLVER.MAX_EPOCH 1 TEST.ENABLE True TEST.BATCH_SIZE 6")

    def signal_in_the_test(module, _):
        if isinstance(module, Hiera) and "] testing " in log_of(cfg):
            os.kill(os.getpid(), signal.SIGUSR1)

    hook = register_module_forward_pre_hook(signal_in_the_test)
    with hook, pytest.raises(SystemExit) as ended:
        launch(cfg)
    assert ended.value.code == REQUEUE_STATUS
    assert "stopped by SIGUSR1; the test was not finished and will start again;" in log_of(cfg)
    assert "test: top-1" not in log_of(cfg)
    assert launch(cfg).num_evaluated == 8
    assert "nothing to train" in log_of(cfg)


# A step that never ends, in which the signals of the words after it come.
STUCK = """
import os, signal, sys, time
from hiera_video.engine.signals import StopSignals
with StopSignals(print) as stop:
    stop.hold()
    for name in sys.argv[1:]:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.1)
    print("still here")
"""


@pytest.mark.parametrize(
    ("signals", "launched", "status"),
    [
        ("SIGINT", False, 0),
        ("SIGINT SIGINT", False, 130),
        ("SIGTERM SIGINT", False, 0),  # the same notice, perhaps
        ("SIGINT SIGTERM", False, 0),
        ("SIGINT SIGINT", True, 0),  # from the terminal, and from torchrun
    ],
)
def test_a_second_ctrl_c_ends_a_step_at_once(signals, launched, status):
    ranks = {"RANK": "0", "WORLD_SIZE": "2"} if launched else {}
    done = subprocess.run(
        [sys.executable, "-c", STUCK, *signals.split()],
        env=os.environ | ranks,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (status, "" if status else "still here\n")


def test_ctrl_c_is_left_alone_where_it_is_ignored(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals(print) as stop:
        stop.hold()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize("pause_sec", [0.0, 0.01])
def test_a_second_signal_does_not_change_how_a_run_ends(small_cfg, start_run, pause_sec):
    # As torchrun's, or a scheduler's, which may come while Python ends.
    cfg = small_cfg(LONG)
    process = start_run(cfg)
    wait_for("epoch 1/500 iteration 2/8", cfg, process)
    process.send_signal(signal.SIGUSR1)
    wait_for("stopped by SIGUSR1", cfg, process)
    time.sleep(pause_sec)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == REQUEUE_STATUS


def test_the_resumed_run_has_the_weights_of_one_never_stopped(small_cfg, tmp_path, handlers):
    keys = "TRAIN.BATCH_SIZE 2 MODEL.DROP_PATH_RATE 0.3 TEST.ENABLE False"
    whole = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    stopped = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'stopped'}")
    forward_passes = 0

    def signal_at_the_third(module, _):
        nonlocal forward_passes
        forward_passes += isinstance(module, Hiera) and module.training
        if forward_passes == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_module_forward_pre_hook(signal_at_the_third)
    with hook, pytest.raises(SystemExit) as ended:
        launch(stopped)
    assert ended.value.code == REQUEUE_STATUS
    assert "saved after iteration 3 of epoch 1" in log_of(stopped)
    launch(stopped)
    one, other = (
        torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True)["model_state"]
        for cfg in (whole, stopped)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_signal_in_the_validation_of_an_epoch_that_is_not_saved_saves_it(
    small_cfg, tmp_path, handlers
):
    keys = "TRAIN.CHECKPOINT_PERIOD 2 TRAIN.EMA_DECAY 0.9 TEST.ENABLE False TEST.BATCH_SIZE 2"
    whole = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'whole'}")
    launch(whole)
    stopped = small_cfg(keys, f"OUTPUT_DIR {tmp_path / 'stopped'}")
    forward_passes = 0

    def signal_at_the_second(module, _):
        nonlocal forward_passes
        forward_passes += isinstance(module, Hiera) and not module.training
        if forward_passes == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = register_module_forward_pre_hook(signal_at_the_second)
    with hook, pytest.raises(SystemExit) as ended:
        launch(stopped)
    assert ended.value.code == REQUEUE_STATUS
    assert forward_passes == 2  # of the four that it takes
    assert "saved after epoch 1 in" in log_of(stopped)
    launch(stopped)
    said = [log_of(cfg).count("1/2 validation of the averaged") for cfg in (whole, stopped)]
    assert said == [1, 1]
    one, other = (
        torch.load(checkpoint_path(cfg.OUTPUT_DIR, 2), weights_only=True)
        for cfg in (whole, stopped)
    )
    for part in ("model_state", "ema_state"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_where_all_is_saved_a_signal_ends_the_run_at_once(handlers, when):
    said = []

    def notice(moment):
        if moment == when:
            os.kill(os.getpid(), signal.SIGUSR1)

    def live():
        with StopSignals(said.append) as stop:
            notice("before")
            stop.hold()
            assert not stop.requested
            notice("during")
            assert stop.requested == (when == "during")
            stop.release()
            notice("after")

    with pytest.raises(Requeue):
        live()
    (line,) = said
    assert line.startswith("stopped by SIGUSR1; all was saved before; exit status 75")


def test_the_handlers_are_those_of_before_when_a_run_is_over(handlers):
    before = [signal.getsignal(number) for number in handlers]
    with StopSignals(print):
        assert [signal.getsignal(number) for number in handlers] != before
    assert [signal.getsignal(number) for number in handlers] == before

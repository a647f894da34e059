import itertools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data

# Workers import the package once a test: one thread each, and nothing asked of the network's names.
QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}


@dataclass
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def start_torchrun(tmp_path):
    """Start `torchrun --nproc-per-node n [options] words` as a person would."""
    started = []

    def start(num_processes, *words, options=(), **environment):
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr"),
            *("localhost", "--nproc-per-node", str(num_processes), *options, *map(str, words)),
        ]
        started.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **QUIET, "TMPDIR": str(tmp_path), **environment},
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # which takes its workers along
            process.wait()


@pytest.fixture
def torchrun(start_torchrun):
    """Run torchrun to its end; return how it ended."""

    def run(*arguments, timeout_sec=300, **settings):
        process = start_torchrun(*arguments, **settings)
        out, err = process.communicate(timeout=timeout_sec)
        return Ended(process.returncode, out, err)

    return run


def _be_a_rank(environment, words, out, err):
    """Become a process of a run: its environment, words and output, then its script."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    sys.argv = list(words)
    runpy.run_path(words[0], run_name="__main__")


def _until_ended(processes, timeout_sec):
    """Start the processes and wait until all have ended or one has failed; return its status."""
    for process in processes:
        process.start()
    end, status = time.monotonic() + timeout_sec, 0
    running = processes
    while running and not status:
        assert time.monotonic() < end, f"{len(running)} of {len(processes)} did not end in time"
        wait([process.sentinel for process in running], 1)
        running = [process for process in processes if process.exitcode is None]
        status = next((process.exitcode for process in processes if process.exitcode), 0)
    return status


@pytest.fixture
def ranks(tmp_path):
    """Run a script in processes that know their places, as under srun; return how it ended.

    They come without torchrun's agent, from a process that has imported PyTorch before.
    """
    context = multiprocessing.get_context("forkserver")
    # What every training imports. Without effect where a test has started the server before.
    context.set_forkserver_preload(["hiera_video.commands.train", "torch._dynamo"])
    numbers = itertools.count()

    def run(num_processes, *words, timeout_sec=300, **environment):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        group = {**os.environ, **QUIET, "TMPDIR": str(tmp_path), **environment}
        group |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        group |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
        said = tmp_path / f"ranks{next(numbers)}"
        said.mkdir()
        here = []
        for rank in map(str, range(num_processes)):
            own = (said / f"{rank}.out", said / f"{rank}.err")
            place = dict.fromkeys(("RANK", "LOCAL_RANK"), rank)
            arguments = (group | place, list(map(str, words)), *own)
            here.append(context.Process(target=_be_a_rank, args=arguments))
        try:
            status = _until_ended(here, timeout_sec)
        finally:
            for process in here:
                process.kill()  # where another has failed
                process.join()
        out, err = (
            "".join(path.read_text() for path in sorted(said.glob(f"*.{kind}")))
            for kind in ("out", "err")
        )
        return Ended(status, out, err)

    return run


@pytest.fixture
def pid_of_rank():
    """Find the process of a rank among the children of torchrun."""

    def find(rank, agent):
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        for child in children:
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        raise AssertionError(f"no rank {rank} among {children}")

    return find


@pytest.fixture
def script(tmp_path):
    """Write a script for torchrun; return its path."""

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    """A folder of 16 training and 8 validation videos of 8 classes."""
    folder = str(tmp_path_factory.mktemp("tiny"))
    make_demo_data(
        folder,
        DemoParameters(num_train_per_class=2, num_val_per_class=1, size=48, num_frames=12),
        num_workers=1,
    )
    return folder


# As small as a real run gets. Every gradient as long as it is, and plain SGD: Adam would make a
# step of any difference in rounding where the gradient is zero.
SMALL = (
    "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32 "
    "TRAIN.BATCH_SIZE 8 DATA_LOADER.NUM_WORKERS 0 TEST.NUM_TEMPORAL_CLIPS 2 "
    "TEST.NUM_SPATIAL_CROPS 3 SOLVER.MAX_EPOCH 2 TENSORBOARD.ENABLE False TEST.ENABLE False "
    "NUM_GPUS 0 DIST.TIMEOUT_SEC 60 SOLVER.OPTIMIZING_METHOD sgd SOLVER.CLIP_GRAD_L2NORM 0.0 "
    "SOLVER.BASE_BATCH_SIZE 0 SOLVER.BASE_LR 0.1 SOLVER.WARMUP_EPOCHS 0 MODEL.DROP_PATH_RATE 0.0 "
    "MODEL.DROPOUT_RATE 0.0"
)


@pytest.fixture
def small_run(tiny_set, tmp_path):
    """Return the words of a small run; more are `KEY VALUE KEY VALUE`, `name` its folder.

    With `double` the model is in float64: to compare sums that may round differently.
    """

    def words(*more, name="output", cfg="HIERA_MICRO", double=False):
        script = "tests/distributed/run_double.py" if double else "tools/run_net.py"
        return [
            *(script, "--cfg", f"configs/Demo/{cfg}.yaml", *SMALL.split()),
            *("DATA.PATH_TO_DATA_DIR", tiny_set, "OUTPUT_DIR", str(tmp_path / name)),
            *(word for line in more for word in line.split()),
        ]

    return words

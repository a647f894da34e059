import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

# Workers import the package once a test: one thread each, and nothing asked of the network's names.
QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}


@dataclass
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def torchrun(tmp_path):
    """Run `torchrun --nproc-per-node n [options] words` as a person would; return how it ended."""

    def run(num_processes, *words, options=(), timeout_sec=120, **environment):
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr"),
            *("localhost", "--nproc-per-node", str(num_processes), *options, *map(str, words)),
        ]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_sec,
            env={**os.environ, **QUIET, "TMPDIR": str(tmp_path), **environment},
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def script(tmp_path):
    """Write a script for torchrun; return its path."""

    def write(text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write

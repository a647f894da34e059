import runpy
import sys
from dataclasses import dataclass

import pytest

from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def run_tool(capsys, monkeypatch):
    """Run tools/NAME.py as the command line does; the words after it are split at spaces."""

    def run(name, line):
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *line.split()])
        capsys.readouterr()
        try:
            runpy.run_path(f"tools/{name}.py", run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        else:
            status = 0
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """A folder of 16 training and 8 validation videos of 8 classes."""
    folder = tmp_path_factory.mktemp("small")
    make_demo_data(
        str(folder),
        DemoParameters(num_train_per_class=2, num_val_per_class=1, size=48, num_frames=12),
        num_workers=1,
    )
    return folder


SMALL = (
    "--cfg configs/Demo/HIERA_MICRO.yaml DATA.NUM_FRAMES 4 DATA.TRAIN_CROP_SIZE 32 "
    "DATA.TEST_CROP_SIZE 32 TRAIN.BATCH_SIZE 8 DATA_LOADER.NUM_WORKERS 0 SOLVER.MAX_EPOCH 1 "
    "TENSORBOARD.ENABLE False"
)


@pytest.fixture
def small_run(small_set, tmp_path):
    """Return the arguments of a small run on `small_set`."""
    return f"{SMALL} DATA.PATH_TO_DATA_DIR {small_set} OUTPUT_DIR {tmp_path / 'output'}"

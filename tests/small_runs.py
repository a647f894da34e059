"""Fixtures of small training runs: a set of tiny videos, and a config that trains on it."""

import pytest

from hiera_video.config import load_config
from hiera_video.data.synthetic.manifest import DemoParameters
from hiera_video.data.synthetic.videos import make_demo_data

# As small as a real run gets: 4 frames of 32 px, one epoch in well under a second.
SMALL = [
    "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 2 DATA.TRAIN_CROP_SIZE 32 DATA.TEST_CROP_SIZE 32",
    "TRAIN.BATCH_SIZE 8 TRAIN.EVAL_PERIOD 1 TRAIN.CHECKPOINT_PERIOD 1 DATA_LOADER.NUM_WORKERS 0",
    "TEST.NUM_TEMPORAL_CLIPS 2 TEST.NUM_SPATIAL_CROPS 3",
    "SOLVER.MAX_EPOCH 2 LOG_PERIOD 1 TENSORBOARD.ENABLE False",
]


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


@pytest.fixture
def small_cfg(tiny_set, tmp_path):
    """Make a config of a small run on the tiny set; overrides are `KEY VALUE KEY VALUE`."""

    def make(*overrides):
        here = f"DATA.PATH_TO_DATA_DIR {tiny_set} OUTPUT_DIR {tmp_path / 'output'}"
        words = [word for line in (*SMALL, here, *overrides) for word in line.split()]
        return load_config("configs/Demo/HIERA_MICRO.yaml", words)

    return make

"""Two runs in one OUTPUT_DIR: the second training is refused, a test beside it is not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import simplejson
from torch.nn.modules.module import register_module_forward_pre_hook

from hiera_video.checkpoints.run_folder import checkpoint_path
from hiera_video.engine.launch import launch, make_output_dir
from hiera_video.models.hiera import Hiera
from hiera_video.utils.errors import UserError
from hiera_video.utils.folder_lock import FILE, FolderLock


def all_files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_second_training_is_refused_and_leaves_all_as_it_is(small_cfg):
    cfg = small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 1")
    launch(cfg)
    assert not os.path.exists(os.path.join(cfg.OUTPUT_DIR, FILE))
    lock = FolderLock(cfg.OUTPUT_DIR, print)
    before = all_files(cfg.OUTPUT_DIR)
    with pytest.raises(UserError, match="OUTPUT_DIR must be a folder that no other run trains in"):
        launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 2"))
    assert all_files(cfg.OUTPUT_DIR) == before
    # A test writes files of its own.
    assert launch(small_cfg("TRAIN.ENABLE False")).num_evaluated == 8
    lock.check()
    lock.release()
    launch(small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 2"))
    assert os.path.exists(checkpoint_path(cfg.OUTPUT_DIR, 2))


def test_a_folder_whose_name_no_system_takes_is_refused(small_cfg):
    cfg = replace(small_cfg(), OUTPUT_DIR="a\0b")
    with pytest.raises(UserError, match="OUTPUT_DIR must be a folder .*no path has a NUL"):
        make_output_dir(cfg)


def test_a_run_that_has_lost_its_folder_writes_no_checkpoint_there(small_cfg):
    cfg = small_cfg("TEST.ENABLE False SOLVER.MAX_EPOCH 2")
    path = Path(cfg.OUTPUT_DIR, FILE)

    def lose(module, _):
        if isinstance(module, Hiera):
            record = simplejson.loads(path.read_text())
            path.write_text(simplejson.dumps({**record, "host": "node7", "token": "another"}))

    with (
        register_module_forward_pre_hook(lose),
        pytest.raises(UserError, match="on node7 has run since"),
    ):
        launch(cfg)
    assert os.listdir(Path(cfg.OUTPUT_DIR, "checkpoints")) == []

"""Checkpoints are found in the folder of a run by their position."""

from hiera_video.checkpoints.run_folder import last_checkpoint


def test_checkpoints_are_ordered_by_number(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("00002", "00010", "100000", "00009"):
        (folder / f"checkpoint_epoch_{name}.pyth").touch()
    (folder / ".checkpoint_epoch_00011.pyth.x.tmp").touch()
    assert last_checkpoint(str(tmp_path)).endswith("checkpoint_epoch_100000.pyth")
    assert last_checkpoint(str(tmp_path / "none")) is None

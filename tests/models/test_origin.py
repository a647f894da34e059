from pathlib import Path

import pytest
import torch

from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.models.origin import is_published, origin_from, origin_of

THEIRS = "https://dl.fbaipublicfiles.com/hiera/mae_hiera_base_16x224.pth"


def saved(path, start):
    text = f"TRAIN: {{CHECKPOINT_FILE_PATH: '{start}'}}\n"
    torch.save({"model_state": {}, "cfg": text}, path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        THEIRS,
        "mae_k400_ft_k400",
        "copies/hiera_base_16x224.pth",
        "hiera_base_16x224.safetensors",
        "mae_hiera_tiny_224.pth",
    ],
)
def test_the_authors_files_are_known_by_name_and_place(name):
    assert is_published(name)
    assert origin_of(name, None).kind == "published"
    assert origin_of("mine.pyth", name).kind == "derived"
    assert origin_of("mine.pyth", name).licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize("name", ["", "mine.pyth", "checkpoint_epoch_00004.pyth", "hiera.pth"])
def test_others_are_not(name):
    assert not is_published(name)


def test_runs_are_followed_back(tmp_path):
    theirs = saved(tmp_path / "first.pyth", THEIRS)
    fresh = saved(tmp_path / "fresh.pyth", "")
    assert origin_of("mine.pyth", "").kind == "own"
    assert origin_of("mine.pyth", str(fresh)).kind == "own"
    assert origin_of("mine.pyth", str(fresh)).licence is None
    second = saved(tmp_path / "second.pyth", theirs)
    found = origin_of("mine.pyth", str(second))
    assert (found.kind, found.start) == ("derived", "mae_hiera_base_16x224.pth")


def test_what_the_files_do_not_tell_is_unknown(tmp_path):
    assert origin_of("mine.pyth", None).kind == "unknown"
    gone = origin_of("mine.pyth", str(tmp_path / "gone.pyth"))
    assert (gone.kind, gone.start) == ("unknown", "gone.pyth")
    plain = tmp_path / "plain.pyth"
    torch.save({"weight": torch.zeros(1)}, plain)
    assert origin_of("mine.pyth", str(plain)).kind == "unknown"
    (tmp_path / "damaged.pyth").write_bytes(b"PK\x03\x04")
    assert origin_of("mine.pyth", str(tmp_path / "damaged.pyth")).kind == "unknown"
    ring = tmp_path / "ring.pyth"
    assert origin_of("mine.pyth", str(saved(ring, ring))).kind == "unknown"


@pytest.mark.parametrize("odd", [7, {}, {"kind": "mine"}, {"kind": "own", "more": 1}, {"kind": []}])
def test_an_odd_origin_in_a_checkpoint_counts_for_none(tmp_path, odd):
    text = f"TRAIN: {{CHECKPOINT_FILE_PATH: '{THEIRS}'}}\n"
    torch.save({"model_state": {}, "cfg": text, "origin": odd}, tmp_path / "odd.pyth")
    assert origin_of("mine.pyth", str(tmp_path / "odd.pyth")).kind == "derived"
    torch.save({"model_state": {}, "cfg": text, "origin": {"kind": "own"}}, tmp_path / "odd.pyth")
    assert origin_of("mine.pyth", str(tmp_path / "odd.pyth")).kind == "own"


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"origin": {"kind": "own", "start": ""}}, "own"),
        ({"licence": "CC-BY-NC-4.0", "checkpoint": "a.pyth"}, "derived"),
        ({"licence": None}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_an_exported_folder_says_it_by_its_facts(tmp_path, facts, kind):
    model = hiera_micro_8x64(num_classes=2)
    model.save_pretrained(tmp_path / "model", facts=facts)
    for path in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert origin_of(str(path), "" if path.is_dir() else None).kind == kind
        assert origin_of("mine.pyth", str(path)).kind == kind


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system counts no reads")
def test_the_tensors_of_a_checkpoint_are_not_read(tmp_path):
    def bytes_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / "large.pyth"
    text = f"TRAIN: {{CHECKPOINT_FILE_PATH: '{THEIRS}'}}\n"
    torch.save({"model_state": {"weight": torch.zeros(5_000_000)}, "cfg": text}, path)
    before = bytes_read()
    assert origin_from(str(path)).kind == "derived"
    assert bytes_read() - before < 1_000_000 < path.stat().st_size

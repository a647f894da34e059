import argparse
import resource
import zipfile
from fractions import Fraction

import pytest
import torch

from hiera_video.utils.torch_files import load_plain


def repack(source, target, compression):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def test_a_file_that_would_grow_is_refused_before_it_does(tmp_path):
    stored, deflated = tmp_path / "stored.pt", tmp_path / "deflated.pt"
    torch.save({"a": torch.zeros(10_000_000)}, stored)
    repack(stored, deflated, zipfile.ZIP_DEFLATED)
    stored.unlink()
    assert deflated.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="its records are compressed"):
        load_plain(str(deflated))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_records_that_are_the_same_bytes_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        (record,) = [info for info in archive.infolist() if info.filename.endswith("data/0")]
        archive.filelist += [record] * 20  # twenty names for one place
        archive._didModify = True
    with pytest.raises(ValueError, match="larger than the file"):
        load_plain(str(path))


def test_a_scripts_arguments_are_read_and_other_classes_are_not(tmp_path):
    path = str(tmp_path / "w.pt")
    torch.save({"a": torch.ones(2), "args": argparse.Namespace(lr=0.1)}, path)
    assert load_plain(path)["args"].lr == 0.1
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    torch.save({"a": torch.ones(2), "args": Fraction(1, 2)}, path)
    with pytest.raises(Exception, match=r"fractions\.Fraction"):
        load_plain(path)

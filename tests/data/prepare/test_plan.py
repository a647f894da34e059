import pytest

from hiera_video.data.prepare.folders import Entry, Source
from hiera_video.data.prepare.plan import is_listable, plan_jobs, split_off_val
from hiera_video.utils.errors import UserError


def source_of(*names, root="/data"):
    return Source("a test", root, [Entry(f"{root}/{name}", "train", "k") for name in names])


def outputs(*names):
    return [job.output for job in plan_jobs(source_of(*names), "/out")]


def test_outputs_lie_as_their_sources_do():
    assert outputs("train/a b/ä.avi", "c.mp4") == ["videos/train/a b/ä.mp4", "videos/c.mp4"]


def test_no_two_outputs_have_one_name():
    assert outputs("a.avi", "a.mp4", "a.webm") == [
        *("videos/a.avi.mp4", "videos/a.mp4", "videos/a.webm.mp4"),
    ]
    assert outputs("a.avi", "a.mp4", "a.avi.mp4") == [
        *("videos/a.avi_.mp4", "videos/a.mp4", "videos/a.avi.mp4"),
    ]
    # Some disks take these for one name.
    assert outputs("A.mp4", "a.mp4") == ["videos/A.mp4", "videos/a_.mp4"]
    many = [f"{stem}.{ending}" for stem in "aA" for ending in ("avi", "mp4", "MP4", "avi.mp4")]
    assert len({name.casefold() for name in outputs(*many)}) == len(many)


def test_the_plan_does_not_depend_on_the_order():
    names = ["a.avi", "a.mp4", "b.mkv", "a.avi.mp4"]
    assert dict(zip(names, outputs(*names), strict=True)) == dict(
        zip(names[::-1], outputs(*names[::-1]), strict=True)
    )


def test_a_file_that_comes_twice_is_written_once():
    assert outputs("a.mp4", "b.mp4", "a.mp4") == ["videos/a.mp4", "videos/b.mp4"]


def test_names_that_a_list_cannot_hold_are_changed():
    assert outputs("a\nb.mp4", "c\udcff.mp4", "d\x85.mp4") == [
        *("videos/a_b.mp4", "videos/c_.mp4", "videos/d_.mp4"),
    ]
    assert is_listable("/a b/ä, 1.mp4")
    assert not is_listable("a\rb.mp4")


def test_sources_outside_the_root_keep_their_path():
    source = source_of("a.mp4")
    source.entries.append(Entry("/else/b.avi", "train", "k"))
    assert [job.output for job in plan_jobs(source, "/out")] == [
        *("videos/a.mp4", "videos/else/b.mp4"),
    ]


def test_no_output_is_written_over_a_source(tmp_path):
    folder = tmp_path / "set" / "videos"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"x")
    source = source_of("a.mp4", root=str(folder))
    with pytest.raises(UserError, match="OUTPUT must not be where the source videos lie"):
        plan_jobs(source, str(tmp_path / "set"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "videos").symlink_to(folder)
    with pytest.raises(UserError, match=r"videos/a.mp4 would be written over one of them"):
        plan_jobs(source, str(tmp_path / "out"))


def test_the_val_share_is_of_every_class_and_the_same_every_time():
    def val_of(names):
        source = Source("a test", "/d", [Entry(f"/d/{name}", "train", name[0]) for name in names])
        split_off_val(source, 0.2)
        return {entry.path for entry in source.entries if entry.split == "val"}

    names = [f"{label}/{number}.mp4" for label in "ab" for number in range(20)]
    chosen = val_of(names)
    assert sum(path.startswith("/d/a") for path in chosen) == 4
    assert len(chosen) == 8
    assert val_of(names[::-1]) == chosen
    # New videos of another class change nothing.
    assert val_of([*names, "c/1.mp4"]) == chosen


def test_a_file_that_comes_twice_is_not_split():
    source = source_of(*["a.mp4", "b.mp4", "c.mp4", "d.mp4"] * 2)
    split_off_val(source, 0.5)
    splits = {}
    for entry in source.entries:
        splits.setdefault(entry.path, set()).add(entry.split)
    assert all(len(found) == 1 for found in splits.values())


def test_val_shares_that_cannot_be():
    for share in (0, 1, -0.5):
        with pytest.raises(UserError, match="--val-share must be between 0 and 1"):
            split_off_val(source_of("a.mp4"), share)
    source = source_of("a.mp4")
    source.entries.append(Entry("/data/b.mp4", "val", "k"))
    with pytest.raises(UserError, match="has no val split of its own"):
        split_off_val(source, 0.1)

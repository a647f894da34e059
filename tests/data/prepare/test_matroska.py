import pytest

from hiera_video.data.prepare.matroska import is_cut_off


@pytest.mark.parametrize("name", ["vp9.webm", "h264_b.mkv"])
def test_a_byte_lacking_at_the_end_is_seen(videos, tmp_path, name):
    with open(videos[name], "rb") as file:
        content = file.read()
    assert not is_cut_off(videos[name])
    (tmp_path / name).write_bytes(content[:-1])
    assert is_cut_off(str(tmp_path / name))
    (tmp_path / name).write_bytes(content + b"appended")
    assert not is_cut_off(str(tmp_path / name))


def test_a_segment_of_unknown_size_is_not_judged(videos):
    assert not is_cut_off(videos["vp9_no_duration.webm"])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x00", b"\x1a\x45\xdf\xa3\x80none"),
        *(b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67", b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01\x02"),
    ],
)
def test_other_files_and_scraps_are_not_judged(tmp_path, content):
    (tmp_path / "scrap").write_bytes(content)
    assert not is_cut_off(str(tmp_path / "scrap"))

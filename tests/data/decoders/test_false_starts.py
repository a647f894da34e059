"""Files whose listed key frames give wrong pictures after a seek: read from the start, or refused.

Each file is made by changing a few bytes of a good one.
"""

from pathlib import Path

import av
import numpy as np
import pytest

from hiera_video.data.decoders import DecodeError, Decoding, open_video
from hiera_video.data.decoders._doubts import doubt_of_seeking
from hiera_video.data.decoders._packets import open_stream, scan

KINDS = ("old_x264.mp4", "old_x264.mkv", "false_keys.3gp", "no_time_scale.mp4")


def _name_an_old_x264(source: str) -> bytes:
    """Return the file with another version of x264 named in its first packet."""
    content = Path(source).read_bytes()
    place = content.find(b"x264 - core ") + len(b"x264 - core ")
    assert place > 20
    return content[:place] + b"148" + content[place + 3 :]


def _list_false_keys(source: str) -> bytes:
    """Return the file with all listed key frames but the first five frames too late (`stss`)."""
    content = bytearray(Path(source).read_bytes())
    numbers = content.find(b"stss") + 12
    count = int.from_bytes(content[numbers - 4 : numbers], "big")
    assert count == 4
    for place in range(numbers + 4, numbers + 4 * count, 4):
        number = int.from_bytes(content[place : place + 4], "big") + 5
        content[place : place + 4] = min(number, 40).to_bytes(4, "big")
    return bytes(content)


def _drop_time_scale(source: str) -> bytes:
    """Return the file without the time scale of its track (`mdhd`), and without its edit list."""
    content = bytearray(Path(source).read_bytes())
    place = content.find(b"mdhd") + 16
    content[place : place + 4] = bytes(4)
    edits = content.find(b"edts")
    content[edits : edits + 4] = b"free"
    return bytes(content)


@pytest.fixture(scope="module")
def false_starts(tmp_path_factory, make_video, index_frames) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("false starts")
    frames_THWC = index_frames(40, height=96, width=128)
    x264 = {"options": {"g": "12", "crf": "20"}}
    encodings = {
        "old_x264.mp4": (_name_an_old_x264, {"pix_fmt": "yuv444p", **x264}),
        "old_x264.mkv": (_name_an_old_x264, {"pix_fmt": "yuv444p", **x264}),
        "false_keys.3gp": (_list_false_keys, {"codec": "h263", "options": {"g": "12"}}),
        "no_time_scale.mp4": (_drop_time_scale, x264),
    }
    paths = {}
    for name, (change, encoding) in encodings.items():
        if encoding.get("codec", "libx264") in av.codecs_available:
            source = make_video(folder / f"source {name}", frames_THWC, **encoding)
            (folder / name).write_bytes(change(source))
            paths[name] = str(folder / name)
    return paths


def _path_of(name: str, false_starts: dict[str, str]) -> str:
    if name not in false_starts:
        pytest.skip(f"no encoder for {name} in this build of PyAV")
    return false_starts[name]


def _as_stored(backend: str) -> Decoding:
    return Decoding(backend, square_pixels=False)


@pytest.mark.parametrize("backend", ["pyav", "auto"])
@pytest.mark.parametrize("name", KINDS)
def test_pyav_gives_the_pictures_of_a_decode_from_the_start(
    name, backend, false_starts, decode_all
) -> None:
    path = _path_of(name, false_starts)
    truth = decode_all(path)
    assert len(truth) == 40
    for index in (30, 39, 17, 13, 0):
        with open_video(path, _as_stored(backend)) as reader:  # a new one: it seeks first
            assert reader.num_frames == len(truth)
            assert np.array_equal(reader.frames_at([index])[0], truth[index]), index


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
@pytest.mark.parametrize("name", KINDS)
def test_the_others_refuse_them_in_one_line(name, backend, false_starts, capfd) -> None:
    path = _path_of(name, false_starts)
    with pytest.raises(DecodeError, match=r"DATA\.DECODING_BACKEND auto or pyav") as caught:
        open_video(path, backend)
    assert str(caught.value).startswith(f"{path}: {backend} ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("old_x264.mp4", "settings"),
        ("false_keys.3gp", "key frame from which it does not decode"),
    ],
)
def test_the_cause_is_named(name, cause, false_starts) -> None:
    assert cause in _doubt(_path_of(name, false_starts))


def _doubt(path: str) -> str:
    container, stream = open_stream(path, path)
    with container:
        return doubt_of_seeking(container, stream, scan(container, stream))


def test_a_version_of_x264_without_the_error_is_no_cause(
    tmp_path, make_video, index_frames
) -> None:
    """An old version is no matter in 4:2:0, nor is a new one in 4:4:4."""
    frames_THWC = index_frames(30)
    options = {"g": "12"}
    new = make_video(tmp_path / "new.mp4", frames_THWC, pix_fmt="yuv444p", options=options)
    usual = make_video(tmp_path / "usual.mp4", frames_THWC, options=options)
    old = tmp_path / "old.mp4"
    old.write_bytes(_name_an_old_x264(usual))
    assert [_doubt(path) for path in (new, usual, str(old))] == ["", "", ""]


def test_a_decoder_that_marks_no_key_frames_is_no_cause(tmp_path, make_video, index_frames) -> None:
    if "svq1" not in av.codecs_available:
        pytest.skip("no encoder for SVQ1 in this build of PyAV")
    svq1 = {"codec": "svq1", "pix_fmt": "yuv410p", "options": {"g": "6"}}
    assert _doubt(make_video(tmp_path / "x.mov", index_frames(14), **svq1)) == ""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hiera_video.data.decoders import DecodeError, VideoReader, open_video
from hiera_video.data.decoders import pyav as pyav_backend
from hiera_video.data.decoders import torchcodec as torchcodec_backend
from hiera_video.data.decoders._packets import PacketTable, scan
from hiera_video.data.decoders.decord import DecordReader
from hiera_video.data.decoders.torchcodec import TorchcodecReader
from hiera_video.data.prepare.encode import Encoding, encode
from hiera_video.data.prepare.verify import verify
from hiera_video.utils.errors import UserError

BACKENDS = ("pyav", "torchcodec", "decord", "auto")
NAMED = BACKENDS[:-1]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("h264_b.mp4", "sparse"),
        ("h264_b.mkv", "sparse"),
        ("h264_open_groups.mp4", "sparse"),
        ("h264_late_start.mkv", "sparse"),
        ("hevc_open_groups.mp4", "seek"),
        ("mpeg4.avi", "seek"),
        ("mpeg4_b.avi", "seek"),
        ("vp9_no_duration.webm", "seek"),
        ("vp8_hidden.webm", "seek"),
        ("h264_interlaced.mp4", "seek"),
        ("h264_b.avi", "start"),
    ],
)
def test_pyav_reads_in_the_fastest_way_that_is_right(name, mode, videos, some_indices) -> None:
    with open_video(videos[name], "pyav") as reader:
        for indices in some_indices(reader.num_frames):
            assert reader.mode == mode or name == "h264_interlaced.mp4"
            reader.frames_at(indices)
        assert reader.mode == mode


def test_pyav_falls_back_where_packets_promise_a_frame_too_many(
    videos, decode_index, monkeypatch
) -> None:
    def scan_and_add_one(*args: Any) -> PacketTable:
        table = scan(*args)
        pts_N = np.insert(table.pts_N, 21, table.pts_N[20] + 1)
        return dataclasses.replace(table, pts_N=pts_N, num_frames=table.num_frames + 1)

    monkeypatch.setattr(pyav_backend, "scan", scan_and_add_one)
    with open_video(videos["vp9.webm"], "pyav") as reader:
        assert [decode_index(frame) for frame in reader.frames_at([23, 18])] == [23, 18]
        assert reader.mode == "start"
        with pytest.raises(DecodeError, match="only 40 of the promised 41 frames"):
            reader.frames_at([40])


@pytest.mark.parametrize("backend", NAMED)
@pytest.mark.parametrize("name", ["lossless.mkv", "h264_b.mp4", "mpeg4.avi", "vp9.webm"])
def test_frames_show_their_own_number(name, backend, videos, decode_index) -> None:
    indices = [39, 0, 17, 17, 23, 4]
    with open_video(videos[name], backend) as reader:
        assert [decode_index(frame) for frame in reader.frames_at(indices)] == indices
        # A second request must not depend on where the first one ended.
        assert [decode_index(frame) for frame in reader.frames_at([12, 11])] == [12, 11]


@pytest.mark.parametrize("backend", BACKENDS)
def test_lossless_frames_come_back_as_they_were_written(backend, videos, index_frames) -> None:
    with open_video(videos["lossless.mkv"], backend) as reader:
        assert np.array_equal(reader.frames_at(range(40)), index_frames(40))


@pytest.mark.parametrize("backend", NAMED)
@pytest.mark.parametrize(
    ("name", "quarter_turns"),
    [("h264_turned.mp4", 1), ("h264_turned_right.mp4", -1), ("h264_upside_down.mp4", 2)],
)
def test_rotation_tags_are_applied(name, quarter_turns, backend, videos, decode_index) -> None:
    with open_video(videos[name], backend) as reader:
        frame_HWC = reader.frames_at([22])[0]
    assert decode_index(np.rot90(frame_HWC, -quarter_turns)) == 22


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_mirrored_pictures_are_mirrored(
    rotation, backend, tmp_path, make_video, index_frames
) -> None:
    path = make_video(
        tmp_path / "mirrored.mkv",
        index_frames(3),
        codec="ffv1",
        pix_fmt="bgr0",
        rotation=rotation,
        mirrored=True,
    )
    turned_THWC = np.rot90(index_frames(3), rotation // 90, axes=(1, 2))
    with open_video(path) as reader:
        assert np.array_equal(reader.frames_at([0, 1, 2]), turned_THWC[:, :, ::-1])
    with pytest.raises(DecodeError, match="display matrix"):
        open_video(path, backend)


def test_hidden_frames_are_not_counted(videos, decode_index) -> None:
    with open_video(videos["edit_list.mp4"]) as reader:
        assert reader.num_frames == 35
        assert decode_index(reader.frames_at([0])[0]) == 5
    with open_video(videos["vp8_hidden.webm"]) as reader:
        assert reader.num_frames == 39
        assert decode_index(reader.frames_at([5])[0]) == 6


@pytest.mark.parametrize("backend", NAMED)
@pytest.mark.parametrize("name", ["h264_b.mp4", "h264_late_start.mkv", "mpeg4.avi", "vp9.webm"])
def test_frame_rate(name, backend, videos) -> None:
    with open_video(videos[name], backend) as reader:
        assert reader.fps == pytest.approx(30.0)


def test_where_the_header_is_wrong_time_stamps_give_the_rate(
    tmp_path, make_video, index_frames
) -> None:
    path = make_video(tmp_path / "slow.mkv", index_frames(20), fps=30, pts_step=2)
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(15.0, rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("missing.mp4", "no such file"),
        ("directory.mp4", "is a directory"),
        ("empty.mp4", "is empty"),
        ("half_a_header.mp4", "damaged or truncated"),
        ("no_header.mp4", "damaged or truncated"),
        ("noise.mp4", "not a readable video"),
        ("sound.wav", "holds no video stream \\(only audio\\)"),
        ("unknown_codec.mp4", "codec"),
    ],
)
def test_what_cannot_be_opened_is_one_line(name, cause, backend, bad_videos, capfd) -> None:
    with pytest.raises(DecodeError, match=cause) as caught:
        open_video(bad_videos[name], backend)
    message = str(caught.value)
    assert message.startswith(f"{bad_videos[name]}: ")
    assert "\n" not in message
    assert caught.value.path == bad_videos[name]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", ["pyav", "torchcodec", "auto"])
@pytest.mark.parametrize("name", ["cut_off.mp4", "damaged.mp4"])
def test_frames_before_the_damage_are_read_and_no_others(
    name, backend, bad_videos, decode_index, decode_all, capfd
) -> None:
    good = len(decode_all(bad_videos[name]))
    assert 5 < good < 40
    with open_video(bad_videos[name], backend) as reader:
        assert reader.num_frames == 40
        assert [decode_index(frame) for frame in reader.frames_at([5, 2])] == [5, 2]
        with pytest.raises(DecodeError, match=f"only {good} of the promised 40 frames") as caught:
            reader.frames_at([2, 39])
        assert caught.value.path == bad_videos[name]
        assert [decode_index(frame) for frame in reader.frames_at([0, 4])] == [0, 4]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", ["decord"])
@pytest.mark.parametrize(
    ("name", "cause"),
    [("cut_off.mp4", "of the promised 40 frames"), ("damaged.mp4", "cannot be relied on")],
)
def test_decord_never_repeats_a_frame_for_one_that_is_missing(
    name, cause, backend, bad_videos, capfd
) -> None:
    with pytest.raises(DecodeError, match=cause) as caught:
        open_video(bad_videos[name], backend)
    assert caught.value.path == bad_videos[name]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_it_is_told_how_many_frames_decode(backend, tmp_path, videos, capfd) -> None:
    # Only the last group is damaged, past its first packet: all packets look as they should.
    data = bytearray(open(videos["h264_index_first.mp4"], "rb").read())  # noqa: SIM115
    data[-60:] = b"\xff" * 60
    (tmp_path / "end.mp4").write_bytes(data)
    refusal = ""
    try:
        reader = open_video(str(tmp_path / "end.mp4"), backend)
    except DecodeError as error:
        refusal = str(error)
    if refusal:  # the encoder's sizes decide whether the damage reaches into the last key frame
        assert "a listed key frame from which it does not decode" in refusal
        return
    with pytest.raises(DecodeError, match=r"only \d\d of the promised 40 frames"):
        reader.frames_at([0, 39])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", NAMED)
def test_indices_outside_the_video_are_refused(backend, videos) -> None:
    with open_video(videos["h264_b.mp4"], backend) as reader:
        for bad in ([40], [-1], [0, 99]):
            with pytest.raises(IndexError, match=r"0\.\.39"):
                reader.frames_at(bad)
        with pytest.raises(ValueError, match="at least one"):
            reader.frames_at([])
        with pytest.raises(ValueError, match="whole numbers"):
            reader.frames_at(np.array([0.5]))


def _insert_from(path: Path, source: str, first: int, place: int, content: bytes) -> str:
    """Copy a video with `content` put into its packets at byte `place`, from number `first` on."""
    with av.open(source) as original, av.open(str(path), "w") as copy:
        stream = original.streams.video[0]
        out = copy.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in original.demux(stream) if p.size):
            data = bytes(packet)
            added = content if number >= first else b""
            changed = av.Packet(data[:place] + added + data[place:])
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, out
            copy.mux(changed)
    return str(path)


# A display orientation message (ITU-T H.264, D.1.27): flipped left to right, for one picture.
_MIRROR = b"\0\0\0\x07" + b"\x06\x2f\x03\x40\x00\x14\x80"
# A JPEG segment of Exif with one entry: orientation 3, upside down.
_ENTRY = b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x03\0\0\0" + bytes(4)
_TURN = b"\xff\xe1" + (len(_ENTRY) + 8).to_bytes(2, "big") + b"Exif\0\0" + _ENTRY


@pytest.mark.parametrize(
    ("name", "encoding", "place", "content", "flipped"),
    [
        ("h264.mp4", {"options": {"bf": "0", "crf": "5"}}, 0, _MIRROR, np.s_[:, ::-1]),
        ("jpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, 2, _TURN, np.s_[::-1, ::-1]),
    ],
)
def test_an_orientation_that_begins_midway_is_followed(
    name, encoding, place, content, flipped, tmp_path, make_video, index_frames
) -> None:
    source = make_video(tmp_path / f"plain_{name}", index_frames(6), **encoding)
    path = _insert_from(tmp_path / name, source, 3, place, content)
    prepared = str(tmp_path / "prepared.mp4")
    verify(prepared, encode(path, prepared, Encoding(crf=5), lambda *_: None), lambda *_: None)
    expected = index_frames(6).astype(int)
    expected[3:] = [frame_HWC[flipped] for frame_HWC in expected[3:]]
    for seen in (path, prepared):
        with open_video(seen) as reader:
            difference = np.abs(reader.frames_at(range(6)) - expected)
        assert difference.mean(axis=(1, 2, 3)).max() < 12


def test_pictures_that_change_size_are_refused(tmp_path, make_video, index_frames) -> None:
    # Two MPEG-2 streams end to end are one stream whose picture changes size.
    parts = [
        make_video(tmp_path / f"{size}.mpg", index_frames(15, width=size), codec="mpeg2video")
        for size in (64, 96)
    ]
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(b"".join(open(part, "rb").read() for part in parts))  # noqa: SIM115
    with open_video(str(joined)) as reader, pytest.raises(DecodeError, match="changes size"):
        reader.frames_at([0, reader.num_frames - 1])


@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_auto_goes_to_the_next_backend_for_a_file(
    backend, videos, decode_index, monkeypatch
) -> None:
    def refuse(path: str, *, file: str) -> VideoReader:
        raise DecodeError(path, "made to fail")

    before = {"torchcodec": (pyav_backend,), "decord": (pyav_backend, torchcodec_backend)}
    for module in before[backend]:
        monkeypatch.setattr(module, "open_video", refuse)
    with open_video(videos["h264_b.mp4"]) as reader:
        kinds = {"torchcodec": TorchcodecReader, "decord": DecordReader}
        assert isinstance(reader, kinds[backend])
        assert decode_index(reader.frames_at([31])[0]) == 31
    # Where nothing else can read the file either, the first reason is the one to hear.
    with pytest.raises(DecodeError, match="made to fail"):
        open_video(videos["h264_b.avi"])


def test_an_unknown_backend_lists_those_there_are(videos) -> None:
    with pytest.raises(UserError, match=r"DATA\.DECODING_BACKEND") as caught:
        open_video(videos["h264_b.mp4"], "pyva")
    assert "decord" in str(caught.value)
    assert "Did you mean pyav?" in str(caught.value)


def test_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "is empty.")))
    assert str(error) == "a.mp4: is empty."
    assert error.path == "a.mp4"


@pytest.mark.parametrize("backend", NAMED)
def test_closing_twice_is_harmless(backend, videos: dict[str, str]) -> None:
    reader: VideoReader = open_video(videos["h264_b.mp4"], backend)
    reader.close()
    reader.close()

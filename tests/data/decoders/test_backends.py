"""Every backend against a full sequential decode, frame by frame; what it gets wrong it refuses."""

import sys

import av
import numpy as np
import pytest

from hiera_video.data.decoders import DecodeError, check_backend, describe_backend, open_video
from hiera_video.data.decoders import torchcodec as torchcodec_backend
from hiera_video.data.decoders._doubts import doubt_of_seeking
from hiera_video.data.decoders._packets import has_software, open_stream, scan
from hiera_video.utils.errors import UserError

BACKENDS = ("pyav", "torchcodec", "decord")

# What decord and torchcodec give exactly.
FOR_BOTH = {
    "lossless.mkv",
    "h264_b.mp4",
    "h264_b.mkv",
    "h264_late_start.mkv",
    "h264_fragments.mp4",
    "h264_index_first.mp4",
    "h264_turned.mp4",
    "h264_turned_right.mp4",
    "h264_upside_down.mp4",
    "h264_odd.mp4",
    "hevc.mp4",
    "mpeg4.avi",
    "mpeg4.mp4",
    "msmpeg4.avi",
    "mjpeg.avi",
    "vp8.webm",
    "vp9.webm",
    "vp9_alt_ref.webm",
    "odd_size.avi",
    "one_frame.mp4",
    "latin1_tag.mp4",
}
# What decord's old FFmpeg cannot open, or where it chooses another stream or believes the index.
FOR_TORCHCODEC = {
    "av1.mkv",
    "av1.mp4",
    "vp9_no_duration.webm",
    "two_streams.mp4",
    "false_keys.mp4",
}
# The rest both must refuse, and in words that name the way out.
FOR_NEITHER = {
    "h264_b.avi",
    "h264_b.ts",
    "h264_b.flv",
    "h264_open_groups.mp4",
    "h264_interlaced.mp4",
    "intra_refresh.mp4",
    "hevc_open_groups.mp4",
    "mpeg4_b.avi",
    "mpeg4_b.mp4",
    "edit_list.mp4",
    "vp8_hidden.webm",
    "false_keys.avi",
    "animation.gif",
    "palette.avi",
    "palette.mov",
    "grey.mov",
}
ALL = FOR_BOTH | FOR_TORCHCODEC | FOR_NEITHER
READS = {"pyav": ALL, "auto": ALL, "torchcodec": FOR_BOTH | FOR_TORCHCODEC, "decord": FOR_BOTH}


def path_of(name: str, videos: dict[str, str]) -> str:
    if name not in videos:
        pytest.skip(f"no encoder for {name} in this build of PyAV")
    return videos[name]


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name) for backend in BACKENDS for name in sorted(READS[backend])],
)
def test_frames_are_those_of_a_sequential_decode(
    backend, name, more_videos, decode_all, some_indices
) -> None:
    path = path_of(name, more_videos)
    truth = decode_all(path)
    # FFmpeg's versions interpolate the colours of odd rows in different ways.
    exact = backend == "pyav" or name != "odd_size.avi"
    with open_video(path, backend) as reader:
        assert reader.num_frames == len(truth)
        for indices in some_indices(len(truth)):
            frames_THWC = reader.frames_at(indices)
            assert frames_THWC.dtype == np.uint8
            assert frames_THWC.shape == (len(indices), *truth[0].shape)
            for frame_HWC, index in zip(frames_THWC, indices, strict=True):
                if exact:
                    assert np.array_equal(frame_HWC, truth[index]), index
                else:
                    difference = np.abs(frame_HWC.astype(int) - truth[index]).mean()
                    assert difference < 2.0, index


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name) for backend in BACKENDS for name in sorted(ALL - READS[backend])],
)
def test_what_a_backend_gets_wrong_it_refuses_and_auto_reads(
    backend, name, more_videos, decode_all, capfd
) -> None:
    path = path_of(name, more_videos)
    with pytest.raises(DecodeError, match=r"DATA\.DECODING_BACKEND auto or pyav") as caught:
        open_video(path, backend)
    assert str(caught.value).startswith(f"{path}: {backend} ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    truth = decode_all(path)
    with open_video(path, "auto") as reader:
        assert reader.num_frames == len(truth)
        assert np.array_equal(reader.frames_at([0, len(truth) - 1]), [truth[0], truth[-1]])


def test_all_videos_are_in_one_of_the_lists(more_videos) -> None:
    assert set(more_videos) <= ALL


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_tell_the_same_length_and_rate(backend, more_videos) -> None:
    for name in sorted(READS[backend] & set(more_videos)):
        with (
            open_video(more_videos[name], backend) as reader,
            open_video(more_videos[name], "pyav") as judge,
        ):
            assert reader.num_frames == judge.num_frames
            assert (reader.num_ticks, reader.fps) == (judge.num_ticks, judge.fps)


@pytest.mark.parametrize("backend", ["torchcodec"])
def test_after_an_error_torchcodec_starts_afresh(backend, bad_videos, decode_index) -> None:
    """Decoding on after the damage would give frames that lack what they refer to."""
    with open_video(bad_videos["damaged.mp4"], backend) as reader:
        for _ in range(3):
            for index in (39, 30, 25):
                with pytest.raises(DecodeError):
                    reader.frames_at([index])
        assert decode_index(reader.frames_at([3])[0]) == 3


@pytest.mark.parametrize("backend", ["torchcodec"])
def test_torchcodec_refuses_turns_that_are_no_quarter(
    backend, tmp_path, make_video, index_frames
) -> None:
    frames_THWC = index_frames(3, height=64, width=96)
    path = make_video(tmp_path / "slanted.mp4", frames_THWC, rotation=45)
    with pytest.raises(DecodeError, match="display matrix"):
        open_video(path, backend)
    with open_video(path) as reader:
        assert reader.frames_at([0]).shape == (1, 64, 96, 3)


def test_packets_are_read_without_a_decoder_for_them(bad_videos) -> None:
    """A codec that PyAV was built without may be one that torchcodec's FFmpeg has."""
    path = bad_videos["unknown_codec.mp4"]
    container, stream = open_stream(path, path, needs_decoder=False)
    with container:
        table = scan(container, stream)
        assert stream.codec_context is None
        assert (table.num_frames, len(table.pts_N), table.doubt) == (40, 40, "")
        assert doubt_of_seeking(container, stream, table) == ""
    with pytest.raises(DecodeError, match="codec that FFmpeg does not know"):
        open_stream(path, path)


def test_a_decoder_that_needs_hardware_is_not_taken_for_one() -> None:
    assert has_software(av.Codec("h264", "r"))
    for name in ("av1", "libdav1d"):
        if name in av.codecs_available:
            assert has_software(av.Codec(name, "r")) == (name != "av1")


def test_the_log_line_says_what_decodes_and_why() -> None:
    line = describe_backend("auto")
    assert line.startswith("Videos are decoded by pyav ")
    assert av.__version__ in line
    assert "exact" in line
    for backend in BACKENDS[1:]:
        assert backend in line  # where it is not installed, it says so
    assert "\n" not in line
    assert describe_backend("decord").startswith("Videos are decoded by decord ")


def test_a_backend_that_is_not_installed_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    torchcodec_backend._decoder_class.cache_clear()
    with pytest.raises(UserError, match="pip install torchcodec") as caught:
        check_backend("torchcodec")
    assert "DATA.DECODING_BACKEND" in str(caught.value)
    assert "\n" not in str(caught.value)
    check_backend("auto")

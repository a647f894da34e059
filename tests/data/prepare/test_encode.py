from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.prepare.encode import Encoding, OutputError, encode, target_size
from hiera_video.data.prepare.verify import VerifyError, compare_pictures, verify
from hiera_video.utils.errors import UserError

ENCODING = Encoding(short_side=256)
# The readers' own fixtures: what a careful reader shows of them is what an output must show.
NAMES = (
    *("lossless.mkv", "h264_b.mp4", "h264_b.avi", "h264_b.ts", "h264_open_groups.mp4"),
    *("h264_late_start.mkv", "h264_fragments.mp4", "h264_interlaced.mp4", "hevc_open_groups.mp4"),
    *("mpeg4_b.avi", "vp8_hidden.webm", "vp9_no_duration.webm", "h264_turned.mp4"),
    *("h264_turned_right.mp4", "h264_upside_down.mp4", "odd_size.avi", "one_frame.mp4"),
    *("two_streams.mp4", "edit_list.mp4", "false_keys.mp4", "false_keys.avi", "latin1_tag.mp4"),
    *("palette.avi", "palette.mov", "grey.mov"),
)


def no_limit(phase, frame):
    pass


def times_of(path):
    with av.open(path) as container:
        stream = container.streams.best("video")
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
    return [time - times[0] for time in times]


@pytest.mark.parametrize("name", NAMES)
def test_an_output_shows_the_frames_of_its_source_upright(videos, decode_index, tmp_path, name):
    target = str(tmp_path / "out.mp4")
    encoded = encode(videos[name], target, ENCODING, no_limit)
    verify(target, encoded, no_limit)
    with open_video(videos[name]) as before, open_video(target) as after:
        assert after.num_frames == before.num_frames
        frames = np.arange(before.num_frames)
        before_THWC, after_THWC = before.frames_at(frames), after.frames_at(frames)
    assert list(map(decode_index, after_THWC)) == list(map(decode_index, before_THWC))
    assert [side - side % 2 for side in before_THWC.shape[1:3]] == list(after_THWC.shape[1:3])
    # Quarter turns taken twice, or the other way round, would show here.
    height, width = after_THWC.shape[1:3]
    difference = after_THWC.astype(int) - before_THWC[:, :height, :width]
    assert abs(difference).mean() < 8


def test_what_is_written_is_made_for_training(videos, tmp_path):
    target = tmp_path / "out.mp4"
    encode(videos["h264_b.mp4"], str(target), Encoding(gop=12), no_limit)
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first
    with av.open(str(target)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.has_b_frames == 0
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
        assert max(np.diff([*keys, len(packets)])) <= 12
        assert all(packet.pts == packet.dts for packet in packets)


def test_sound_is_left_out(tmp_path):
    source, target = str(tmp_path / "loud.mp4"), str(tmp_path / "out.mp4")
    with av.open(source, "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=8000, layout="mono")
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
        container.mux(video.encode())
    encode(source, target, ENCODING, no_limit)
    with av.open(target) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("name", ["variable.mkv", "variable.mp4"])
def test_a_variable_frame_rate_stays_one(index_frames, tmp_path, name):
    source, target = str(tmp_path / name), str(tmp_path / "out.mp4")
    wanted = [0, 40, 80, 240, 250, 260, 1000, 1040]
    with av.open(source, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for milliseconds, frame_HWC in zip(wanted, index_frames(len(wanted)), strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = 7000 + milliseconds, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    encoded = encode(source, target, ENCODING, no_limit)
    verify(target, encoded, no_limit)
    assert times_of(target) == [Fraction(time, 1000) for time in wanted] == encoded.times_N


def test_times_that_do_not_rise_are_put_right(videos, index_frames, make_video, tmp_path):
    # Raw H.264 has no time stamps at all.
    raw, target = str(tmp_path / "raw.h264"), str(tmp_path / "out.mp4")
    make_video(raw, index_frames(30))
    verify(target, encode(raw, target, ENCODING, no_limit), no_limit)
    steps = np.diff([float(time) for time in times_of(target)])
    assert (steps > 0).all()
    assert len(steps) == 29


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("mjpeg", "yuvj420p"),
        ("ffv1", "bgr0"),
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
        ("ffv1", "gray"),
    ],
)
def test_colours_stay_what_they_are(make_video, index_frames, tmp_path, codec, pix_fmt):
    source = make_video(tmp_path / "in.mkv", index_frames(4), codec=codec, pix_fmt=pix_fmt)
    target = str(tmp_path / "out.mp4")
    verify(target, encode(source, target, ENCODING, no_limit), no_limit)
    with open_video(source) as before, open_video(target) as after:
        means = [reader.frames_at(range(4)).mean(axis=(0, 1, 2)) for reader in (before, after)]
    np.testing.assert_allclose(means[0], means[1], atol=2.5)


def test_a_large_picture_gets_the_short_side_asked_for(make_video, index_frames, tmp_path):
    source = make_video(tmp_path / "in.mp4", index_frames(3, height=96, width=170))
    target = str(tmp_path / "out.mp4")
    encoded = encode(source, target, Encoding(short_side=32), no_limit)
    assert (encoded.width, encoded.height) == (56, 32)
    verify(target, encoded, no_limit)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), (456, 256)),
        ((1080, 1920), (256, 456)),
        ((340, 256), (340, 256)),
        ((320, 240), (320, 240)),
        ((427, 240), (426, 240)),
        ((255, 255), (254, 254)),
        ((257, 300), (256, 298)),
        ((1, 1), (2, 2)),
        ((5000, 2), (5000, 2)),
    ],
)
def test_sizes_are_even_and_never_larger(size, expected):
    assert target_size(*size, short_side=256) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty.mp4", "is empty"),
        ("half_a_header.mp4", "damaged or truncated in its header"),
        ("no_header.mp4", "not a readable video"),
        ("cut_off.mp4", "after "),
        ("damaged.mp4", "stops to decode after "),
        ("unknown_codec.mp4", "codec"),
        ("noise.mp4", "not a readable video"),
        ("sound.wav", "no video stream (only audio)"),
        ("directory.mp4", "is a directory"),
        ("missing.mp4", "no such file"),
    ],
)
def test_bad_sources_are_refused_with_a_reason(bad_videos, tmp_path, name, words):
    with pytest.raises(DecodeError) as caught:
        encode(bad_videos[name], str(tmp_path / "out.mp4"), ENCODING, no_limit)
    assert words in caught.value.cause


@pytest.mark.parametrize("name", ["h264_b.mkv", "vp9.webm", "h264_index_first.mp4", "mpeg4.avi"])
def test_a_file_that_was_cut_off_is_refused(videos, tmp_path, name):
    with open(videos[name], "rb") as file:
        content = file.read()
    source = tmp_path / name
    source.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(DecodeError, match=r"breaks off|stops to decode|damaged"):
        encode(str(source), str(tmp_path / "out.mp4"), ENCODING, no_limit)


def test_the_time_limit_begins_anew_every_64_frames(make_video, index_frames, tmp_path):
    source = make_video(tmp_path / "in.mp4", index_frames(130))
    steps = []
    target = str(tmp_path / "out.mp4")

    def begin(phase, frame):
        steps.append((phase.name, frame))

    verify(target, encode(source, target, ENCODING, begin), begin)
    assert steps == [
        *(("OPENING", 0), ("ENCODING", 0), ("ENCODING", 64), ("ENCODING", 128)),
        *(("FINISHING", 130), ("VERIFYING", 0), ("VERIFYING", 64), ("VERIFYING", 128)),
    ]


def test_an_output_that_cannot_be_written_is_not_the_sources_fault(videos, tmp_path):
    with pytest.raises(OutputError) as caught:
        encode(videos["h264_b.mp4"], str(tmp_path / "none" / "out.mp4"), ENCODING, no_limit)
    assert caught.value.words == "No such file or directory"


def test_verify_finds_what_is_wrong(videos, make_video, index_frames, tmp_path):
    target = str(tmp_path / "out.mp4")
    encoded = encode(videos["h264_b.mp4"], target, ENCODING, no_limit)

    def refused(path, match):
        with pytest.raises((VerifyError, DecodeError), match=match):
            verify(str(path), encoded, no_limit)

    frames_THWC = index_frames(40)
    options = {"bf": "0"}
    refused(make_video(tmp_path / "short.mp4", frames_THWC[:39], options=options), "39 decode")
    refused(make_video(tmp_path / "slow.mp4", frames_THWC, fps=25, options=options), "has time")
    other = make_video(tmp_path / "other.mp4", np.zeros_like(frames_THWC), options=options)
    refused(other, "has brightness")
    large_THWC = index_frames(40, height=64, width=96)
    refused(make_video(tmp_path / "large.mp4", large_THWC, options=options), "is 96x64, not")
    with open(target, "rb") as file:
        content = bytearray(file.read())
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    refused(tmp_path / "cut.mp4", "stops to decode|decode")
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 3000] = b"\xff" * 3000
    (tmp_path / "spoilt.mp4").write_bytes(content)
    refused(tmp_path / "spoilt.mp4", "stops to decode|damaged|brightness")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"short_side": 15}, "--short-side must be an even number of at least 16, got 15"),
        ({"short_side": 255}, "--short-side must be an even"),
        ({"crf": 52}, "--crf must be in 0..51"),
        ({"gop": 0}, "--gop must be at least 1"),
        ({"preset": "quick"}, "--preset must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        Encoding(**values).check()


def test_a_squeezed_clock_is_found(videos, make_video, index_frames, tmp_path):
    """The frames and their times are as encoded; that they come too fast, only the source tells."""
    target = str(tmp_path / "out.mp4")
    encoded = encode(videos["h264_b.mp4"], target, ENCODING, no_limit)
    squeezed = make_video(tmp_path / "squeezed.mp4", index_frames(40), fps=900)
    times_N = [Fraction(number, 900) for number in range(40)]
    with pytest.raises(VerifyError, match="its rate is 900 frames per second, and its source's 30"):
        verify(squeezed, replace(encoded, times_N=times_N), no_limit)


def test_pictures_in_another_order_are_found(videos, make_video, index_frames, tmp_path):
    """Their mean brightness is that of the source; what they show is not."""
    target = str(tmp_path / "out.mp4")
    encoded = encode(videos["h264_b.mp4"], target, ENCODING, no_limit)
    compare_pictures(target, videos["h264_b.mp4"], encoded, no_limit)
    # A number with its bits reversed has as many bright blocks.
    numbers = [int(f"{number:06b}"[::-1], 2) for number in range(40)]
    mixed = make_video(tmp_path / "mixed.mp4", index_frames(64)[numbers], options={"bf": "0"})
    verify(mixed, encoded, no_limit)
    with pytest.raises(VerifyError, match="frame 19 is another picture than in the source"):
        compare_pictures(mixed, videos["h264_b.mp4"], encoded, no_limit)

"""Every way in which a file can be wrong ends in its defined way, whatever decodes it."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from hiera_video.data import sampling
from hiera_video.data.decoders import DecodeError, open_video

BACKENDS = ("pyav", "torchcodec", "decord", "auto")
NOBODY = 65534


def assert_one_line(error: DecodeError, path: str) -> None:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert error.path == path
    assert len(error.cause) > 10


def in_child(uid: int, function: Callable[[], str]) -> str:
    """Call `function` in a fork that runs as another user; return what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(uid)
            os.write(writing, function().encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


@pytest.fixture
def open_folder():
    """A folder that other users may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for closed in folder.glob("closed"):
        closed.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_no_permission(closed, backend, videos, open_folder) -> None:
    (open_folder / "closed").mkdir()
    path = str(open_folder / "closed" / "clip.mp4")
    shutil.copy(videos["h264_b.mp4"], path)
    (Path(path) if closed == "file" else Path(path).parent).chmod(0)

    def open_it() -> str:
        try:
            open_video(path, backend)
        except DecodeError as error:
            return str(error)
        return "it opened"

    said = in_child(NOBODY, open_it) if os.geteuid() == 0 else open_it()
    assert said.startswith(f"{path}: may not be read (no permission")


@pytest.mark.parametrize("backend", BACKENDS)
def test_names_that_no_file_can_have(backend, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DecodeError, match="not a video file"):
        open_video(str(tmp_path / "pipe.mp4"), backend)
    with pytest.raises(DecodeError, match="too long"):
        open_video(str(tmp_path / ("x" * 300)), backend)
    with pytest.raises(DecodeError, match="no such file"):
        open_video(str(tmp_path / "pipe.mp4" / "clip.mp4"), backend)
    with pytest.raises(DecodeError, match="no such file") as caught:
        open_video("two\nlines.mp4", backend)
    assert str(caught.value).startswith("two\\nlines.mp4: ")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["with spaces", "日本語 ünïcode", "a,b;c#d%20?", "-dash", "x:y"])
def test_any_name_will_do(name, backend, videos, tmp_path, decode_index) -> None:
    path = tmp_path / name / f"{name}.mp4"
    path.parent.mkdir()
    shutil.copy(videos["h264_b.mp4"], path)
    with open_video(str(path), backend) as reader:
        assert decode_index(reader.frames_at([21])[0]) == 21


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["h264_index_first.mp4", "vp9.webm", "mpeg4.avi", "h264_b.mkv"])
def test_noise_in_the_middle(name, backend, videos, tmp_path, decode_index, capfd) -> None:
    """What lies before it is read as ever; the rest is read or refused, but never hangs."""
    data = bytearray(Path(videos[name]).read_bytes())
    with av.open(videos[name]) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size][26]
    data[start : start + 150] = np.random.default_rng(1).bytes(150)
    path = tmp_path / f"noisy {name}"
    path.write_bytes(data)
    try:
        with open_video(str(path), backend) as reader:
            assert [decode_index(frame) for frame in reader.frames_at([3, 0])] == [3, 0]
            for index in range(0, reader.num_frames, 3):
                try:
                    assert reader.frames_at([index]).shape == (1, 48, 64, 3)
                except DecodeError as error:
                    assert_one_line(error, str(path))
    except DecodeError as error:  # at once, by a backend that could not be relied on
        assert backend in ("torchcodec", "decord")
        assert_one_line(error, str(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["vp9.webm", "mpeg4.avi", "h264_b.mkv", "h264_fragments.mp4"])
def test_files_that_break_off(
    name, share, backend, videos, tmp_path, decode_index, decode_all, capfd
) -> None:
    """These formats hold frames as they come: those that decode are read, and no others."""
    data = Path(videos[name]).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(share * len(data))])
    try:
        numbers = [decode_index(frame) for frame in decode_all(str(path))]
    except av.FFmpegError:
        numbers = []
    try:
        with open_video(str(path), backend) as reader:
            for index in range(reader.num_frames):
                try:
                    frame_HWC = reader.frames_at([index])[0]
                    # With B-frames, the k-th that is left need not be the k-th that was written.
                    assert decode_index(frame_HWC) == numbers[index]
                except DecodeError as error:
                    assert index >= len(numbers) or reader.num_frames > len(numbers)
                    assert_one_line(error, str(path))
    except DecodeError as error:
        assert backend in ("torchcodec", "decord") or not numbers
        assert_one_line(error, str(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_header_that_promises_more_than_there_is(backend, videos, tmp_path) -> None:
    data = bytearray(Path(videos["mpeg4.avi"]).read_bytes())
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # the two counts of frames
        place = data.index(chunk) + offset
        assert int.from_bytes(data[place : place + 4], "little") == 40
        data[place : place + 4] = (1000).to_bytes(4, "little")
    path = tmp_path / "boaster.avi"
    path.write_bytes(data)
    with open_video(str(path), backend) as reader:
        assert reader.num_frames == 40
        assert reader.frames_at([39]).shape == (1, 48, 64, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_header_that_promises_frames_without_end(backend, videos, tmp_path, decode_index) -> None:
    """In a process of its own: decord would make room for them all, and take the process down."""
    data = bytearray(Path(videos["mpeg4.avi"]).read_bytes())
    place = data.index(b"strh") + 8 + 32
    data[place : place + 4] = b"\xf0\xff\xff\xff"
    path = tmp_path / "endless.avi"
    path.write_bytes(data)

    def open_it() -> str:
        try:
            with open_video(str(path), backend) as reader:
                return str(decode_index(reader.frames_at([33])[0]))
        except DecodeError as error:
            return str(error)

    said = in_child(os.geteuid(), open_it)
    assert said == "33" or (backend == "decord" and "states 4294967280 frames" in said)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packets_that_become_no_frame(backend, videos, tmp_path, decode_index, capfd) -> None:
    path = str(tmp_path / "hollow.mkv")
    with av.open(videos["h264_b.mkv"]) as original, av.open(path, "w") as copy:
        stream = original.streams.video[0]
        out = copy.add_stream_from_template(stream)
        for packet in original.demux(stream):
            if packet.size:
                last = packet.dts
                packet.stream = out
                copy.mux(packet)
        for place in range(1, 6):  # a unit that ends nothing: an H.264 access unit delimiter
            hollow = av.Packet(b"\x00\x00\x00\x02\x09\xf0")
            hollow.pts = hollow.dts = last + 200 * place
            hollow.time_base, hollow.stream = stream.time_base, out
            copy.mux(hollow)
    try:
        with open_video(path, backend) as reader:
            assert decode_index(reader.frames_at([17])[0]) == 17
            with pytest.raises(DecodeError, match=r"only \d\d of the promised 45 frames") as caught:
                reader.frames_at([17, 44])
            assert_one_line(caught.value, path)
            assert decode_index(reader.frames_at([17])[0]) == 17
    except DecodeError as error:
        assert backend in ("torchcodec", "decord")
        assert_one_line(error, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["one_frame.mp4", "three.mkv"])
def test_videos_shorter_than_the_clip_repeat_their_last_frame(
    name, backend, videos, tmp_path, make_video, index_frames, decode_index
) -> None:
    num_frames = 1 if name == "one_frame.mp4" else 3
    path = videos.get(name) or make_video(tmp_path / name, index_frames(num_frames))
    with open_video(path, backend) as reader:
        for clips in (
            sampling.testing_indices(
                sampling.ClipSpec(8, 4, 30, kind), reader.num_ticks, reader.fps, num_clips=2
            )
            for kind in ("dense", "uniform")
        ):
            frames_THWC = reader.frames_at(reader.ticks_to_frames(clips).ravel())
            numbers = [decode_index(frame) for frame in frames_THWC]
            assert numbers == clips.ravel().tolist()
            assert numbers[-1] == num_frames - 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_video_without_frames(backend, videos, tmp_path) -> None:
    data = Path(videos["h264_fragments.mp4"]).read_bytes()
    path = tmp_path / "header_alone.mp4"
    path.write_bytes(data[: data.index(b"moof") - 4])
    with pytest.raises(DecodeError, match="holds a video stream without frames") as caught:
        open_video(str(path), backend)
    assert_one_line(caught.value, str(path))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_that_lists_a_frame_too_many(backend, videos, tmp_path, decode_all) -> None:
    """Where damage has swallowed a frame, a seek by the index of an AVI ends one too early."""
    data = bytearray(Path(videos["mpeg4.avi"]).read_bytes())
    place = 0
    for _ in range(11):  # the chunk of frame 10
        place = data.index(b"00dc", place + 4)
    data[place : place + 4] = b"JUNK"
    path = str(tmp_path / "swallowed.avi")
    Path(path).write_bytes(data)
    expected = decode_all(path)
    assert len(expected) == 39
    if backend in ("torchcodec", "decord"):
        with pytest.raises(DecodeError, match="an index that does not fit its frames"):
            open_video(path, backend)
        return
    with open_video(path, backend) as reader:
        for index in (38, 30, 13, 2):
            assert np.array_equal(reader.frames_at([index])[0], expected[index])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_that_nobody_announced(backend, videos, tmp_path, decode_index) -> None:
    """One packet of an MPEG-TS says that it is of another stream, unknown until it comes."""
    data = bytearray(Path(videos["h264_b.ts"]).read_bytes())
    starts = [at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\x00"]
    data[starts[-2] + 1] = 0xFF
    path = str(tmp_path / "stray.ts")
    Path(path).write_bytes(data)
    with av.open(path) as container, pytest.raises(IndexError):
        list(container.demux(video=0))
    if backend in ("torchcodec", "decord"):
        with pytest.raises(DecodeError, match="cannot be relied on"):
            open_video(path, backend)
        return
    with open_video(path, backend) as reader:
        assert reader.num_frames >= 38
        for index in (0, 20, 35):
            assert decode_index(reader.frames_at([index])[0]) == index

"""Which file is opened for a name, and which containers are opened at all, by every decoder."""

import os
import shutil
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hiera_video.data.decoders import DecodeError, open_video
from hiera_video.data.decoders._container import CONTAINERS, open_container
from hiera_video.data.prepare.encode import Encoding, encode

ROOT = Path(__file__).parents[3]
BACKENDS = ("pyav", "torchcodec", "decord", "auto")
# What FFmpeg takes for a protocol, if it stands at the beginning of a name.
NAMES = ("12:30:00.mp4", "file:other.mp4", "pipe:0", "concat:other.mp4", "subfile,,start,0,,:o.mp4")
PLAYLISTS = {
    "an ffconcat list": "ffconcat version 1.0\nfile secret.mp4\n",
    "an HLS playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "a description of a stream": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "XML": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n',
    "an index of subtitles": "# VobSub index file, v7 (do not modify this line!)\n",
    "text": "1\n00:00:00,000 --> 00:00:01,000\na subtitle\n",
}


@contextmanager
def limit_sec(seconds):
    """Fail where FFmpeg would wait without end."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def here(videos, make_video, index_frames, tmp_path, monkeypatch):
    """A working directory with a good video under each odd name, and others that they may name."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shutil.copy(videos["h264_index_first.mp4"], tmp_path / name)
    for name in ("other.mp4", "o.mp4"):
        make_video(name, index_frames(3))
    (tmp_path / "12:30").mkdir()
    shutil.copy(videos["h264_index_first.mp4"], tmp_path / "12:30" / "a.mp4")
    return tmp_path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*NAMES, "12:30/a.mp4"])
def test_a_relative_name_with_a_colon_is_a_file(here, backend, name, decode_index) -> None:
    with open_video(name, backend) as reader:
        frames_THWC = reader.frames_at(range(reader.num_frames))
    assert [decode_index(frame_HWC) for frame_HWC in frames_THWC] == list(range(40))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_folder_above_a_linked_one_is_the_systems(
    here, backend, make_video, index_frames
) -> None:
    for folder in ("data/lists", "other"):
        Path(folder).mkdir(parents=True)
    Path("other/link").symlink_to(Path("data/lists").resolve())
    make_video("data/a.mp4", index_frames(6))
    # Where the folder above the link's own name would lead to.
    make_video("other/a.mp4", index_frames(2))
    for path in ("other/link/../a.mp4", os.path.abspath("other/link") + "/../a.mp4"):
        with open_video(path, backend) as reader:
            assert reader.num_frames == 6


def test_a_file_that_is_removed_while_it_is_open_is_a_bad_video(here) -> None:
    with open_video("other.mp4", "pyav") as reader:
        reader.mode = "start"  # as for a file whose frames can only be counted
        os.unlink("other.mp4")
        with pytest.raises(DecodeError, match=r"other\.mp4: cannot be read \(No such file"):
            reader.frames_at([0])


@pytest.mark.parametrize("name", NAMES)
def test_a_relative_name_with_a_colon_can_be_written_to(here, name) -> None:
    os.unlink(name)
    encoded = encode("o.mp4", name, Encoding(short_side=32), lambda phase, frame: None)
    assert len(encoded.times_N) == 3
    with open_container(name, name) as container:
        assert container.streams.video[0].frames == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_file_that_names_other_files_is_refused(tmp_path, videos, backend, kind) -> None:
    shutil.copy(videos["h264_b.mp4"], tmp_path / "secret.mp4")
    shutil.copy(videos["h264_b.ts"], tmp_path / "secret.ts")
    path = str(tmp_path / "film.mp4")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path(path).write_text(PLAYLISTS[kind].replace("{port}", str(port)))
    with limit_sec(10), pytest.raises(DecodeError) as caught:
        open_video(path, backend)
    assert caught.value.cause.startswith(f"is not a readable video but {kind}")
    if kind != "text":
        assert caught.value.cause.endswith("Try the videos that it names.")


def test_animated_webp_is_refused_by_name(tmp_path) -> None:
    pictures = [Image.fromarray(np.full((16, 16, 3), 40 * k, np.uint8)) for k in range(3)]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(
        DecodeError, match=r"but a WebP picture \(an animated one must be converted"
    ):
        open_video(str(path))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pattern_of_pictures_is_refused(tmp_path, backend) -> None:
    picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    with av.open(str(tmp_path / "1.png"), "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    shutil.copy(tmp_path / "1.png", tmp_path / "2.png")
    pattern = str(tmp_path / "%d.png")
    with av.open(pattern) as container:  # FFmpeg reads both
        assert sum(packet.size > 0 for packet in container.demux()) == 2
    Path(pattern).write_bytes(b"any bytes")
    with pytest.raises(DecodeError, match="is not a readable video"):
        open_video(pattern, backend)
    with pytest.raises(DecodeError, match="not a readable video but a PNG picture"):
        open_video(str(tmp_path / "1.png"), backend)


# One of each container that an encoder here can write: file name, codec, pixels, options.
KINDS = {
    "a.mp4": ("mpeg4", "yuv420p"),
    "a.mov": ("mpeg4", "yuv420p"),
    "a.3gp": ("mpeg4", "yuv420p"),
    "a.mkv": ("mpeg4", "yuv420p"),
    "a.webm": ("libvpx", "yuv420p"),
    "a.avi": ("mpeg4", "yuv420p"),
    "a.ts": ("mpeg2video", "yuv420p"),
    "a.m2ts": ("mpeg2video", "yuv420p"),
    "a.mpg": ("mpeg1video", "yuv420p"),
    "a.vob": ("mpeg2video", "yuv420p"),
    "a.m2v": ("mpeg2video", "yuv420p"),
    "a.m4v": ("mpeg4", "yuv420p"),
    "a.flv": ("flv", "yuv420p"),
    "a.ogv": ("libtheora", "yuv420p"),
    "a.wmv": ("wmv2", "yuv420p"),
    "a.mxf": ("mpeg2video", "yuv420p"),
    "a.nut": ("ffv1", "yuv420p"),
    "a.gif": ("gif", "rgb8"),
    "a.apng": ("apng", "rgb24"),
    "a.y4m": ("wrapped_avframe", "yuv420p"),
    "a.ivf": ("libvpx", "yuv420p"),
    "a.rm": ("rv10", "yuv420p"),
    "a.swf": ("flv", "yuv420p"),
    "a.wtv": ("mpeg2video", "yuv420p"),
    "a.h264": ("libx264", "yuv420p"),
    "a.h263": ("h263", "yuv420p"),
    "a.mjpeg": ("mjpeg", "yuvj420p"),
    "a.dnxhd": ("dnxhd", "yuv422p"),
    "a.dv": ("dvvideo", "yuv420p"),
}
SIZES = {"a.dnxhd": (1080, 1920), "a.dv": (576, 720)}


@pytest.mark.parametrize("name", KINDS)
def test_containers_that_hold_their_own_pictures_are_opened(tmp_path, name) -> None:
    codec, pixels = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder of {codec} here")
    height, width = SIZES.get(name, (144, 176))
    path = str(tmp_path / name)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, pixels
        if name == "a.dnxhd":
            stream.bit_rate = 115_000_000
        for value in (50, 100, 150):
            frame_HWC = np.full((height, width, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    for other in (path, shutil.copy(path, str(tmp_path / "no ending"))):
        with open_container(other, other) as container:
            assert container.streams.video
            assert any(packet.size for packet in container.demux(container.streams.video[0]))


def test_the_list_of_containers_has_ffmpegs_names_and_none_of_those_that_read_more() -> None:
    names = CONTAINERS.split(",")
    assert len(names) == len(set(names))
    assert not {
        *("concat", "hls", "applehttp", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "image2"),
        *("lavfi", "vobsub", "mlv", "data", "avisynth", "vapoursynth", "webm_dash_manifest"),
    }.intersection(names)
    known = set()
    for name in av.formats_available:
        try:
            known |= {name, *av.ContainerFormat(name, "r").name.split(",")}
        except ValueError:  # one that is only written
            continue
    # An FFmpeg of one's own may lack some, and this one knows nearly all.
    assert len(known.intersection(names)) > len(names) / 2


def test_only_one_place_hands_names_to_ffmpeg() -> None:
    """`open_container` and `open_output`; the others open cameras, URLs, and the doctor's file."""
    files = (ROOT / "hiera_video").rglob("*.py")
    users = {path.name for path in files if "av.open(" in path.read_text()}
    assert users == {"_container.py", "stream.py", "decoders.py"}

"""Videos whose time stamps are in doubt run at their right speed, wherever they are read."""

import base64
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from hiera_video import Predictor
from hiera_video.config import to_yaml
from hiera_video.data.build import build_loader
from hiera_video.data.checks.scan import ScanSettings, check_video
from hiera_video.data.decoders import DecodeError, check_backend, open_video
from hiera_video.data.decoders._reader import BaseReader
from hiera_video.data.prepare.encode import Encoding
from hiera_video.data.prepare.one import Task, prepare_one
from hiera_video.data.records import VideoRecord
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.workers.process import Job
from hiera_video.inference.stream import stream_frames
from hiera_video.models.hiera import hiera_micro_8x64
from hiera_video.utils.errors import UserError

BACKENDS = ("pyav", "torchcodec", "decord", "auto")
NUM_FRAMES, SAMPLING_RATE, TARGET_FPS = 8, 4, 30.0

# 24 frames of VP9 at 24000/1001 fps in webm, by FFmpeg's two passes of libvpx-vp9 in 10 bits and
# its vp9_superframe_split: a reference picture that is never shown is a packet of its own, with the
# time of the frame after it.
HIDDEN_PACKET_WEBM = """
GkXfo59ChoEBQveBAULygQRC84EIQoKEd2VibUKHgQJChYECGFOAZwEAAAAAAAUBEU2bdLpNu4tTq4QVSalmU6yBoU27
i1OrhBZUrmtTrIHGTbuMU6uEElTDZ1OsggETTbuMU6uEHFO7a1OsggTr7AEAAAAAAABZAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAVSalmoCrXsYMPQkBNgIRMYXZmV0GETGF2ZkSJiECPQAAAAAAAFlSua8iuAQAAAAAAAD/XgQFzxYgAAAAAAAAAAZyB
ACK1nIN1bmSIgQCGhVZfVlA5g4EBI+ODhAJ8ay3gkLCBQLqBMJqBAlWwhFW5gQESVMNntnNzs2PAi2PFiAAAAAAAAAAB
Z8iiRaOIRFVSQVRJT05Eh5QwMDowMDowMS4wMDAwMDAwMDAAAB9DtnVDl+eBAKPDgQAAgJJJg0IAAfgBewAcEg4MZQAA
GGAAAGc///2rTJsf/30MWv//1p5v/5u0UnGmnQRfuPDH2+jT5ZSxHB/2zi6IAKP9gQAqAJQAgElOoCdwAAGAcAAAeomu
r//8kAHowj//6Rp3zXdEM++/hs757p5/oPO3/QnIx6mbzyHeig3CQzpyeDcPwtic/Iwpo6tZulyqhDri9zPqy4O+/t/b
VRczEqjNeABHiXZSZVY+9kMZotAhoegWnWuHtR4/M8vDTYCjnoEAKgCWAECWnDBWgAADYAAAfaPP/ncHALQ65ujtAKOe
gQBTAJYAQJacSFaAAANgAAB76nVnEauVG/x+mtAAo5yBAH0AlgBAlpwQVoAAA2AAAHvqa7EGpL7wr+wAo5mBAKcAlgBA
lpwQVoAAA2AAAHssboPfO1QAo56BANEAlgBAlpwYVoAAA2AAAHrMLpBjwb6YViW7qwCjmoEA+gCWAECWnEBWgAADYAAA
etTIUEKOkaigo5mBASQAlgBAlvBRWgAADGAAAHoh/CvzP7D4o5aBAU4AlgEAkpwAVoAAA2AAAHvfaxoAo56BAXcAlgBB
CpwUVoAAA2AAAHrMIvNR6pSSMgZ9lACjmYEBoQCWAEEKnBRWgAADYAAAemG7uudgX4CjnoEBywCWAEEKnBxWgAADYAAA
eswIiN9o5ZrhVXoYAKOcgQH1AJYAQQqcRFaAAANgAAB7rnyFzEe0KOCpAKOdgQIeAJYAQQqcMFaAAANgAAB+8P2sKW37
cSKFxkSjm4ECSACWAEEKnEBWgAADYAAAetTi1J4EG4MEAKOigQJyAJYAQQqcRFaAAANgAAB6NscyqN8x6uL2v64IhrbA
AKOfgQKbAJYAQQqcRFaAAANgAAB/Lt+RVLohZE0Tz9WEAKOkgQLFAJYAQQqcRFaAAANgAAB/DI1+45yHqTmczgn/Vl9i
SdCAo56BAu8AlgBBCpwMVoAAA2AAAH8tqOcdJ358juBVe0ijoYEDGACWAEEKnBRWgAADYAAAfuWouoobfjis/yltdyv7
AKOhgQNCAJYAQQqcFFaAAANgAAB/LtqK/8pzxXof218CsElgo6KBA2wAlgBBCpwgVoAAA2AAAH7w+hfNur9r4dbsh06+
rPHgo56BA5YAlgBBCpwIVoAAA2AAAH8t9/VTawrTlPb+9qSjnIEDvwCWAEEKjARWgAADYAAAfvCMHv3ZTJPdWAAcU7tr
kbuPs4EAt4r3gQHxggFO8IED
"""

# A variable rate: the time of each frame in ms, two of which are the same.
UNEVEN_MS = np.cumsum([0] + [33] * 10 + [0, 66] + [33] * 17 + [330] * 10)


def joined(path: Path, *parts: str) -> str:
    path.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    return str(path)


def with_times(path: Path, source: str, times_ms: np.ndarray) -> str:
    """Copy a video without B-frames, giving its frames other times, which no encoder takes."""
    with av.open(source) as original, av.open(str(path), "w") as copy:
        stream = original.streams.video[0]
        out = copy.add_stream_from_template(stream)
        packets = (packet for packet in original.demux(stream) if packet.size)
        for packet, time_ms in zip(packets, times_ms.tolist(), strict=True):
            packet.pts = packet.dts = time_ms
            packet.stream = out
            copy.mux(packet)
    return str(path)


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory, make_video, index_frames):
    """Return by name: a file, its rate, and the frame on screen at each tick of that rate."""
    folder = tmp_path_factory.mktemp("times in doubt")
    frames_THWC = index_frames(60)
    halves = frames_THWC[:30], frames_THWC[30:]

    def two(name: str, *, first_pts: int = 0, **encoding) -> str:
        parts = [
            make_video(folder / f"{number} {name}", half, fps=25, first_pts=pts, **encoding)
            for number, (half, pts) in enumerate(zip(halves, (first_pts, 0), strict=True))
        ]
        return joined(folder / name, *parts)

    h264 = {"options": {"g": "12", "bf": "3", "sc_threshold": "0"}}
    mpeg2 = {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}
    uneven = make_video(
        folder / "even.webm", index_frames(len(UNEVEN_MS)), codec="libvpx", options={"g": "12"}
    )
    hidden = folder / "hidden.webm"
    hidden.write_bytes(base64.b64decode(HIDDEN_PACKET_WEBM))
    shown = [np.flatnonzero(UNEVEN_MS <= 33 * tick + 1)[-1] for tick in range(130)]
    return {
        "clock starts again": (two("again.ts", **h264), 25, range(60)),
        "clock starts again in mid-step": (two("later.ts", first_pts=700, **h264), 25, range(60)),
        "clock jumps": (two("jumps.ts", first_pts=-(10**6), **h264), 25, range(60)),
        "clock starts again in a VOB": (two("again.vob", **mpeg2), 25, range(60)),
        "one stamp twice": (
            with_times(folder / "twice.webm", uneven, UNEVEN_MS),
            1000 / 33,
            shown,
        ),
        "packets that are not shown": (str(hidden), 24000 / 1001, range(24)),
    }


NAMES = (
    *("clock starts again", "clock starts again in mid-step", "clock jumps"),
    *("clock starts again in a VOB", "one stamp twice", "packets that are not shown"),
)


@pytest.fixture
def asked(monkeypatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a list that gets the ticks of every clip that any reader finds, and their frames."""
    found = []
    real = BaseReader.ticks_to_frames

    def listening(self, ticks):
        found.append((np.atleast_2d(ticks), np.atleast_2d(real(self, ticks))))
        return found[-1][1].reshape(np.shape(ticks))

    monkeypatch.setattr(BaseReader, "ticks_to_frames", listening)
    return found


@pytest.fixture
def cfg(small_cfg):
    def make(backend: str):
        views = "TEST.NUM_TEMPORAL_CLIPS 3 TEST.NUM_SPATIAL_CROPS 1 TEST.VIEWS_TABLE False"
        clip = f"DATA.NUM_FRAMES {NUM_FRAMES} DATA.SAMPLING_RATE {SAMPLING_RATE}"
        return small_cfg(f"DATA.DECODING_BACKEND {backend} TRAIN.BATCH_SIZE 1", views, clip)

    return make


def load(cfg, split: str, path: str) -> None:
    """Read all batches of a split that holds one video."""
    for batch in build_loader(cfg, split, [VideoRecord(path, 0, 0)]).batches():
        if batch.failures:
            raise DecodeError(path, str(batch.failures[0]))


def train(cfg, path: str, folder: Path) -> None:
    load(cfg, "train", path)


def evaluate(cfg, path: str, folder: Path) -> None:
    load(cfg, "test", path)


def predict(cfg, path: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = hiera_micro_8x64(input_size=(NUM_FRAMES, 32, 32), num_classes=8)
    content = {"model_state": model.state_dict(), "cfg": to_yaml(cfg)}
    torch.save(content, folder / "checkpoint.pyth")
    Predictor(folder / "checkpoint.pyth")(path)


def check(cfg, path: str, folder: Path) -> None:
    clip = ClipSpec(NUM_FRAMES, SAMPLING_RATE, TARGET_FPS)
    settings = ScanSettings(cfg.DATA.DECODING_BACKEND, False, clip)
    verdict = check_video(path, Job(), settings=settings)
    if verdict.reason:
        raise DecodeError(path, verdict.reason)


def prepare(cfg, path: str, folder: Path) -> None:
    target = str(folder / "prepared.mp4")
    outcome = prepare_one(Task(path, target, Encoding()), Job())
    assert outcome.facts, outcome.reason
    load(cfg, "test", target)


@pytest.mark.parametrize("use", [train, evaluate, predict, check, prepare])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:4]), *NAMES[4:]],
)
def test_clips_run_at_their_speed(name, backend, use, doubtful, cfg, asked, tmp_path):
    try:
        check_backend(backend)
    except UserError as error:
        pytest.skip(str(error))
    path, fps, frame_of_tick = doubtful[name]
    try:
        use(cfg(backend), path, tmp_path)
    except DecodeError as error:
        # The named backends may refuse such a file, but not show other frames.
        if backend in ("torchcodec", "decord") and "Use DATA.DECODING_BACKEND auto" in str(error):
            return
        raise
    wanted = np.floor(np.arange(NUM_FRAMES) * SAMPLING_RATE * fps / TARGET_FPS + 0.5)
    assert asked
    for ticks_VT, frames_VT in asked:
        for ticks_T, frames_T in zip(ticks_VT, frames_VT, strict=True):
            last = len(frame_of_tick) - 1
            assert ticks_T.tolist() == np.minimum(ticks_T[0] + wanted, last).tolist()
            assert frames_T.tolist() == [frame_of_tick[tick] for tick in ticks_T]


@pytest.mark.parametrize("name", NAMES)
def test_a_prepared_video_keeps_frames_and_rate(name, doubtful, decode_index, tmp_path):
    path, fps, frame_of_tick = doubtful[name]
    target = tmp_path / "prepared.mp4"
    outcome = prepare_one(Task(path, str(target), Encoding()), Job())
    assert outcome.facts, outcome.reason
    with open_video(str(target)) as reader:
        assert reader.fps == pytest.approx(fps, rel=2e-3)
        assert reader.num_ticks == len(frame_of_tick)
        assert reader.num_frames == frame_of_tick[-1] + 1
        frames_THWC = reader.frames_at(range(reader.num_frames))
        assert list(map(decode_index, frames_THWC)) == list(range(reader.num_frames))
    with av.open(str(target)) as container:
        steps = np.diff([float(frame.time) for frame in container.decode(video=0)])
    assert steps.min() > 0
    assert (steps < 0.02).sum() == (name == "one stamp twice")


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_lasts_as_long_as_its_file(name, doubtful):
    path, fps, frame_of_tick = doubtful[name]
    times = [frame.time_sec for frame in stream_frames(path, fallback_fps=30, wait_sec=0)]
    assert times == sorted(times)
    assert len(times) == frame_of_tick[-1] + 1
    assert times[-1] == pytest.approx((len(frame_of_tick) - 1) / fps, abs=0.05)

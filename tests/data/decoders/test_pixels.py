"""Pixels that are not square: shown as a player shows them, everywhere, unless a key says no."""

import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from hiera_video.config import load_config
from hiera_video.data.build import build_loader
from hiera_video.data.checks.scan import ScanSettings, check_video
from hiera_video.data.decoders import Decoding, open_video
from hiera_video.data.decoders._reader import SquareReader
from hiera_video.data.prepare.encode import Encoding, encode
from hiera_video.data.prepare.verify import VerifyError, verify
from hiera_video.data.records import VideoRecord
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.workers.process import Job
from hiera_video.inference.stream import stream_frames

BACKENDS = ("auto", "pyav", "torchcodec", "decord")
SIDE = 64


@pytest.fixture(scope="module")
def bands():
    """Square pictures, white in the middle half of their width and black beside it."""
    frames_THWC = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    frames_THWC[:, :, SIDE // 4 : -SIDE // 4] = 255
    return frames_THWC


@pytest.fixture(scope="module")
def wide(tmp_path_factory, make_video, bands):
    """A video whose pixels are twice as wide as they are high."""
    path = tmp_path_factory.mktemp("pixels") / "wide.mp4"
    return make_video(path, bands, pixel_ratio=Fraction(2))


def size(path, decoding):
    with open_video(path, decoding) as reader:
        return reader.frames_at([0, 7]).shape[2:0:-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_are_shown_as_a_player_does(wide, bands, backend):
    with open_video(wide, backend) as reader, open_video(wide, Decoding(backend, False)) as stored:
        assert reader.num_frames == stored.num_frames == 8
        assert (reader.num_ticks, reader.fps) == (stored.num_ticks, stored.fps)
        shown_THWC, stored_THWC = reader.frames_at([5, 0, 5]), stored.frames_at([5, 0, 5])
    assert shown_THWC.shape == (3, SIDE, 2 * SIDE, 3)
    assert shown_THWC.dtype == np.uint8
    assert stored_THWC.shape == (3, SIDE, SIDE, 3)
    assert np.abs(stored_THWC.astype(int) - bands[:3]).mean() < 6
    assert np.abs(shown_THWC.astype(int) - bands[:3].repeat(2, axis=2)).mean() < 8


@pytest.mark.parametrize(
    ("ratio", "rotation", "shown"),
    [
        (Fraction(8, 9), 0, (SIDE, SIDE * 9 // 8)),
        (Fraction(4, 3), 0, (85, SIDE)),
        (Fraction(1, 2), 180, (SIDE, 2 * SIDE)),
        (Fraction(2), 90, (SIDE, 2 * SIDE)),
        (Fraction(1281, 1280), 0, (SIDE, SIDE)),  # what rounding to even sides leaves behind
        (Fraction(1000), 0, (SIDE, SIDE)),
        (Fraction(1, 1000), 0, (SIDE, SIDE)),
        (None, 0, (SIDE, SIDE)),
    ],
)
def test_ratios_are_followed_where_they_can_be_true(
    tmp_path, make_video, bands, ratio, rotation, shown
):
    source = make_video(tmp_path / "a.mp4", bands, pixel_ratio=ratio, rotation=rotation)
    target = str(tmp_path / "prepared.mp4")
    verify(target, encode(source, target, Encoding(), lambda *_: None), lambda *_: None)
    for path in (source, target):
        assert size(path, "auto") == shown
        assert size(path, Decoding(square_pixels=False)) == (SIDE, SIDE)
        with open_video(path) as reader:  # costs nothing where it changes nothing
            assert isinstance(reader, SquareReader) == (shown != (SIDE, SIDE))


def test_a_prepared_file_that_lost_its_ratio_is_refused(tmp_path, wide, make_video, bands):
    encoded = encode(wide, str(tmp_path / "prepared.mp4"), Encoding(), lambda *_: None)
    lost = make_video(tmp_path / "lost.mp4", bands, pts_step=1)
    with pytest.raises(VerifyError, match="its pixels have the ratio 1, not 2"):
        verify(lost, encoded, lambda *_: None)


def test_opening_reads_a_file_once_and_decodes_nothing(wide):
    calls = Counter()

    def count(_frame, event, called):
        if event == "c_call":
            calls[called.__qualname__] += 1

    sys.setprofile(count)
    try:
        open_video(wide).close()
    finally:
        sys.setprofile(None)
    assert calls["Packet.iter_sidedata"] == 8
    assert calls["InputContainer.demux"] == 1
    assert not {"Packet.decode", "InputContainer.seek", "Packet.has_sidedata"} & set(calls)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("key", "mean"), [("True", 1.0), ("False", 0.5)])
def test_the_key_holds_in_training_and_tests(wide, tmp_path, split, key, mean):
    words = (
        f"DATA.PATH_TO_DATA_DIR {tmp_path} DATA.SQUARE_PIXELS {key} DATA_LOADER.NUM_WORKERS 0 "
        "DATA.NUM_FRAMES 4 DATA.SAMPLING_RATE 1 AUG.ENABLE False TRAIN.BATCH_SIZE 1 "
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [1.0,1.0] DATA.TRAIN_JITTER_ASPECT_RELATIVE [1.0,1.0] "
        "DATA.MEAN [0.0,0.0,0.0] DATA.STD [1.0,1.0,1.0] DATA_LOADER.NORMALIZE_ON_DEVICE False "
        "TEST.NUM_TEMPORAL_CLIPS 1 TEST.NUM_SPATIAL_CROPS 1 NUM_GPUS 0"
    )
    cfg = load_config("configs/Demo/HIERA_MICRO.yaml", words.split())
    (batch,) = build_loader(cfg, split, [VideoRecord(wide, 0, 0)]).batches()
    assert batch.clips_BCTHW.mean().item() == pytest.approx(mean, abs=0.05)


def test_the_key_holds_in_a_check_and_a_stream(wide):
    for squared, width in ((True, 2 * SIDE), (False, SIDE)):
        settings = ScanSettings("auto", False, ClipSpec(4, 1, 30.0), square_pixels=squared)
        facts = check_video(wide, Job(), settings=settings).facts
        assert (facts.width, facts.height) == (width, SIDE)
        frame = next(iter(stream_frames(wide, fallback_fps=30.0, square_pixels=squared)))
        assert frame.picture().shape == (SIDE, width, 3)

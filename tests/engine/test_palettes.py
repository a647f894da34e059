"""Videos of 8-bit palettes keep their colours in training, in a test and in a check."""

import numpy as np
import pytest
import torch

from hiera_video.data.build import build_loader
from hiera_video.data.checks.scan import ScanSettings, check_video
from hiera_video.data.decoders import check_backend
from hiera_video.data.records import VideoRecord
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.workers.process import Job
from hiera_video.utils.errors import UserError

NAMES = ["palette.avi", "palette.mov", "grey.mov"]
REFUSED = "Use DATA.DECODING_BACKEND auto"


@pytest.fixture(params=["pyav", "auto", "torchcodec", "decord"])
def backend(request):
    try:
        check_backend(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return request.param


def first_batch(cfg, split, path):
    return next(iter(build_loader(cfg, split, [VideoRecord(path, 0, 0)]).batches()))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", NAMES)
def test_clips_have_the_colours_of_a_lossless_copy(
    name, split, backend, videos, decode_all, make_video, small_cfg, tmp_path
):
    frames_THWC = np.stack(decode_all(videos[name]))
    copy = make_video(tmp_path / "copy.mkv", frames_THWC, codec="ffv1", pix_fmt="bgr0")
    cfg = small_cfg(f"DATA.DECODING_BACKEND {backend} TRAIN.BATCH_SIZE 1")
    batch = first_batch(cfg, split, videos[name])
    if backend in ("torchcodec", "decord"):
        assert len(batch) == 0
        assert REFUSED in batch.failures[0].reason
        return
    assert not batch.failures
    assert torch.equal(batch.clips_BCTHW, first_batch(cfg, split, copy).clips_BCTHW)
    assert batch.clips_BCTHW.float().std() > 0.1  # no black frames


@pytest.mark.parametrize("name", NAMES)
def test_a_check_says_what_the_backend_can_read(name, backend, videos):
    settings = ScanSettings(backend, False, ClipSpec(4, 2, 30.0))
    reason = check_video(videos[name], Job(), settings=settings).reason
    assert REFUSED in reason if backend in ("torchcodec", "decord") else reason == ""

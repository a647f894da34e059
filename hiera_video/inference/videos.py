"""Read the views of videos that are in no list: by path, in batches, or from frames in memory.

Shape suffixes: T frames, H height, W width, C colours (RGB).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from hiera_video.config import Config
from hiera_video.data.build import build_loader
from hiera_video.data.dataset import Failure
from hiera_video.data.decoders import check_backend
from hiera_video.data.loader import Batch
from hiera_video.data.records import NO_LABEL, VideoRecord
from hiera_video.utils.errors import UserError


def read_videos(
    cfg: Config, paths: Sequence[str], *, device: torch.device
) -> Iterator[tuple[Batch, list[tuple[str, int | Failure]]]]:
    """Read all test views of the videos; yield batches, each with its paths.

    With each path comes the index of its video in the batch, or why it did not decode.

    Raises:
        UserError: the config's decoder is not there.
    """
    if not paths:
        return
    check_backend(cfg.DATA.DECODING_BACKEND)
    workers = min(cfg.DATA_LOADER.NUM_WORKERS, len(paths))
    cfg = replace(
        cfg,
        NUM_GPUS=int(device.type == "cuda"),
        DATA_LOADER=replace(cfg.DATA_LOADER, NUM_WORKERS=workers),
    )
    records = [VideoRecord(path, NO_LABEL, index) for index, path in enumerate(paths)]
    loader = build_loader(cfg, "test", records)
    done = 0
    try:
        for batch in loader.batches():
            good = set(batch.video_indices_B.tolist())
            failures = iter(batch.failures)
            number = len(good) + len(batch.failures)
            places: list[tuple[str, int | Failure]] = []
            place = 0
            for index in range(done, done + number):
                if index in good:
                    places.append((paths[index], place))
                    place += 1
                else:
                    places.append((paths[index], next(failures)))
            done += number
            yield batch, places
    finally:
        loader.close()


class FramesReader:
    """Gives frames in memory the interface of an opened video, `data.decoders.VideoReader`.

    `frames_THWC` are uint8 RGB `[T, H, W, 3]`, `fps` of them a second.

    Raises:
        UserError: they are of another type or shape, none, or `fps` is not above 0.
    """

    path = "frames"
    file = ""

    def __init__(self, frames_THWC: np.ndarray, *, fps: float | None) -> None:
        shape, dtype = frames_THWC.shape, frames_THWC.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
            raise UserError(
                f"frames must be uint8 [T, H, W, 3], got {dtype} {list(shape)}. Try RGB frames "
                "with 0..255, time first, colour last."
            )
        if fps is None or not 0 < fps < float("inf"):
            raise UserError(f"fps must be above 0, the frames of a second, got {fps}. Try 30.")
        self._frames_THWC = frames_THWC
        self.num_frames = self.num_ticks = len(frames_THWC)
        self.fps = float(fps)

    def ticks_to_frames(self, ticks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the ticks themselves: each is a frame."""
        return np.asarray(ticks, dtype=np.int64)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at `indices`."""
        return self._frames_THWC[np.asarray(indices)]

    def close(self) -> None:
        """Do nothing: the caller owns the frames."""

    def __enter__(self) -> "FramesReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

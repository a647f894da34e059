"""The one dataset: a record is opened and decoded once, and every view is cut from those frames.

Shape suffixes: V views, C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hiera_video.data.decoders import DecodeError, VideoReader, open_video
from hiera_video.data.records import VideoRecord
from hiera_video.utils.seed import rng_for

# A training video that does not decode is replaced by another; after so many misses in a row the
# trouble is not the file but the path, the disk or the decoder, and the run should hear of it.
MAX_TRIES = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that did not decode: its path and the reason, in one line."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One video's views, `views_VCTHW` float32 or None where it did not decode, and what failed."""

    views_VCTHW: torch.Tensor | None
    label: int
    video_index: int
    failures: tuple[Failure, ...] = ()


class ViewMaker(Protocol):
    """Turns an opened video into its views, `[V, C, T, H, W]`."""

    def __call__(self, reader: VideoReader, rng: np.random.Generator) -> torch.Tensor:
        """Decode what the views need, once, and cut them."""


class TrainViews:
    """Random views for training: all views of one video are cut from one decoded clip."""

    def __init__(
        self,
        *,
        sample_frames: Callable[..., np.ndarray],
        transform: Callable[[np.ndarray, np.random.Generator], torch.Tensor],
        num_views: int,
    ) -> None:
        self.sample_frames = sample_frames
        self.transform = transform
        self.num_views = num_views

    def __call__(self, reader: VideoReader, rng: np.random.Generator) -> torch.Tensor:
        """Return `views_VCTHW`, V = `num_views` (repeated augmentation)."""
        ticks_T = self.sample_frames(reader.num_ticks, reader.fps, rng=rng)
        frames_THWC = reader.frames_at(reader.ticks_to_frames(ticks_T))
        return torch.stack([self.transform(frames_THWC, rng) for _ in range(self.num_views)])


class TestViews:
    """The fixed views of a test video: temporal clips x spatial crops, from one decode."""

    __test__ = False  # not a pytest class

    def __init__(
        self,
        *,
        sample_frames: Callable[[int, float], np.ndarray],
        transform: Callable[[np.ndarray], torch.Tensor],
    ) -> None:
        self.sample_frames = sample_frames
        self.transform = transform

    def __call__(self, reader: VideoReader, rng: np.random.Generator) -> torch.Tensor:
        """Return `views_VCTHW`, the crops of the first clip first; `rng` is not used."""
        ticks_VT = self.sample_frames(reader.num_ticks, reader.fps)
        frame_indices_VT = reader.ticks_to_frames(ticks_VT)
        # The clips of one video overlap: every frame is decoded once, whoever wants it.
        wanted, places = np.unique(frame_indices_VT, return_inverse=True)
        frames_THWC = reader.frames_at(wanted)
        clips = places.reshape(frame_indices_VT.shape)
        return torch.cat([self.transform(frames_THWC[clip]) for clip in clips])


class VideoDataset(Dataset[Sample]):
    """Videos as samples of views; indexed by `(epoch, index)`, so that each epoch draws anew.

    Never raises for a bad file. With `replace_bad`, a video that does not decode is replaced by
    another one, drawn from the same random numbers; otherwise its sample has no views. Either way
    the sample carries the failures, for the log.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        make_views: ViewMaker,
        backend: str,
        seed: int,
        replace_bad: bool,
    ) -> None:
        self.records = records
        self.make_views = make_views
        self.backend = backend
        self.seed = seed
        self.replace_bad = replace_bad

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of video `index` in `epoch`."""
        epoch, index = key
        rng = rng_for("sample", self.seed, epoch, index)
        failures: list[Failure] = []
        record = self.records[index]
        for _ in range(MAX_TRIES if self.replace_bad else 1):
            try:
                with open_video(record.path, backend=self.backend) as reader:
                    views_VCTHW = self.make_views(reader, rng)
                return Sample(views_VCTHW, record.label, record.video_index, tuple(failures))
            except DecodeError as error:
                failures.append(Failure(record.path, str(error)))
                record = self.records[int(rng.integers(len(self.records)))]
        return Sample(
            None, self.records[index].label, self.records[index].video_index, tuple(failures)
        )

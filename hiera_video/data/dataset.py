"""The one dataset: a record is opened and decoded once, and every view is cut from those frames.

Shape suffixes: V views, C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hiera_video.data.decoders import DecodeError, Decoding, VideoReader, open_video
from hiera_video.data.records import VideoRecord
from hiera_video.data.shards.members import fetch_shard
from hiera_video.data.transforms.normalize import Erasure, Finish
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.utils.seed import rng_for

# A training video that does not decode is replaced by another; after so many misses in a row the
# trouble is not the file but the path, the disk or the decoder, and the run should hear of it.
MAX_TRIES = 10

Allocate = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
"""Gives memory for all views of one video, of undefined content."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that did not decode: its path and the reason, in one line."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One video's views, or None where it did not decode, and what failed.

    `views` are float32 `[V, C, T, H, W]`, normalised; or uint8 pixels `[V, T, H, W, C]`, of which
    `erasures` are still to be made, one per view.
    """

    views: torch.Tensor | None
    label: int
    video_index: int
    failures: tuple[Failure, ...] = ()
    erasures: tuple[Erasure | None, ...] = ()


class ViewMaker(Protocol):
    """Turns an opened video into the pixels of its views."""

    finish: Finish

    def __call__(
        self, reader: VideoReader, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        """Decode what the views need, once; return uint8 `[V, T, H, W, C]`, and what to erase."""


class TrainViews:
    """Random views for training: all views of one video are cut from one decoded clip."""

    def __init__(
        self, *, sample_frames: Callable[..., np.ndarray], transform: TrainTransform, num_views: int
    ) -> None:
        self.sample_frames = sample_frames
        self.transform = transform
        self.num_views = num_views
        self.finish = transform.finish

    def __call__(
        self, reader: VideoReader, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        """Return `num_views` views (repeated augmentation)."""
        ticks_T = self.sample_frames(reader.num_ticks, reader.fps, rng=rng)
        frames_THWC = reader.frames_at(reader.ticks_to_frames(ticks_T))
        side = self.transform.crop_size
        pixels_VTHWC = allocate((self.num_views, len(frames_THWC), side, side, 3), torch.uint8)
        erasures = [self.transform.write(frames_THWC, rng, view) for view in pixels_VTHWC]
        return pixels_VTHWC, tuple(erasures)


class TestViews:
    """The fixed views of a test video: temporal clips x spatial crops, from one decode."""

    __test__ = False  # not a pytest class

    def __init__(
        self, *, sample_frames: Callable[[int, float], np.ndarray], transform: TestTransform
    ) -> None:
        self.sample_frames = sample_frames
        self.transform = transform
        self.finish = transform.finish

    def __call__(
        self, reader: VideoReader, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        """Return the crops of the first clip, then of the next; `rng` is not used."""
        ticks_VT = self.sample_frames(reader.num_ticks, reader.fps)
        frame_indices_VT = reader.ticks_to_frames(ticks_VT)
        # The clips of one video overlap: every frame is decoded and resized once, whoever wants it.
        wanted, places = np.unique(frame_indices_VT, return_inverse=True)
        frames_NHWC = reader.frames_at(wanted)
        clips_VT = places.reshape(frame_indices_VT.shape)
        side, num_crops = self.transform.crop_size, self.transform.num_crops
        num_clips, num_frames = ticks_VT.shape
        pixels = allocate((num_clips * num_crops, num_frames, side, side, 3), torch.uint8)
        pixels_VSTHWC = pixels.view(num_clips, num_crops, num_frames, side, side, 3)
        self.transform.write(frames_NHWC, clips_VT, pixels_VSTHWC)
        return pixels, (None,) * len(pixels)


class VideoDataset(Dataset[Sample]):
    """Videos as samples of views; indexed by `(epoch, index)`, so that each epoch draws anew.

    Never raises for a bad file. With `replace_bad`, a video that does not decode is replaced by
    another one, drawn from the same random numbers; otherwise its sample has no views. Either way
    the sample carries the failures, for the log. With `finish`, views are normalised here, and
    otherwise left as pixels, a quarter of the bytes, for whoever computes with them.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        make_views: ViewMaker,
        backend: str | Decoding,
        seed: int,
        replace_bad: bool,
        finish: bool = True,
    ) -> None:
        self.records = records
        self.make_views = make_views
        self.backend = backend
        self.seed = seed
        self.replace_bad = replace_bad
        self.finish = finish

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of video `index` in `epoch`."""
        return self.read(key)

    def read(
        self,
        key: tuple[int, int],
        *,
        refused: Mapping[int, str] | None = None,
        begin: Callable[[int], None] = lambda index: None,
        allocate: Allocate | None = None,
    ) -> Sample:
        """Return the sample of `(epoch, index)`.

        `refused` are videos that are not to be opened, by index, and why; they fail as if they had
        been. `begin` is told the index of each video before it is opened, and -1 while its shard is
        fetched. `allocate` gives the memory of the views.
        """
        epoch, first = key
        rng = rng_for("sample", self.seed, epoch, first)
        failures: list[Failure] = []
        index = first
        for _ in range(MAX_TRIES if self.replace_bad else 1):
            record = self.records[index]
            begin(-1)
            fetch_shard(record.path)
            begin(index)
            try:
                if refused and index in refused:
                    raise DecodeError(record.path, refused[index])
                views, erasures = self._views(record, rng, allocate or _plain)
                return Sample(views, record.label, record.video_index, tuple(failures), erasures)
            except DecodeError as error:
                failures.append(Failure(record.path, str(error)))
                index = int(rng.integers(len(self.records)))
        record = self.records[first]
        return Sample(None, record.label, record.video_index, tuple(failures))

    def _views(
        self, record: VideoRecord, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        with open_video(record.path, backend=self.backend) as reader:
            if not self.finish:
                return self.make_views(reader, rng, allocate)
            pixels_VTHWC, erasures = self.make_views(reader, rng, _plain)
        num_views, num_frames, height, width, channels = pixels_VTHWC.shape
        clips_VCTHW = allocate((num_views, channels, num_frames, height, width), torch.float32)
        self.make_views.finish(pixels_VTHWC, erasures, out=clips_VCTHW)
        return clips_VCTHW, ()


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)

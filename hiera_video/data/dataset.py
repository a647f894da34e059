"""The dataset: open and decode each record once, and cut every view from those frames.

Shape suffixes: V views, C channels, T frames, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hiera_video.data.decoders import DecodeError, Decoding, VideoReader, open_video
from hiera_video.data.frame_cache import FrameCache
from hiera_video.data.records import VideoRecord
from hiera_video.data.shards.members import fetch_shard
from hiera_video.data.transforms.normalize import Erasure, Normalize
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.utils.seed import rng_for

# A training video that does not decode is replaced by another. After this many failures in a row,
# the cause is the path, the disk or the decoder, not the file. The sample then reports the failure.
MAX_TRIES = 10

Allocate = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
"""Allocates uninitialised memory for all views of one video."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that did not decode: its path and the reason, in one line."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The views of one video, or None if it did not decode, and the failures on the way.

    `views` is normalised float32 `[V, C, T, H, W]`, or uint8 pixels `[V, T, H, W, C]`. In the
    second case `erasures` still have to be applied, one per view.
    """

    views: torch.Tensor | None
    label: int
    video_index: int
    failures: tuple[Failure, ...] = ()
    erasures: tuple[Erasure | None, ...] = ()


class ViewMaker(Protocol):
    """Makes the pixels of all views from an opened video."""

    finish: Normalize

    def __call__(
        self, reader: VideoReader, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        """Decode each needed frame once; return uint8 `[V, T, H, W, C]` and what to erase."""


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
        """Return `num_views` random views of one clip (repeated augmentation)."""
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
        """Return all crops of the first clip, then of the next clip, and so on; ignores `rng`."""
        ticks_VT = self.sample_frames(reader.num_ticks, reader.fps)
        frame_indices_VT = reader.ticks_to_frames(ticks_VT)
        # The clips of one video overlap. Decode and resize each frame once for all of them.
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
    """Reads videos as samples of views, indexed by `(epoch, index)`: each epoch has its own draws.

    A bad file raises no exception. With `replace_bad`, a video that does not decode is replaced by
    another, drawn from the same random generator; otherwise its sample has no views. In both cases
    the sample carries the failures for the log. With `finish`, the views are normalised here.
    Otherwise they stay pixels, which take a quarter of the bytes, and the consumer normalises them.

    `cache` keeps decoded videos; its number `first_in_cache` is the first of `records`.
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
        cache: FrameCache | None = None,
        first_in_cache: int = 0,
    ) -> None:
        self.records = records
        self.make_views = make_views
        self.backend = backend
        self.seed = seed
        self.replace_bad = replace_bad
        self.finish = finish
        self.cache = cache
        self.first_in_cache = first_in_cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Read the sample of `(epoch, index)`."""
        return self.read(key)

    def read(
        self,
        key: tuple[int, int],
        *,
        refused: Mapping[int, str] | None = None,
        begin: Callable[[int], None] = lambda index: None,
        allocate: Allocate | None = None,
    ) -> Sample:
        """Read the sample of `(epoch, index)`.

        `refused` maps the indices of videos that must not be opened to the reasons; such a video
        fails like one that does not decode. `begin` is called with the index of each video before
        it is opened, and with -1 before its shard is fetched. `allocate` allocates the views.
        """
        epoch, first = key
        rng = rng_for("sample", self.seed, epoch, first)
        failures: list[Failure] = []
        index = first
        for _ in range(MAX_TRIES if self.replace_bad else 1):
            record = self.records[index]
            if not self._is_kept(index):
                begin(-1)
                fetch_shard(record.path)
            begin(index)
            try:
                if refused and index in refused:
                    raise DecodeError(record.path, refused[index])
                views, erasures = self._views(index, rng, allocate or _plain)
                return Sample(views, record.label, record.video_index, tuple(failures), erasures)
            except DecodeError as error:
                failures.append(Failure(record.path, str(error)))
                index = int(rng.integers(len(self.records)))
        record = self.records[first]
        return Sample(None, record.label, record.video_index, tuple(failures))

    def _is_kept(self, index: int) -> bool:
        return self.cache is not None and self.cache.holds(self.first_in_cache + index)

    def _open(self, index: int) -> VideoReader:
        path = self.records[index].path
        if self.cache is None:
            return open_video(path, backend=self.backend)
        return self.cache.open(self.first_in_cache + index, path, backend=self.backend)

    def _views(
        self, index: int, rng: np.random.Generator, allocate: Allocate
    ) -> tuple[torch.Tensor, tuple[Erasure | None, ...]]:
        with self._open(index) as reader:
            if not self.finish:
                return self.make_views(reader, rng, allocate)
            pixels_VTHWC, erasures = self.make_views(reader, rng, _plain)
        num_views, num_frames, height, width, channels = pixels_VTHWC.shape
        clips_VCTHW = allocate((num_views, channels, num_frames, height, width), torch.float32)
        self.make_views.finish(pixels_VTHWC, erasures, out=clips_VCTHW)
        return clips_VCTHW, ()


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)

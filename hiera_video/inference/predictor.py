"""Predict the classes of videos with a trained model: `Predictor(checkpoint)(path)`.

Shape suffixes: B views of some videos, V views of one video, K classes, CTHW a clip; frames_THWC
are uint8 RGB.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, overload

import numpy as np
import torch

from hiera_video.checkpoints.matching import num_classes_of
from hiera_video.config import Config
from hiera_video.data import sampling
from hiera_video.data.build import clip_spec
from hiera_video.data.dataset import Failure, TestViews
from hiera_video.data.decoders import DecodeError
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.inference.load import load_trained
from hiera_video.inference.videos import FramesReader, read_videos
from hiera_video.models.parts.scores import probabilities
from hiera_video.utils.errors import UserError
from hiera_video.utils.text import printable

Path = str | os.PathLike[str]
# Not a Sequence, which a str is too.
Paths = list[str] | list[Path] | tuple[Path, ...]


class ClassScore(NamedTuple):
    """A class (its number and its name) and its probability."""

    label: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classes of one video: `scores` float32 `[K]`, mean probabilities over its views.

    `path` is "" for frames.
    """

    path: str
    scores: np.ndarray
    class_names: tuple[str, ...]

    def top(self, k: int = 5) -> list[ClassScore]:
        """Return the k classes with the highest scores (all if there are fewer), highest first.

        Among classes with the same score, the lower number comes first.
        """
        best = np.argsort(-self.scores, kind="stable")[:k]
        return [ClassScore(int(i), self.class_names[i], float(self.scores[i])) for i in best]

    @property
    def label(self) -> int:
        """The number of the class with the highest score."""
        return self.top(1)[0].label

    @property
    def name(self) -> str:
        """The name of the class with the highest score."""
        return self.top(1)[0].name

    @property
    def score(self) -> float:
        """The highest score, in [0, 1]."""
        return self.top(1)[0].score


class Predictor:
    """Scores videos as the multi-view test does: same clips, crops and normalisation.

    Args:
        checkpoint: a run's own, or a folder of tools/export.py, whose clips and class names are
            used; with `model`, a published name such as "mae_k400_ft_k400", a file or a URL.
        model: the model's function, such as "hiera_base_16x224", for published weights.
        device: such as "cpu" or "cuda:1"; None: the first CUDA device if there is one.
        class_names: names, a text file with one a line, or "kinetics400" or "ssv2", in place of
            the checkpoint's. Classes that nobody names are called "class 0" and so on.
        num_clips, num_crops: views of a video; None: TEST.NUM_TEMPORAL_CLIPS and
            TEST.NUM_SPATIAL_CROPS of the config.
        num_workers: processes that decode; 0 decodes in this one, where nothing protects it from a
            file that makes its decoder hang or crash. With more, a script needs
            `if __name__ == "__main__":`.
        cfg: a config for a checkpoint that lacks one.

    Raises:
        UserError: no such checkpoint, model or device, or a checkpoint without a classifier.
    """

    def __init__(
        self,
        checkpoint: Path | None = None,
        *,
        model: str | None = None,
        device: str | torch.device | None = None,
        class_names: str | Sequence[str] | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        num_workers: int = 0,
        cfg: Config | None = None,
    ) -> None:
        found = load_trained(
            checkpoint, model=model, cfg=cfg, class_names=class_names, device=device
        )
        self.model, self.device = found.model, found.device
        self.cfg = with_views(
            found.cfg, num_clips=num_clips, num_crops=num_crops, num_workers=num_workers
        )
        self.is_named = bool(found.class_names)
        self.class_names = found.class_names or tuple(
            f"class {label}" for label in range(num_classes_of(self.model) or 0)
        )

    @overload
    def __call__(self, source: Path) -> Prediction: ...

    @overload
    def __call__(self, source: np.ndarray, *, fps: float) -> Prediction: ...

    @overload
    def __call__(self, source: Paths) -> list[Prediction]: ...

    def __call__(
        self, source: Path | np.ndarray | Paths, *, fps: float | None = None
    ) -> Prediction | list[Prediction]:
        """Return the prediction for a path or for frames, or those for several paths.

        Frames are uint8 RGB `[T, H, W, 3]`, `fps` of them a second.

        Raises:
            DecodeError: a video does not decode; `each` goes on with the others.
            UserError: frames of another shape or type, or without `fps`.
        """
        if isinstance(source, (str, os.PathLike)):
            return _raised(next(self.each([source])))
        if isinstance(source, (np.ndarray, torch.Tensor)):
            return self._of_frames(np.asarray(source), fps)
        return [_raised(found) for found in self.each(source)]

    def each(self, paths: Sequence[Path]) -> Iterator[Prediction | Failure]:
        """Yield the prediction for each path in order, or why the video did not decode.

        Raises:
            UserError: the model's outputs are not finite.
        """
        names = [os.fspath(path) for path in paths]
        num_views = self.cfg.TEST.NUM_TEMPORAL_CLIPS * self.cfg.TEST.NUM_SPATIAL_CROPS
        for batch, places in read_videos(self.cfg, names, device=self.device):
            parts = [
                self.probabilities(part.to(self.device).clips_BCTHW)
                for part in batch.split(self.cfg.TEST.BATCH_SIZE)
            ]
            scores_NK = np.empty(0)
            if parts:
                probabilities_BK = np.concatenate(parts)
                shape_NVK = (-1, num_views, probabilities_BK.shape[1])
                scores_NK = probabilities_BK.reshape(shape_NVK).mean(1)
            for path, place in places:
                if isinstance(place, Failure):
                    yield place
                else:
                    yield self.prediction(scores_NK[place], path)

    def probabilities(self, clips_BCTHW: torch.Tensor) -> np.ndarray:
        """Return the probabilities of normalised clips, float32 `[B, K]`.

        Raises:
            UserError: the outputs are not finite, or the clips of another size than the model's.
        """
        mixed = self.cfg.TRAIN.MIXED_PRECISION
        clips_BCTHW = clips_BCTHW.to(self.device)
        return probabilities(self.model, clips_BCTHW, mixed_precision=mixed).numpy()

    def prediction(self, scores_K: np.ndarray, path: str = "") -> Prediction:
        """Return scores together with the names of their classes."""
        return Prediction(path, scores_K, self.class_names)

    def transform(self, *, num_crops: int) -> TestTransform:
        """Return the transform that makes crops of frames as the test does."""
        data = self.cfg.DATA
        return TestTransform(
            crop_size=data.TEST_CROP_SIZE, num_crops=num_crops, mean=data.MEAN, std=data.STD
        )

    def _of_frames(self, frames_THWC: np.ndarray, fps: float | None) -> Prediction:
        views = TestViews(
            sample_frames=partial(
                sampling.testing_indices,
                clip_spec(self.cfg),
                num_clips=self.cfg.TEST.NUM_TEMPORAL_CLIPS,
            ),
            transform=self.transform(num_crops=self.cfg.TEST.NUM_SPATIAL_CROPS),
        )
        reader = FramesReader(frames_THWC, fps=fps)
        pixels_VTHWC, _ = views(
            reader, np.random.default_rng(), lambda shape, dtype: torch.empty(shape, dtype=dtype)
        )
        parts = [
            self.probabilities(views.finish(part))
            for part in pixels_VTHWC.split(self.cfg.TEST.BATCH_SIZE)
        ]
        return self.prediction(np.concatenate(parts).mean(0))


def with_views(
    cfg: Config, *, num_clips: int | None, num_crops: int | None, num_workers: int
) -> Config:
    """Return the config with other numbers of views and decoding processes; None keeps its own.

    Raises:
        UserError: a number that cannot be.
    """
    num_clips = cfg.TEST.NUM_TEMPORAL_CLIPS if num_clips is None else num_clips
    num_crops = cfg.TEST.NUM_SPATIAL_CROPS if num_crops is None else num_crops
    if num_clips < 1:
        raise UserError(f"num_clips must be at least 1, got {num_clips}. Try 5.")
    if num_crops not in (1, 3):
        raise UserError(f"num_crops must be 1 or 3, got {num_crops}. Try 1, the centre crop.")
    if num_workers < 0:
        raise UserError(f"num_workers must be at least 0, got {num_workers}. Try 0.")
    return replace(
        cfg,
        TEST=replace(cfg.TEST, NUM_TEMPORAL_CLIPS=num_clips, NUM_SPATIAL_CROPS=num_crops),
        DATA_LOADER=replace(cfg.DATA_LOADER, NUM_WORKERS=num_workers),
    )


def _raised(found: Prediction | Failure) -> Prediction:
    if isinstance(found, Failure):
        raise DecodeError(found.path, found.reason.removeprefix(f"{printable(found.path)}: "))
    return found

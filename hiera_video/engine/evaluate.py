"""Score videos from their views, for validation in training and for the multi-view test.

Shape suffixes: B views of a batch, V views of a video, N videos, K classes, CTHW a clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from hiera_video.config import Config
from hiera_video.data.build import num_views
from hiera_video.data.dataset import Failure
from hiera_video.data.loader import Batch, BatchLoader
from hiera_video.engine.parallel.fsdp import gathered, is_sharded
from hiera_video.engine.run_log import RunLog
from hiera_video.metrics.build import measure_all as measure_metrics
from hiera_video.metrics.confusion import confusion_matrix, mean_class_accuracy
from hiera_video.metrics.ensemble import VideoScores, growing_view_subsets
from hiera_video.metrics.topk import topk_accuracy
from hiera_video.models.build import build_model
from hiera_video.models.parts.scores import probabilities
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError


class Interrupted(Exception):
    """An evaluation was asked to end before it was done."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation: accuracies in [0, 1] over the videos that were evaluated."""

    num_videos: int
    views: str
    top1: float
    top5: float
    mean_class: float
    video_indices_N: np.ndarray
    labels_N: np.ndarray
    scores_NK: np.ndarray
    confusion_KK: np.ndarray
    top1_by_views: dict[str, float]
    more: dict[str, float]
    failures: tuple[Failure, ...] = field(default=())

    def refuse_bad(self, max_fraction: float, split: str) -> None:
        """Raise a UserError if more than `max_fraction` of the videos have no score."""
        if len(self.failures) > max_fraction * self.num_videos:
            raise UserError(
                f"DATA.MAX_BAD_FRACTION must be at least the share of bad videos, got "
                f"{max_fraction:g}: {len(self.failures)} of the {self.num_videos} videos of the "
                f"{split} split could not be evaluated, the first: {self.failures[0].reason} "
                "Try tools/check_data.py."
            )

    @property
    def num_evaluated(self) -> int:
        """Return the number of videos that have a score."""
        return len(self.labels_N)

    def summary(self) -> str:
        """Return the result in one line for people."""
        return (
            f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%}, mean class {self.mean_class:.2%} "
            f"({self.views} views, {self.num_evaluated} of {self.num_videos} videos evaluated)"
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures as plain types, accuracies in percent, other metrics as they are."""
        return {
            "top1_acc": round(100 * self.top1, 4),
            "top5_acc": round(100 * self.top5, 4),
            "mean_class_acc": round(100 * self.mean_class, 4),
            **{name: round(figure, 6) for name, figure in self.more.items()},
            "views": self.views,
            "num_videos": self.num_videos,
            "num_evaluated": self.num_evaluated,
        }


def evaluate(
    cfg: Config,
    model: nn.Module,
    loader: BatchLoader,
    split: str,
    *,
    device: torch.device,
    log: RunLog,
    is_to_end: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Score every video of a split ("val" or "test"), and list the videos that did not decode.

    With several processes, each scores its part, and all return the result over all videos.

    Raises:
        UserError: not one video could be evaluated.
        Interrupted: `is_to_end` returned True in a process. It is called before every batch.
    """
    num_clips, num_crops = num_views(cfg, split)
    subsets = growing_view_subsets(num_clips, num_crops)
    all_views = f"{num_clips}x{num_crops}"
    if not (split == "test" and cfg.TEST.VIEWS_TABLE):
        subsets = {all_views: subsets[all_views]}
    scores, failures = VideoScores(subsets), {}
    if is_sharded(model):  # FSDP needs as many forward passes in every process
        state, model = gathered(model), build_model(cfg).to(device)
        model.load_state_dict(state)
    model.eval()
    num_shared = min(dist.gather(len(loader)))  # number of batches that every process has
    with log.progress(len(loader), split) as bar:
        for number, batch in enumerate(loader.batches()):
            if number < num_shared and dist.agree(is_to_end()):
                raise Interrupted
            failures[number * dist.world_size() + dist.rank()] = report(batch, log)
            add_batch(scores, batch, cfg, model, device, views_per_video=num_clips * num_crops)
            bar.update()
    parts = dist.gather_to_main((scores, failures))
    return dist.by_main(lambda: measure_all(cfg, split, parts or [], log))


def measure_all(
    cfg: Config,
    split: str,
    parts: list[tuple[VideoScores, dict[int, list[Failure]]]],
    log: RunLog,
) -> Evaluation:
    """Merge the scores of the processes and measure them; failures are keyed by batch number.

    Raises:
        UserError: not one video could be evaluated.
    """
    scores, by_batch = parts[0]
    for other_scores, others in parts[1:]:
        scores.take(other_scores)
        by_batch |= others
        for found in others.values():
            log_failures(found, log)
    failures = [failure for number in sorted(by_batch) for failure in by_batch[number]]
    if not len(scores):
        raise UserError(
            f"no video of the {split} split could be evaluated, the first: {failures[0].reason} "
            "Check DATA.PATH_TO_DATA_DIR and DATA.PATH_PREFIX."
        )
    all_views = "{}x{}".format(*num_views(cfg, split))
    return measure(scores, all_views, cfg.MODEL.NUM_CLASSES, tuple(failures))


def report(batch: Batch, log: RunLog) -> list[Failure]:
    """Log and return the videos of a batch that did not decode."""
    log_failures(batch.failures, log)
    return list(batch.failures)


def log_failures(failures: Sequence[Failure], log: RunLog) -> None:
    """Log each video that is not evaluated."""
    for failure in failures:
        log.warning(f"{failure.reason} Not evaluated.")


def add_batch(
    scores: VideoScores,
    batch: Batch,
    cfg: Config,
    model: nn.Module,
    device: torch.device,
    *,
    views_per_video: int,
) -> None:
    """Run the model on a batch, TEST.BATCH_SIZE views at a time, and add the videos' scores."""
    if len(batch) == 0:
        return
    mixed = cfg.TRAIN.MIXED_PRECISION
    parts = [
        probabilities(model, part.to(device).clips_BCTHW, mixed_precision=mixed)
        for part in batch.split(cfg.TEST.BATCH_SIZE)
    ]
    probabilities_NVK = torch.cat(parts).unflatten(0, (-1, views_per_video)).numpy()
    labels_N = batch.labels_B[::views_per_video].tolist()
    indices_N = batch.video_indices_B[::views_per_video].tolist()
    for index, label, probabilities_VK in zip(indices_N, labels_N, probabilities_NVK, strict=True):
        scores.add(index, label, probabilities_VK)


def measure(
    scores: VideoScores, all_views: str, num_classes: int, failures: tuple[Failure, ...]
) -> Evaluation:
    """Compute accuracies from collected scores."""
    labels_N, scores_NK = scores.labels(), scores.scores(all_views)
    confusion_KK = confusion_matrix(scores_NK.argmax(1), labels_N, num_classes)
    return Evaluation(
        num_videos=len(scores) + len(failures),
        views=all_views,
        top1=topk_accuracy(scores_NK, labels_N, 1),
        top5=topk_accuracy(scores_NK, labels_N, 5),
        mean_class=mean_class_accuracy(confusion_KK),
        video_indices_N=scores.video_indices(),
        labels_N=labels_N,
        scores_NK=scores_NK,
        confusion_KK=confusion_KK,
        top1_by_views={
            name: topk_accuracy(scores.scores(name), labels_N, 1) for name in scores.view_subsets
        },
        more=measure_metrics(scores_NK, labels_N),
        failures=failures,
    )

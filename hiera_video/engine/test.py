"""The multi-view test of a trained model, and the files it leaves."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simplejson
import torch

from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.checkpoints.matching import load_weights
from hiera_video.checkpoints.run_folder import CONFUSION_FILE, RESULTS_FILE, last_checkpoint
from hiera_video.config import Config
from hiera_video.data.build import build_loader, read_class_names
from hiera_video.data.records import VideoRecord
from hiera_video.engine.checkpoint import refuse_other_classes, save_config
from hiera_video.engine.evaluate import Evaluation, Interrupted, evaluate
from hiera_video.engine.run_log import RunLog
from hiera_video.engine.signals import StopSignals
from hiera_video.metrics.confusion import save_confusion_png
from hiera_video.models.build import build_model
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError
from hiera_video.utils.outputs import write_or_elsewhere


def test(
    cfg: Config,
    records: dict[str, Sequence[VideoRecord]],
    device: torch.device,
    log: RunLog,
    stop: StopSignals,
) -> Evaluation:
    """Test TEST.CHECKPOINT_FILE_PATH, or the run's last checkpoint, and write the results.

    Raises:
        Requeue: a process of the run got SIGTERM or SIGUSR1 while there were videos to score.
        UserError: the checkpoint has other weights or classes; or more than DATA.MAX_BAD_FRACTION
            of the videos could not be evaluated, and the results of the others are written all the
            same.
    """
    path, key = dist.by_main(lambda: weights_to_test(cfg))
    model = build_model(cfg).to(device)
    content = read_checkpoint(path, key=key)
    refuse_other_classes(content, read_class_names(cfg, "test"), path, key=key)
    summary = load_weights(model, path, key=key, content=content)
    if summary.interpolated or summary.notes or summary.unwrapped:
        log.line(f"weights: {summary}")
    if not cfg.TRAIN.ENABLE:
        save_config(cfg, log.warning)
    log.line(f"testing {path} on {len(records['test'])} videos")
    loader = build_loader(cfg, "test", records["test"])
    stop.hold()  # for all processes to break off together, or to end together
    try:
        result = evaluate(
            *(cfg, model, loader, "test"),
            device=device,
            log=log,
            is_to_end=lambda: stop.requested,
        )
    except Interrupted:
        stop.end("the test was not finished and will start again")
    log.line(f"test: {result.summary()}")
    log.stats("test_final", **result.figures())
    if cfg.TEST.VIEWS_TABLE:
        log.line("top-1 by views (clips x crops):\n" + views_table(result.top1_by_views))
    # The others wait: where one process fails, torchrun ends the rest.
    dist.by_main(
        lambda: write_results(cfg, result, records["test"], checkpoint=path, warn=log.warning)
    )
    log.line(f"scores, results and confusion matrix are in {cfg.OUTPUT_DIR}")
    result.refuse_bad(cfg.DATA.MAX_BAD_FRACTION, "test")
    return result


def weights_to_test(cfg: Config) -> tuple[str, str]:
    """Return the checkpoint to test and the key it came from.

    TEST.CHECKPOINT_FILE_PATH, else the last one in OUTPUT_DIR, else TRAIN.CHECKPOINT_FILE_PATH.

    Raises:
        UserError: there is none of these; random weights are not worth a test.
    """
    if cfg.TEST.CHECKPOINT_FILE_PATH:
        return cfg.TEST.CHECKPOINT_FILE_PATH, "TEST.CHECKPOINT_FILE_PATH"
    if last := last_checkpoint(cfg.OUTPUT_DIR):
        return last, "OUTPUT_DIR"
    if cfg.TRAIN.CHECKPOINT_FILE_PATH:
        return cfg.TRAIN.CHECKPOINT_FILE_PATH, "TRAIN.CHECKPOINT_FILE_PATH"
    raise UserError(
        f"TEST.CHECKPOINT_FILE_PATH must name the weights to test: there is no checkpoint in "
        f"OUTPUT_DIR {cfg.OUTPUT_DIR!r}. Try the path of a checkpoint_epoch_*.pyth."
    )


def views_table(top1_by_views: dict[str, float]) -> str:
    """Return the accuracies for growing numbers of views, a line each."""
    return "\n".join(f"  {name:>5}  {top1:7.2%}" for name, top1 in top1_by_views.items())


def result_files(cfg: Config) -> tuple[str, str, str]:
    """Return where a test writes scores, figures and confusion matrix."""
    names = (cfg.TEST.SCORES_FILE, RESULTS_FILE, CONFUSION_FILE)
    scores, results, confusion = (os.path.join(cfg.OUTPUT_DIR, name) for name in names)
    return scores, results, confusion


def write_results(
    cfg: Config,
    result: Evaluation,
    records: Sequence[VideoRecord],
    *,
    checkpoint: str,
    warn: Callable[[str], None],
) -> None:
    """Write the per-video scores (npz), the figures (json) and the confusion matrix (png).

    A file that cannot be written goes to another place; `warn` gets a line that names it.

    The npz holds `paths` and `labels` `[N]`, `scores` `[N, K]` (mean probabilities) and
    `class_names` `[K]` (empty where unknown); no pickled objects.

    Raises:
        UserError: scores or figures cannot be written anywhere.
    """
    by_index = {record.video_index: record.path for record in records}
    names = read_class_names(cfg, "test") or []
    arrays: dict[str, Any] = {
        "paths": np.array([by_index[int(i)] for i in result.video_indices_N], dtype=np.str_),
        "labels": result.labels_N,
        "scores": result.scores_NK,
        "class_names": np.array(names, dtype=np.str_),
    }
    figures = result.figures() | {
        "checkpoint": checkpoint,
        "top1_acc_by_views": {
            name: round(100 * top1, 4) for name, top1 in result.top1_by_views.items()
        },
        "not_evaluated": [{"path": f.path, "reason": f.reason} for f in result.failures],
    }
    text = simplejson.dumps(figures, indent=2, ignore_nan=True) + "\n"
    scores_file, results_file, confusion_file = result_files(cfg)
    try:
        write_or_elsewhere(scores_file, lambda file: np.savez(file, **arrays), warn=warn)
        write_or_elsewhere(results_file, lambda file: file.write(text.encode()), warn=warn)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR: the results could not be written ({error}).") from None
    try:
        save_confusion_png(confusion_file, result.confusion_KK, names)
    except OSError as error:
        warn(f"{confusion_file!r} cannot be written ({error.strerror or error}).")

"""Folders as runs leave them, made up: the log by the log's own writer, the rest by numpy and json.

Shape suffixes: N videos, K classes.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import simplejson
import torch

from hiera_video.checkpoints.run_folder import checkpoint_folder
from hiera_video.config import load_config, to_yaml
from hiera_video.engine.checkpoint import save_checkpoint
from hiera_video.engine.run_log import RunLog
from hiera_video.models.build import build_model

CLASSES = ["grows", "shrinks", "moves_left", "moves_right"]
_LOG_PERIOD, _ITERATIONS = 5, 20


def _log_training(folder, *, epochs, pretraining, wait_share=0.25, seed=0):
    random = np.random.default_rng(seed)
    log = RunLog(str(folder), tensorboard=False)
    log.line("hiera_video 0.1.0, torch 2.13.0, a machine")
    for epoch in range(1, epochs + 1):
        label = f"{epoch}/{epochs}"
        for iteration in range(_LOG_PERIOD, _ITERATIONS + 1, _LOG_PERIOD):
            done = epoch - 1 + iteration / _ITERATIONS
            log.stats(
                "train_iter",
                epoch=label,
                iter=f"{iteration}/{_ITERATIONS}",
                loss=2 / (1 + done) + random.normal(0, 0.05),
                lr=1e-3 * (1 - done / epochs),
                data_wait_share=wait_share,
            )
        log.stats(
            "train_epoch",
            epoch=label,
            loss=2 / (epoch + 0.5),
            lr=1e-3 * (1 - epoch / epochs),
            epoch_sec=60.0,
            clips_per_sec=100.0,
            data_wait_share=wait_share,
            bad_videos=0,
            skipped_steps=0,
            gpu_memory_gib=0.0,
        )
        if not pretraining:
            top1 = 100 * (1 - 0.8**epoch)
            log.stats("val_epoch", epoch=label, top1_acc=top1, top5_acc=min(2 * top1, 100.0))
    log.close()


def _write_test(folder, *, names, paths, labels_N, scores_NK, not_evaluated=(), by_views=None):
    top1 = 100 * float((scores_NK.argmax(1) == labels_N).mean())
    by_views = by_views or {"1x1": top1 - 3, "2x1": top1 - 1, "1x3": top1 - 2, "2x3": top1}
    figures = {
        "top1_acc": top1,
        "top5_acc": 100.0,
        "mean_class_acc": top1,
        "views": list(by_views)[-1],
        "num_videos": len(labels_N) + len(not_evaluated),
        "num_evaluated": len(labels_N),
        "top1_acc_by_views": by_views,
        "not_evaluated": [{"path": path, "reason": reason} for path, reason in not_evaluated],
    }
    (folder / "test_results.json").write_text(simplejson.dumps(figures))
    np.savez(
        folder / "test_scores.npz",
        paths=np.array(paths, dtype=np.str_),
        labels=labels_N,
        scores=scores_NK,
        class_names=np.array(names, dtype=np.str_),
    )


def _scores(labels_N, num_classes, *, right=0.7, seed=0):
    """Probabilities `[N, K]` whose largest is the label's for about `right` of the videos."""
    random = np.random.default_rng(seed)
    scores_NK = random.dirichlet(np.ones(num_classes), len(labels_N)).astype(np.float32) / 2
    taken_N = np.where(random.random(len(labels_N)) < right, labels_N, (labels_N + 1) % num_classes)
    scores_NK[np.arange(len(labels_N)), taken_N] += random.uniform(0.5, 0.9, len(labels_N))
    return scores_NK / scores_NK.sum(1, keepdims=True)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory, tiny_set):
    """Make the folder of a run; `pretraining` ones have a checkpoint, the others a test.

    `paths` are the tested videos, some of the tiny set if not given; `names` the classes.
    """

    def make(name, *, pretraining=False, epochs=4, right=0.7, names=CLASSES, paths=None, **test):
        folder = tmp_path_factory.mktemp("runs") / name
        os.makedirs(checkpoint_folder(str(folder)))
        recipe = "HIERA_MICRO_MAE_PT" if pretraining else "HIERA_MICRO"
        words = f"OUTPUT_DIR {folder} DATA.PATH_TO_DATA_DIR {tiny_set} SOLVER.MAX_EPOCH {epochs}"
        words += "" if pretraining else f" MODEL.NUM_CLASSES {len(names)}"
        cfg = load_config(f"configs/Demo/{recipe}.yaml", words.split())
        (folder / "config.yaml").write_text(to_yaml(cfg))
        _log_training(folder, epochs=epochs, pretraining=pretraining)
        if pretraining:
            torch.manual_seed(0)
            model = build_model(cfg)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            save_checkpoint(
                str(folder),
                epoch=epochs,
                model=model,
                optimizer=optimizer,
                config_yaml=to_yaml(cfg),
                class_names=None,
            )
            return folder
        if paths is None:
            paths = sorted(map(str, Path(tiny_set).rglob("*.mp4")))
        labels_N = np.arange(len(paths)) % len(names)
        scores_NK = _scores(labels_N, len(names), right=right)
        _write_test(
            folder, names=names, paths=paths, labels_N=labels_N, scores_NK=scores_NK, **test
        )
        return folder

    return make

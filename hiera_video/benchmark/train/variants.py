"""Time variants of a training step in turns; a variant that cannot run is noted and skipped."""

import contextlib
import copy
import gc
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from hiera_video.benchmark.timing import matmul_run, peak_bytes, published_model, state_bytes
from hiera_video.benchmark.train.figures import (
    PLAIN,
    PUBLISHED,
    Figures,
    TrainSettings,
)
from hiera_video.benchmark.train.step import BACKWARD, Feed, FromLoader, Stepper
from hiera_video.data.loader import Batch
from hiera_video.engine.compiling import METHODS, compile_for_training, refuse_missing_compiler
from hiera_video.engine.parallel.data_parallel import data_parallel
from hiera_video.engine.tasks import build_task
from hiera_video.solver.build import build_lr_schedule, build_optimizer
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError

# Steps that are not counted; in them a GPU's libraries choose their kernels.
_WARM_UPS = {"cpu": 1, "cuda": 3}


class Bench:
    """Holds the variants that can run, and their figures."""

    def __init__(
        self,
        settings: TrainSettings,
        device: torch.device,
        original: nn.Module,
        feed: Feed,
        *,
        num_clips: int,
    ) -> None:
        self.settings, self.device, self.original, self.feed = settings, device, original, feed
        self.figures: dict[str, Figures] = {name: Figures() for name in settings.variants}
        self._steppers: dict[str, Stepper] = {}
        self._num_clips = num_clips
        # Skip what the loader has read ahead during other turns: training does not have it.
        ahead = 2 * settings.cfg.DATA_LOADER.NUM_WORKERS
        self._uncounted = ahead if isinstance(feed, FromLoader) else 0

    def add(self, name: str, folder: str) -> None:
        """Build a variant and make its first steps, caching compiled code in `folder`."""
        with self._noting(name), _compiling_into(os.path.join(folder, name)):
            stepper = self._stepper(name)
            figures = self.figures[name]
            torch.manual_seed(1)
            start = time.perf_counter()
            _, figures.first_loss = stepper.step(self.feed)
            figures.first_sec = time.perf_counter() - start
            for _ in range(_WARM_UPS[self.device.type] - 1):
                stepper.step(self.feed)
            self._steppers[name] = stepper

    def take_turns(self) -> tuple[float, float]:
        """Run all rounds; return the median seconds of matrix products, and their operations."""
        dtype = torch.bfloat16 if self.settings.cfg.TRAIN.MIXED_PRECISION else torch.float32
        product, operations = matmul_run(device=self.device, dtype=dtype)
        product()
        product_sec = []
        for _ in range(self.settings.rounds):
            start = time.perf_counter()
            product()
            product_sec.append(time.perf_counter() - start)
            for name in list(self._steppers):
                with self._noting(name):
                    self._turn(self._steppers[name], self.figures[name])
                self.tidy()
        return statistics.median(product_sec), operations

    def weigh(self) -> None:
        """Measure the memory of one more step of each variant."""
        for name in list(self._steppers):
            with self._noting(name):
                self.figures[name].peak_bytes = self._peak(self._steppers[name])
            self.tidy()

    def _peak(self, stepper: Stepper) -> int:
        kept = state_bytes(stepper.model, stepper.optimizer) + self.feed.held_bytes
        if stepper.wrapped is not stepper.model:
            kept += sum(weight.nbytes for weight in stepper.model.parameters())  # DDP's buckets
        return kept + peak_bytes(lambda: stepper.step(self.feed), self.device)

    def plain_losses(self, batch: Batch) -> dict[str, float]:
        """Return the losses of the models before any step, without dropout and dropped paths."""
        losses = {}
        few = batch.split(2)[0].to(self.device)
        for name in (PLAIN, PUBLISHED):
            if name in self.settings.variants:
                with self._noting(name), torch.no_grad():
                    model = self._model(name).to(self.device)
                    for module in model.modules():
                        if "Drop" in type(module).__name__:
                            module.eval()
                    task = build_task(self.settings.cfg, model)
                    losses[name] = task.step(few, epoch=0, iteration=0).item()
        return losses

    def _turn(self, stepper: Stepper, figures: Figures) -> None:
        for _ in range(self._uncounted):
            stepper.step(self.feed)
        taken, alone = [], []
        for _ in range(self.settings.steps):
            taken.append(self._synchronised_step(stepper, sync=True))
            if self.settings.processes > 1:
                alone.append(self._synchronised_step(stepper, sync=False))
        figures.phases.append(_mean(taken))
        if alone:
            # Steps with and without synchronisation differ only in backward.
            figures.communication.append(_mean(taken)[BACKWARD] - _mean(alone)[BACKWARD])

    def _synchronised_step(self, stepper: Stepper, *, sync: bool) -> dict[str, float]:
        dist.agree(False)  # start together: waiting for another process would look like sending
        return stepper.step(self.feed, sync=sync)[0]

    def _model(self, name: str) -> Any:
        if name != PUBLISHED:
            return copy.deepcopy(self.original).train()
        model_cfg = self.settings.cfg.MODEL
        theirs: Any = published_model(
            model_cfg.MODEL_NAME,
            num_classes=model_cfg.NUM_CLASSES,
            head_dropout=model_cfg.DROPOUT_RATE,
            drop_path_rate=model_cfg.DROP_PATH_RATE,
        )
        theirs.load_state_dict(self.original.state_dict())
        # Its parameters have the same names, but it lacks the layer index the optimizer needs.
        ours: Any = self.original
        theirs.layer_index, theirs.num_layers = ours.layer_index, ours.num_layers
        return theirs.train()

    def _stepper(self, name: str) -> Stepper:
        cfg = self.settings.cfg
        model = self._model(name).to(self.device)
        if name == "checkpoint":
            model.act_checkpoint = True
        if name in METHODS:
            refuse_missing_compiler(name, self.device.type)
            compile_for_training(model, name)
        wrapped = model
        if self.settings.processes > 1:
            wrapped = data_parallel(model, self.device)
        return Stepper(
            model=model,
            wrapped=wrapped,
            task=build_task(cfg, model, wrapped),
            optimizer=build_optimizer(cfg, model),
            device=self.device,
            bfloat16=cfg.TRAIN.MIXED_PRECISION,
            lr=build_lr_schedule(cfg)(cfg.SOLVER.WARMUP_EPOCHS),
            clip_norm=cfg.SOLVER.CLIP_GRAD_L2NORM or float("inf"),
        )

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note and skip a variant that runs out of GPU memory or cannot run on this machine."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            if self.settings.processes > 1:
                raise  # the other processes would wait for this one
            self.figures[name].note = f"out of GPU memory with {self._num_clips} clips"
        except UserError as error:
            self.figures[name].note = str(error)

    def tidy(self) -> None:
        """Free the memory of variants that could not run."""
        for name, figures in self.figures.items():
            if figures.note:
                self._steppers.pop(name, None)
        gc.collect()
        if self.device.type == "cuda" and any(one.note for one in self.figures.values()):
            torch.cuda.empty_cache()


def _mean(taken: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(one[name] for one in taken) for name in taken[0]}


@contextlib.contextmanager
def _compiling_into(folder: str) -> Iterator[None]:
    """Give the compiler an empty cache, so that its full time is measured."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before

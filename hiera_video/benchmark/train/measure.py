"""Measure fine-tuning steps of several variants in turns, in one or several processes."""

import contextlib
import copy
import tempfile
from collections.abc import Sequence

import torch

from hiera_video.benchmark.timing import forward_operations
from hiera_video.benchmark.train.figures import TrainReport, TrainSettings
from hiera_video.benchmark.train.step import Feed, FromLoader, InMemory
from hiera_video.benchmark.train.variants import Bench
from hiera_video.config import Config, load_config, views_per_video
from hiera_video.data.build import build_loader, read_records
from hiera_video.data.loader import Batch
from hiera_video.engine.parallel.processes import process_group, run_processes
from hiera_video.models.build import build_model
from hiera_video.models.parts.scores import pick_device
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError
from hiera_video.utils.machine import usable_cores


def training_config(
    path: str,
    overrides: Sequence[str],
    *,
    batch_size: int,
    device: str,
    bfloat16: bool,
    processes: int,
) -> Config:
    """Load a config file and set it to `batch_size` clips per process and step.

    Raises:
        UserError: the file or an override is wrong, or no batch can have that many clips.
    """
    num_views = views_per_video(load_config(path, overrides))
    if batch_size % num_views:
        raise UserError(
            f"--batch-size must be divisible by the {num_views} views of a video "
            f"(AUG.NUM_SAMPLE), got {batch_size}. Try {batch_size + -batch_size % num_views}."
        )
    words = {
        "TRAIN.BATCH_SIZE": batch_size // num_views * processes,
        "TRAIN.MIXED_PRECISION": bfloat16,
        "NUM_GPUS": processes if device == "cuda" else 0,
    }
    given = [str(word) for item in words.items() for word in item]
    cfg = load_config(path, [*overrides, *given])
    if cfg.TASK != "classify":
        raise UserError(f"TASK must be classify here, got {cfg.TASK!r}. Try benchmark.py mae.")
    return cfg


def measure_training(settings: TrainSettings) -> TrainReport:
    """Measure the variants in `settings.processes` processes.

    Raises:
        UserError: there is no such device, or data or model cannot be loaded.
    """
    pick_device(settings.device, key="--device")
    if settings.processes == 1:
        return _measure(settings)
    if settings.cfg.DATA.PATH_TO_DATA_DIR:
        read_records(settings.cfg, "train")  # report a wrong list once, not in every process
    report = run_processes(_in_group, settings, num_processes=settings.processes)
    assert report is not None
    return report


def _in_group(settings: TrainSettings) -> TrainReport:
    with process_group(cpu_only=settings.device == "cpu", timeout_sec=300.0):
        return _measure(settings)


def _measure(settings: TrainSettings) -> TrainReport:
    if settings.device == "cuda" and dist.local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"--processes must be at most the {torch.cuda.device_count()} CUDA devices, got "
            f"{settings.processes}."
        )
    if settings.threads or settings.processes > 1:
        torch.set_num_threads(settings.threads or max(usable_cores() // settings.processes, 1))
    cfg, device = settings.cfg, torch.device(settings.device, dist.local_rank())
    if settings.device == "cpu":
        device = torch.device("cpu")
    torch.manual_seed(0)
    original = build_model(cfg)
    with contextlib.ExitStack() as stack:
        feed = _feed(cfg, device, stack)
        sample = feed.next()
        bench = Bench(settings, device, original, feed, num_clips=len(sample))
        clip_1CTHW = torch.empty(1, *_clip_shape(cfg), device="meta")
        operations = 3.0 * forward_operations(copy.deepcopy(original), clip_1CTHW)
        losses = bench.plain_losses(sample)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hiera_video_compiled_"))
        for name in settings.variants:
            bench.add(name, folder)
            bench.tidy()
        matmul_sec, matmul_operations = bench.take_turns()
        bench.weigh()
    return TrainReport(
        figures=bench.figures,
        num_clips=len(sample),
        processes=settings.processes,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        bfloat16=cfg.TRAIN.MIXED_PRECISION,
        from_loader=isinstance(feed, FromLoader),
        operations=operations,
        matmul_rate=matmul_operations / matmul_sec,
        plain_losses=losses,
    )


def _feed(cfg: Config, device: torch.device, stack: contextlib.ExitStack) -> Feed:
    """Return the config's loader, which `stack` closes, or noise if it names no data."""
    if cfg.DATA.PATH_TO_DATA_DIR:
        loader = build_loader(cfg, "train", read_records(cfg, "train"))
        stack.callback(loader.close)
        return FromLoader(loader)
    num_videos = cfg.TRAIN.BATCH_SIZE // dist.local_world_size()
    num_views = views_per_video(cfg)
    generator = torch.Generator().manual_seed(dist.rank())
    clips_BCTHW = torch.randn(num_videos * num_views, *_clip_shape(cfg), generator=generator)
    videos_B = torch.arange(num_videos).repeat_interleave(num_views)
    labels_B = videos_B % cfg.MODEL.NUM_CLASSES
    return InMemory(Batch(clips_BCTHW, labels_B, videos_B, (), num_videos).to(device))


def _clip_shape(cfg: Config) -> tuple[int, int, int, int]:
    size = cfg.DATA.TRAIN_CROP_SIZE
    return 3, cfg.DATA.NUM_FRAMES, size, size

"""Build the records of a split and the loader that reads them, from the config."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hiera_video.config import Config, views_per_video
from hiera_video.data import datasets, sampling
from hiera_video.data.dataset import TestViews, TrainViews, VideoDataset, ViewMaker
from hiera_video.data.decoders import Decoding, check_backend
from hiera_video.data.frame_cache import FrameCache, open_frame_cache
from hiera_video.data.loader import BatchLoader
from hiera_video.data.order import EpochBatchSampler
from hiera_video.data.records import RecordTable, VideoRecord
from hiera_video.data.sampling import ClipSpec
from hiera_video.data.shards.members import remote_shard_numbers
from hiera_video.data.transforms.mixup import Mixup
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.data.transforms.randaugment import parse_policy
from hiera_video.utils import dist
from hiera_video.utils.errors import UserError
from hiera_video.utils.lookup import find_function, find_module
from hiera_video.utils.machine import free_memory


def check_data_settings(cfg: Config) -> None:
    """Check the decoder, the RandAugment policy and the memory for frames, which fail only later.

    Raises:
        UserError: the backend cannot be imported, AUG.AA_TYPE is not a policy, or DATA_LOADER.CACHE
            is larger than the free memory.
    """
    check_backend(cfg.DATA.DECODING_BACKEND)
    free = free_memory()
    if cfg.TRAIN.ENABLE and free is not None and _cache_bytes(cfg) > free:
        raise UserError(
            f"DATA_LOADER.CACHE must be at most the free memory, {free / 2**30:.1f} GiB, got "
            f"{cfg.DATA_LOADER.CACHE:g}. Try less: videos that do not fit are decoded each time."
        )
    if cfg.AUG.ENABLE and cfg.AUG.AA_TYPE:
        parse_policy(cfg.AUG.AA_TYPE)


def decoding(cfg: Config) -> Decoding:
    """Return the decoding settings of a config."""
    return Decoding(cfg.DATA.DECODING_BACKEND, cfg.DATA.SQUARE_PIXELS)


def clip_spec(cfg: Config) -> ClipSpec:
    """Return the clip settings of a config, which training and tests share."""
    data = cfg.DATA
    return ClipSpec(data.NUM_FRAMES, data.SAMPLING_RATE, data.TARGET_FPS, data.SAMPLING)


def read_records(cfg: Config, split: str) -> Sequence[VideoRecord]:
    """Read the index of a split ("train", "val" or "test") of the configured dataset.

    Raises:
        UserError: a file is missing or wrong; the message names it and says what it must hold.
    """
    read_index = _dataset_function(cfg, split, "read_index")
    records = read_index(
        cfg.DATA.PATH_TO_DATA_DIR,
        split,
        path_prefix=cfg.DATA.PATH_PREFIX,
        num_classes=cfg.MODEL.NUM_CLASSES,
        labelled=cfg.TASK == "classify",
        **split_number(read_index, cfg.DATA.SPLIT_NUMBER),
    )
    return RecordTable(records)


def split_number(read_index: Callable[..., Any], number: int) -> dict[str, int]:
    """Return DATA.SPLIT_NUMBER as a keyword argument for `read_index`, if it accepts one.

    Raises:
        UserError: the data set has only one split, and `number` is not 1.
    """
    if "split_number" in inspect.signature(read_index).parameters:
        return {"split_number": number}
    if number != 1:
        name = read_index.__module__.rpartition(".")[2]
        raise UserError(
            f"DATA.SPLIT_NUMBER must be 1 for {name}, which has one split, got {number}."
        )
    return {}


def read_class_names(cfg: Config, split: str) -> list[str] | None:
    """Return the class names of the split's data set; None if it has none or TASK is ssl.

    Raises:
        UserError: the number of names is not MODEL.NUM_CLASSES.
    """
    if cfg.TASK == "ssl":
        return None
    names = _dataset_function(cfg, split, "class_names")(cfg.DATA.PATH_TO_DATA_DIR)
    if names is not None and len(names) != cfg.MODEL.NUM_CLASSES:
        raise UserError(
            f"MODEL.NUM_CLASSES must be the {len(names)} classes that the data set in "
            f"{cfg.DATA.PATH_TO_DATA_DIR!r} names, got {cfg.MODEL.NUM_CLASSES}. Try "
            f"MODEL.NUM_CLASSES {len(names)}, or mend the list of names."
        )
    return names


def _dataset_function(cfg: Config, split: str, name: str) -> Callable[..., Any]:
    section, key = (cfg.TEST, "TEST") if split == "test" else (cfg.TRAIN, "TRAIN")
    module = find_module(datasets.__name__, section.DATASET, key=f"{key}.DATASET")
    return find_function(module, name, key=f"{key}.DATASET")


def build_frame_cache(cfg: Config, num_videos: int) -> FrameCache | None:
    """Return the memory for the decoded frames of `num_videos` videos, None if it is off.

    All processes must call it.
    """
    num_bytes = _cache_bytes(cfg)
    return open_frame_cache(num_videos, num_bytes) if num_bytes else None


def _cache_bytes(cfg: Config) -> int:
    return int(cfg.DATA_LOADER.CACHE * 2**30)


def build_loader(
    cfg: Config,
    split: str,
    records: Sequence[VideoRecord],
    *,
    cache: FrameCache | None = None,
    first_in_cache: int = 0,
) -> BatchLoader:
    """Build the loader that yields the batches of a split.

    "train" yields random views, "val" one centre view of each video, "test" all views. With several
    processes, the loader reads only the part of this process. `cache` keeps decoded videos; its
    number `first_in_cache` is the first of `records`.
    """
    train = split == "train"
    num_clips, num_crops = num_views(cfg, split)
    views = _train_views(cfg) if train else _test_views(cfg, num_clips, num_crops)
    dataset = VideoDataset(
        records,
        make_views=views,
        backend=decoding(cfg),
        seed=cfg.RNG_SEED,
        replace_bad=train,
        finish=not cfg.DATA_LOADER.NORMALIZE_ON_DEVICE,
        cache=cache,
        first_in_cache=first_in_cache,
    )
    # TEST.BATCH_SIZE counts views, but the loader batches complete videos.
    videos = global_batch(cfg) if train else max(cfg.TEST.BATCH_SIZE // (num_clips * num_crops), 1)
    sampler = EpochBatchSampler(
        len(records),
        batch_size=videos,
        rank=dist.rank(),
        world_size=dist.world_size(),
        shuffle=train,
        seed=cfg.RNG_SEED,
        shard_of_video_N=remote_shard_numbers(record.path for record in records) if train else None,
    )
    return BatchLoader(
        dataset,
        sampler,
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY and cfg.NUM_GPUS > 0,
        # Only the training loader is iterated more than once.
        keep_workers=train,
        deadline_sec=cfg.DATA_LOADER.TIMEOUT_SEC,
    )


def global_batch(cfg: Config) -> int:
    """Return the number of videos that all processes together read for one training iteration.

    TRAIN.BATCH_SIZE counts the videos of one machine, independent of its number of processes.
    """
    return cfg.TRAIN.BATCH_SIZE * dist.num_machines()


def num_views(cfg: Config, split: str) -> tuple[int, int]:
    """Return (temporal clips, spatial crops) per video of an evaluation split."""
    if split == "test":
        return cfg.TEST.NUM_TEMPORAL_CLIPS, cfg.TEST.NUM_SPATIAL_CROPS
    return 1, 1


def build_mixup(cfg: Config) -> Mixup | None:
    """Return the batch augmentation, or None if it is off."""
    if not cfg.MIXUP.ENABLE:
        return None
    return Mixup(
        mixup_alpha=cfg.MIXUP.ALPHA,
        cutmix_alpha=cfg.MIXUP.CUTMIX_ALPHA,
        prob=cfg.MIXUP.PROB,
        switch_prob=cfg.MIXUP.SWITCH_PROB,
        # Label smoothing is linear, so the loss applies it, to mixed and plain labels alike.
        label_smoothing=0.0,
        num_classes=cfg.MODEL.NUM_CLASSES,
    )


def _train_views(cfg: Config) -> ViewMaker:
    data, aug = cfg.DATA, cfg.AUG
    transform = TrainTransform(
        crop_size=data.TRAIN_CROP_SIZE,
        scale=(data.TRAIN_JITTER_SCALES_RELATIVE[0], data.TRAIN_JITTER_SCALES_RELATIVE[1]),
        aspect=(data.TRAIN_JITTER_ASPECT_RELATIVE[0], data.TRAIN_JITTER_ASPECT_RELATIVE[1]),
        flip=data.RANDOM_FLIP,
        policy=parse_policy(aug.AA_TYPE) if aug.ENABLE and aug.AA_TYPE else None,
        erase_probability=aug.RE_PROB if aug.ENABLE else 0.0,
        erase_mode=aug.RE_MODE,
        mean=data.MEAN,
        std=data.STD,
    )
    return TrainViews(
        sample_frames=partial(sampling.training_indices, clip_spec(cfg)),
        transform=transform,
        num_views=views_per_video(cfg),
    )


def _test_views(cfg: Config, num_clips: int, num_crops: int) -> ViewMaker:
    data = cfg.DATA
    return TestViews(
        sample_frames=partial(sampling.testing_indices, clip_spec(cfg), num_clips=num_clips),
        transform=TestTransform(
            crop_size=data.TEST_CROP_SIZE, num_crops=num_crops, mean=data.MEAN, std=data.STD
        ),
    )

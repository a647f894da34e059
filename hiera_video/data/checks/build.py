"""From a config to what a check needs: the list of a split, and how its videos are decoded."""

from hiera_video.config import Config
from hiera_video.data import datasets
from hiera_video.data.build import clip_spec, read_class_names, read_records, split_number
from hiera_video.data.checks.clean_list import SplitList
from hiera_video.data.checks.scan import ScanSettings
from hiera_video.data.decoders import check_backend
from hiera_video.utils.lookup import find_module


def read_split(cfg: Config, name: str, *, guess_classes: bool) -> SplitList:
    """Read the list of a split and the names of its classes.

    With `guess_classes` the list says how many classes there are, not MODEL.NUM_CLASSES.
    """
    dataset = (cfg.TEST if name == "test" else cfg.TRAIN).DATASET
    num_classes: int | None
    if not guess_classes:
        records, names = read_records(cfg, name), read_class_names(cfg, name)
        num_classes = cfg.MODEL.NUM_CLASSES
    else:
        module = find_module(datasets.__name__, dataset, key="DATASET")
        labelled = cfg.TASK == "classify"
        names = module.class_names(cfg.DATA.PATH_TO_DATA_DIR) if labelled else None
        num_classes = len(names) if names else None
        records = module.read_index(
            cfg.DATA.PATH_TO_DATA_DIR,
            name,
            path_prefix=cfg.DATA.PATH_PREFIX,
            num_classes=num_classes,
            labelled=labelled,
            **split_number(module.read_index, cfg.DATA.SPLIT_NUMBER),
        )
        num_classes = num_classes or max(record.label for record in records) + 1
    return SplitList(name, dataset, cfg.DATA.PATH_TO_DATA_DIR, records, num_classes, names)


def scan_settings(cfg: Config, *, full: bool) -> ScanSettings:
    """Return how a scan decodes each video; raises UserError if the backend does not work."""
    check_backend(cfg.DATA.DECODING_BACKEND)
    return ScanSettings(
        backend=cfg.DATA.DECODING_BACKEND,
        full=full,
        clip=clip_spec(cfg),
        square_pixels=cfg.DATA.SQUARE_PIXELS,
    )

"""The public keys: one frozen dataclass per YAML section, each key with its meaning and its rule.

The larger sections are in `schema_data.py` and `schema_model.py`.
A default applies if no YAML file sets the key. Recipes are in configs/, not here.
Lists in YAML are tuples here, so that a loaded config cannot be changed at any depth.
Names are PySlowFast's if it has the key. Sources: [P] Ryali et al., "Hiera", ICML 2023;
[ST] Feichtenhofer et al., "Masked Autoencoders As Spatiotemporal Learners", NeurIPS 2022.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Annotated, get_args, get_origin, get_type_hints

from hiera_video.config.rules import Key, KeySpec
from hiera_video.config.schema_data import AugSection, DataLoaderSection, DataSection, MixupSection
from hiera_video.config.schema_model import MaskSection, ModelSection, SolverSection


@dataclass(frozen=True)
class TrainSection:
    """Training: the dataset, the batch size, validation, checkpoints and precision."""

    ENABLE: Annotated[bool, Key("Train the model.")] = True
    DATASET: Annotated[
        str, Key("Reader of the training and validation lists.", modules_of="data/datasets")
    ] = "kinetics"
    BATCH_SIZE: Annotated[
        int,
        Key(
            "Videos in one forward pass, over all local GPUs.",
            unit="videos",
            minimum=1,
            maximum=10**6,
        ),
    ] = 8
    EVAL_PERIOD: Annotated[
        int, Key("Validate every this many epochs.", unit="epochs", minimum=1, maximum=10**9)
    ] = 1
    CHECKPOINT_PERIOD: Annotated[
        int,
        Key("Save a checkpoint every this many epochs.", unit="epochs", minimum=1, maximum=10**9),
    ] = 1
    CHECKPOINT_ITERS: Annotated[
        int,
        Key(
            "Save a checkpoint every this many iterations and after every epoch; 0: only every "
            "CHECKPOINT_PERIOD epochs. Of those saved within an epoch, the two newest are kept.",
            unit="iterations",
            minimum=0,
            maximum=10**9,
        ),
    ] = 0
    KEEP_CHECKPOINTS: Annotated[
        int,
        Key("Number of newest end-of-epoch checkpoints to keep; 0: all.", minimum=0, maximum=10**9),
    ] = 0
    CHECKPOINT_FILE_PATH: Annotated[
        str, Key("Weights to start from, a path or URL; empty: random weights.", is_path=True)
    ] = ""
    AUTO_RESUME: Annotated[
        bool, Key("Resume from the last checkpoint in OUTPUT_DIR if there is one.")
    ] = True
    EMA_DECAY: Annotated[
        float,
        Key(
            "Decay of an exponential moving average of the weights. If it is used, the average is "
            "validated and tested; 0: none.",
            minimum=0,
            below=1,
        ),
    ] = 0.0
    MAX_BAD_STEPS: Annotated[
        int,
        Key(
            "Stop after this many steps in a row whose loss or gradient is not finite; each is "
            "skipped.",
            unit="steps",
            minimum=1,
            maximum=10**9,
        ),
    ] = 5
    MIXED_PRECISION: Annotated[
        bool, Key("Compute in bfloat16 where it is safe; weights stay in float32.")
    ] = False


@dataclass(frozen=True)
class TestSection:
    """The multi-view test: the weights, the views of each video, and the results to write."""

    __test__ = False  # keeps pytest from collecting a class whose name begins with Test

    ENABLE: Annotated[bool, Key("Test the model, after training if TRAIN.ENABLE.")] = True
    DATASET: Annotated[str, Key("Reader of the test list.", modules_of="data/datasets")] = (
        "kinetics"
    )
    BATCH_SIZE: Annotated[
        int, Key("Views in one forward pass.", unit="views", minimum=1, maximum=10**6)
    ] = 8
    CHECKPOINT_FILE_PATH: Annotated[
        str, Key("Weights to test, a path or URL; empty: those training ended with.", is_path=True)
    ] = ""
    NUM_TEMPORAL_CLIPS: Annotated[
        int,
        Key(
            "Clips along each video.",
            unit="clips",
            minimum=1,
            maximum=1000,
            source="[P] Table 4: 5 for Kinetics; Table 6: 1 or 2 for SSv2",
        ),
    ] = 5
    NUM_SPATIAL_CROPS: Annotated[
        int,
        Key(
            "Crops of each clip: 1 in the centre, or 3 along the longer side.",
            unit="crops",
            choices=(1, 3),
            source="[P] Tables 4 and 6: 3",
        ),
    ] = 3
    VIEWS_TABLE: Annotated[
        bool, Key("Also print the accuracy for an increasing number of views.")
    ] = False
    SCORES_FILE: Annotated[
        str, Key("File in OUTPUT_DIR for the scores of each video.", ending=".npz")
    ] = "test_scores.npz"


@dataclass(frozen=True)
class TensorboardSection:
    """TensorBoard."""

    ENABLE: Annotated[bool, Key("Write scalars for TensorBoard to OUTPUT_DIR.")] = True


@dataclass(frozen=True)
class DistSection:
    """Several processes, on one machine or many."""

    STRATEGY: Annotated[
        str,
        Key(
            "Parallelism: with ddp each process holds the whole model; fsdp shards weights, "
            "gradients and optimizer state across processes, for models that are too large.",
            choices=("ddp", "fsdp"),
        ),
    ] = "ddp"
    TIMEOUT_SEC: Annotated[
        float,
        Key(
            "Longest time that processes wait for one another: at the start, in a step, and for a "
            "checkpoint to be written.",
            unit="seconds",
            above=0.0,
            maximum=10**7,
        ),
    ] = 600.0
    WATCHDOG_SEC: Annotated[
        float,
        Key(
            "Report which processes are late if an iteration takes longer than this and five times "
            "the usual time; 0: never.",
            unit="seconds",
            minimum=0.0,
            maximum=10**7,
        ),
    ] = 60.0


@dataclass(frozen=True)
class Config:
    """The whole configuration; immutable at every depth."""

    TASK: Annotated[
        str,
        Key(
            "What the model learns: labels, or hidden pixels without labels (ssl: self-supervised, "
            "a masked autoencoder).",
            choices=("classify", "ssl"),
        ),
    ] = "classify"
    NUM_GPUS: Annotated[
        int, Key("GPUs used on a machine; 0: the CPU.", minimum=0, maximum=1024)
    ] = 1
    OUTPUT_DIR: Annotated[
        str,
        Key(
            "Folder for checkpoints, logs, scores and the resolved config.",
            nonempty=True,
            is_path=True,
        ),
    ] = "output"
    RNG_SEED: Annotated[int, Key("Seed of all random numbers.", minimum=0, maximum=2**32 - 1)] = 0
    LOG_PERIOD: Annotated[
        int, Key("Log every this many iterations.", unit="iterations", minimum=1, maximum=10**9)
    ] = 10
    TRAIN: TrainSection = field(default_factory=TrainSection)
    TEST: TestSection = field(default_factory=TestSection)
    DATA: DataSection = field(default_factory=DataSection)
    DATA_LOADER: DataLoaderSection = field(default_factory=DataLoaderSection)
    MODEL: ModelSection = field(default_factory=ModelSection)
    MASK: MaskSection = field(default_factory=MaskSection)
    AUG: AugSection = field(default_factory=AugSection)
    MIXUP: MixupSection = field(default_factory=MixupSection)
    SOLVER: SolverSection = field(default_factory=SolverSection)
    DIST: DistSection = field(default_factory=DistSection)
    TENSORBOARD: TensorboardSection = field(default_factory=TensorboardSection)


@cache
def sections() -> Mapping[str, type]:
    """Return the dataclass of each YAML section by name, in the order of the config."""
    hints = get_type_hints(Config)
    return MappingProxyType(
        {name: hint for name, hint in hints.items() if hasattr(hint, "__dataclass_fields__")}
    )


@cache
def key_specs() -> Mapping[str, KeySpec]:
    """Return every public key by its dotted name, in the order of the config."""
    specs = {spec.name: spec for spec in _specs_of(Config, prefix="")}
    for name, section in sections().items():
        specs.update((spec.name, spec) for spec in _specs_of(section, prefix=f"{name}."))
    return MappingProxyType(specs)


def _specs_of(section: type, *, prefix: str) -> list[KeySpec]:
    specs = []
    hints = get_type_hints(section, include_extras=True)
    for item in dataclasses.fields(section):
        if get_origin(hints[item.name]) is not Annotated:
            continue
        kind, key = get_args(hints[item.name])
        kind = get_origin(kind) or kind
        specs.append(KeySpec(prefix + item.name, kind, item.default, key))
    return specs

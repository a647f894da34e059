"""Keys of the sections that make and teach the model: MODEL, SOLVER.

The sources are those of `schema.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key

Floats = tuple[float, ...]


@dataclass(frozen=True)
class ModelSection:
    """Which model is built."""

    ARCH: Annotated[str, Key("File of the model family.", modules_of="models")] = "hiera"
    MODEL_NAME: Annotated[str, Key("Function in that file that builds it.", nonempty=True)] = (
        "hiera_base_16x224"
    )
    NUM_CLASSES: Annotated[int, Key("Number of labels.", unit="classes", minimum=1)] = 400
    DROPOUT_RATE: Annotated[
        float, Key("Share of features zeroed before the last layer.", minimum=0, below=1)
    ] = 0.0
    DROP_PATH_RATE: Annotated[
        float,
        Key("Chance that training skips the last block; rises from 0.", minimum=0, below=1),
    ] = 0.0


@dataclass(frozen=True)
class SolverSection:
    """Optimizer, schedule and loss."""

    OPTIMIZING_METHOD: Annotated[str, Key("Which optimizer.", choices=("adamw", "sgd"))] = "adamw"
    BASE_LR: Annotated[
        float,
        Key(
            "Highest learning rate at BASE_BATCH_SIZE videos per step; scaled in proportion.",
            above=0,
            source="[P] Table 11: 8e-4 at 256",
        ),
    ] = 8e-4
    BASE_BATCH_SIZE: Annotated[
        int,
        Key("Videos per step that BASE_LR is meant for; 0: BASE_LR as it is.", minimum=0),
    ] = 256
    COSINE_END_LR: Annotated[
        float, Key("Learning rate at the end; scaled as BASE_LR.", minimum=0)
    ] = 0.0
    WARMUP_EPOCHS: Annotated[
        float, Key("Linear rise of the learning rate.", unit="epochs", minimum=0)
    ] = 0.0
    WARMUP_START_LR: Annotated[
        float, Key("Learning rate at the first step of it; scaled as BASE_LR.", minimum=0)
    ] = 0.0
    MAX_EPOCH: Annotated[
        int, Key("Length of training: passes over the videos.", unit="epochs", minimum=1)
    ] = 100
    WEIGHT_DECAY: Annotated[
        float,
        Key(
            "Weight decay of matrices; vectors and positions have none.",
            minimum=0,
            source="[P] Table 11: 0.05; Table 12: 1e-4",
        ),
    ] = 0.05
    BETAS: Annotated[
        Floats,
        Key(
            "AdamW's averaging of the gradient and of its square.",
            length=2,
            minimum=0,
            below=1,
            source="[P] Table 11",
        ),
    ] = (0.9, 0.999)
    MOMENTUM: Annotated[
        float, Key("SGD's (Nesterov) averaging of the gradient.", minimum=0, below=1)
    ] = 0.9
    LAYER_DECAY: Annotated[
        float,
        Key(
            "Each block learns at this factor of the rate of the block above it; 1: all alike.",
            above=0,
            maximum=1,
            source="[P] Tables 11, 12",
        ),
    ] = 1.0
    CLIP_GRAD_L2NORM: Annotated[
        float,
        Key("Largest norm of the gradient; 0: no limit.", minimum=0, source="[P] Table 11: 5.0"),
    ] = 0.0
    ACCUM_STEPS: Annotated[
        int,
        Key(
            "Forward passes per step of the optimizer: a step sees TRAIN.BATCH_SIZE x this many "
            "videos.",
            minimum=1,
        ),
    ] = 1
    LABEL_SMOOTHING: Annotated[
        float,
        Key(
            "Share of a label that is spread over all classes.",
            minimum=0,
            below=1,
            source="[P] Tables 11, 12: 0.1",
        ),
    ] = 0.0

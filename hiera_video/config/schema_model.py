"""Keys of the sections that define and train the model: MODEL, MASK, SOLVER.

`schema.py` lists the sources.
"""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key

Floats = tuple[float, ...]

# A file of models/ is a family if it has a public function that takes these keywords.
FAMILY_TAKES = ("input_size", "drop_path_rate")


@dataclass(frozen=True)
class ModelSection:
    """The model."""

    ARCH: Annotated[
        str,
        Key("File of the model family.", modules_of="models", taking=FAMILY_TAKES),
    ] = "hiera"
    MODEL_NAME: Annotated[str, Key("Function in that file that builds it.", nonempty=True)] = (
        "hiera_base_16x224"
    )
    NUM_CLASSES: Annotated[
        int, Key("Number of labels.", unit="classes", minimum=1, maximum=10**6)
    ] = 400
    DROPOUT_RATE: Annotated[
        float, Key("Fraction of features zeroed before the last layer.", minimum=0, below=1)
    ] = 0.0
    DROP_PATH_RATE: Annotated[
        float,
        Key(
            "Probability of skipping the last block in training; rises from 0 at the first block.",
            minimum=0,
            below=1,
        ),
    ] = 0.0
    SIMPLIFY: Annotated[
        str,
        Key(
            "Steps from MViTv2 to Hiera that a model of ARCH mvit or mvit_mae takes, as letters: a "
            "absolute positions, b max-pools, c no pools of stride 1, d no overlap, e no query "
            "residual, f mask unit attention.",
            source="[P] Table 1",
        ),
    ] = ""
    MASK_UNIT_SIZE: Annotated[
        Floats,
        Key(
            "Mask unit: time (1 for images), height, width; [0, 0, 0]: the model's own.",
            unit="tokens",
            length=3,
            minimum=0,
            maximum=10**4,
            source="[P] section 3: 8 x 8, each token of 4 x 4 pixels",
        ),
    ] = (0, 0, 0)
    FREEZE_LAYERS: Annotated[
        int,
        Key(
            "Number of frozen layers, from the first: 1 the embeddings, 2 also the first block, "
            "and so on; 0: none.",
            unit="layers",
            minimum=0,
            maximum=1000,
        ),
    ] = 0
    LINEAR_PROBE: Annotated[
        bool, Key("Train only the classifier and its norm, and freeze all other layers.")
    ] = False
    ACT_CHECKPOINT: Annotated[
        bool,
        Key("Keep only the input of each block for the backward pass: less memory, more time."),
    ] = False
    COMPILE: Annotated[
        str,
        Key(
            "What torch.compile compiles for training: nothing, the blocks of the encoder, or the "
            "whole forward and backward pass. Compiling takes a minute or more in the first step.",
            choices=("none", "encoder", "step"),
        ),
    ] = "none"


@dataclass(frozen=True)
class MaskSection:
    """The masked autoencoder that TASK ssl trains: its masks and its decoder."""

    STRATEGY: Annotated[
        str,
        Key(
            "Which mask units are hidden: tube hides one spatial pattern through all time, random "
            "any units in space and time (as published), frame whole time steps.",
            modules_of="models/masking",
            taking=("num_clips", "ratio", "generator"),
        ),
    ] = "tube"
    RATIO: Annotated[
        float,
        Key(
            "Fraction of the mask units that are hidden.",
            above=0,
            below=1,
            source="[P] Table 11: 0.9 for video; Table 14: 0.6 for images",
        ),
    ] = 0.9
    DESIGN: Annotated[
        str,
        Key(
            "What the encoder does with hidden mask units: sparse drops them (kernels must not "
            "cross mask units), dense keeps a mask token in the place of each hidden token, "
            "separate drops them and pads each visible unit with zeros.",
            choices=("sparse", "dense", "separate"),
            source="[P] section 3, the figure on masked autoencoders for hierarchical models",
        ),
    ] = "sparse"
    DECODER_KEEP_RATIO: Annotated[
        float,
        Key(
            "Fraction of the hidden mask units that the decoder reconstructs; less is faster.",
            above=0,
            maximum=1,
            source="1 as published; 0.5 in VideoMAE V2, arXiv 2303.16727, section 3.2",
        ),
    ] = 1.0
    DECODER_DEPTH: Annotated[
        int,
        Key(
            "Blocks of the decoder.",
            unit="blocks",
            minimum=1,
            maximum=1000,
            source="[P] Table 11: 8",
        ),
    ] = 8
    DECODER_EMBED_DIM: Annotated[
        int,
        Key("Channels of the decoder.", minimum=1, maximum=10**5, source="the published code: 512"),
    ] = 512
    DECODER_NUM_HEADS: Annotated[
        int,
        Key(
            "Attention heads of the decoder.",
            minimum=1,
            maximum=10**4,
            source="[P] Tables 11, 12: 8 for video; Table 14 and the published code: 16",
        ),
    ] = 8


@dataclass(frozen=True)
class SolverSection:
    """Optimizer, schedule and loss."""

    OPTIMIZING_METHOD: Annotated[str, Key("Name of the optimizer.", choices=("adamw", "sgd"))] = (
        "adamw"
    )
    BASE_LR: Annotated[
        float,
        Key(
            "Peak learning rate at BASE_BATCH_SIZE clips per step; scaled to the clips of a step.",
            above=0,
            maximum=1e30,
            source="[P] Table 11: 8e-4 at 256 videos, 2 views of each",
        ),
    ] = 8e-4
    BASE_BATCH_SIZE: Annotated[
        int,
        Key(
            "Clips per step (videos x views) for which BASE_LR is given; 0: BASE_LR is not scaled.",
            minimum=0,
            maximum=10**9,
        ),
    ] = 512
    COSINE_END_LR: Annotated[
        float, Key("Learning rate at the end; scaled like BASE_LR.", minimum=0, maximum=1e30)
    ] = 0.0
    WARMUP_EPOCHS: Annotated[
        float, Key("Length of the linear warm-up.", unit="epochs", minimum=0, maximum=10**6)
    ] = 0.0
    WARMUP_START_LR: Annotated[
        float,
        Key(
            "Learning rate at the start of the warm-up; scaled like BASE_LR.",
            minimum=0,
            maximum=1e30,
        ),
    ] = 0.0
    MAX_EPOCH: Annotated[
        int,
        Key("Length of training: passes over the videos.", unit="epochs", minimum=1, maximum=10**6),
    ] = 100
    WEIGHT_DECAY: Annotated[
        float,
        Key(
            "Weight decay of matrices; vectors and positions have none.",
            minimum=0,
            maximum=100,
            source="[P] Table 11: 0.05; Table 12: 1e-4",
        ),
    ] = 0.05
    BETAS: Annotated[
        Floats,
        Key(
            "AdamW's decay of the averages of the gradient and of its square.",
            length=2,
            minimum=0,
            below=1,
            source="[P] Table 11",
        ),
    ] = (0.9, 0.999)
    MOMENTUM: Annotated[float, Key("Momentum of SGD (Nesterov).", minimum=0, below=1)] = 0.9
    LAYER_DECAY: Annotated[
        float,
        Key(
            "Ratio of the learning rate of each block to that of the block above it; 1: all equal.",
            above=0,
            maximum=1,
            source="[P] Tables 11, 12",
        ),
    ] = 1.0
    CLIP_GRAD_L2NORM: Annotated[
        float,
        Key(
            "Largest L2 norm of the gradient; 0: no limit.",
            minimum=0,
            maximum=10**9,
            source="[P] Table 11: 5.0",
        ),
    ] = 0.0
    ACCUM_STEPS: Annotated[
        int,
        Key(
            "Forward passes per optimizer step (gradient accumulation): a step sees this many "
            "times TRAIN.BATCH_SIZE videos.",
            minimum=1,
            maximum=10**6,
        ),
    ] = 1
    LABEL_SMOOTHING: Annotated[
        float,
        Key(
            "Fraction of a label that is spread over all classes.",
            minimum=0,
            below=1,
            source="[P] Tables 11, 12: 0.1",
        ),
    ] = 0.0

"""Keys of the sections that turn files into batches: DATA, DATA_LOADER, AUG, MIXUP.

The sources are those of `schema.py`.
"""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key

Floats = tuple[float, ...]


@dataclass(frozen=True)
class DataSection:
    """From the lists on disk to a normalised clip."""

    PATH_TO_DATA_DIR: Annotated[
        str, Key("Folder of the lists (for Kinetics train.csv...).", is_path=True)
    ] = ""
    PATH_PREFIX: Annotated[
        str, Key("Folder put before each path that a list holds.", is_path=True)
    ] = ""
    SPLIT_NUMBER: Annotated[
        int,
        Key("Which of the published splits of UCF101 or HMDB51.", minimum=1, maximum=3),
    ] = 1
    NUM_FRAMES: Annotated[
        int,
        Key("Frames of a clip.", unit="frames", minimum=1, maximum=10**4, source="[P] Table 4: 16"),
    ] = 16
    SAMPLING_RATE: Annotated[
        int,
        Key(
            "Distance between the frames of a densely sampled clip, counted at TARGET_FPS.",
            unit="frames",
            minimum=1,
            maximum=10**4,
            source="[P] Table 11: 4",
        ),
    ] = 4
    TARGET_FPS: Annotated[
        float,
        Key(
            "Frame rate at which SAMPLING_RATE counts.",
            unit="frames per second",
            minimum=0.01,
            maximum=10**4,
        ),
    ] = 30.0
    SAMPLING: Annotated[
        str,
        Key(
            "How frames are chosen: dense takes SAMPLING_RATE-spaced frames from one stretch of "
            "the video, uniform takes one frame from each of NUM_FRAMES equal parts of it.",
            choices=("dense", "uniform"),
        ),
    ] = "dense"
    TRAIN_CROP_SIZE: Annotated[
        int,
        Key(
            "Side of a training clip.",
            unit="pixels",
            minimum=1,
            maximum=10**4,
            source="[P] Table 4: 224",
        ),
    ] = 224
    TEST_CROP_SIZE: Annotated[
        int,
        Key(
            "Side of a test view.",
            unit="pixels",
            minimum=1,
            maximum=10**4,
            source="[P] Table 4: 224",
        ),
    ] = 224
    TRAIN_JITTER_SCALES_RELATIVE: Annotated[
        Floats,
        Key(
            "Smallest and largest random crop, as a share of the frame's area.",
            length=2,
            above=0,
            maximum=1,
            source="fine-tuning of [ST] in PySlowFast",
        ),
    ] = (0.08, 1.0)
    TRAIN_JITTER_ASPECT_RELATIVE: Annotated[
        Floats,
        Key(
            "Narrowest and widest random crop, as width over height.",
            length=2,
            minimum=0.01,
            maximum=100,
            source="fine-tuning of [ST] in PySlowFast",
        ),
    ] = (0.75, 1.3333)
    RANDOM_FLIP: Annotated[bool, Key("Mirror half of the training clips left to right.")] = True
    MEAN: Annotated[
        Floats,
        Key(
            "Taken off red, green and blue, which run from 0 to 1.",
            length=3,
            minimum=-100,
            maximum=100,
            source="PySlowFast",
        ),
    ] = (0.45, 0.45, 0.45)
    STD: Annotated[
        Floats,
        Key(
            "Red, green and blue are divided by it.",
            length=3,
            minimum=1e-6,
            maximum=100,
            source="PySlowFast",
        ),
    ] = (0.225, 0.225, 0.225)
    MAX_BAD_FRACTION: Annotated[
        float,
        Key(
            "Largest share of videos that may be undecodable: training stops, and a test ends "
            "with an error status, where there are more.",
            minimum=0,
            maximum=1,
        ),
    ] = 0.1
    DECODING_BACKEND: Annotated[
        str,
        Key(
            "Library that decodes videos; auto takes the best one that is installed.",
            choices=("auto",),
            modules_of="data/decoders",
        ),
    ] = "auto"
    SQUARE_PIXELS: Annotated[
        bool,
        Key(
            "Show pixels that a file says are not square (sample aspect ratio) as a player does, "
            "in a wider or higher picture; False: pictures as they are stored, as in PySlowFast."
        ),
    ] = True


@dataclass(frozen=True)
class DataLoaderSection:
    """The processes that decode."""

    NUM_WORKERS: Annotated[
        int,
        Key("Decoding processes per GPU; 0: decode in the main process.", minimum=0, maximum=1024),
    ] = 8
    TIMEOUT_SEC: Annotated[
        float,
        Key(
            "Longest that one video may take: then its process is killed and replaced, and the "
            "video counts as bad; 0: for ever. Without processes of their own there is no limit.",
            unit="seconds",
            minimum=0,
            maximum=10**7,
        ),
    ] = 120.0
    NORMALIZE_ON_DEVICE: Annotated[
        bool,
        Key(
            "Send pixels to the device, a quarter of the bytes, and normalise them there; False: "
            "in the decoding processes. The clips are the same."
        ),
    ] = True
    PIN_MEMORY: Annotated[bool, Key("Hold batches in page-locked memory, for faster copies.")] = (
        True
    )


@dataclass(frozen=True)
class AugSection:
    """Augmentation of single clips."""

    ENABLE: Annotated[bool, Key("Use RandAugment, random erasing and NUM_SAMPLE.")] = True
    NUM_SAMPLE: Annotated[
        int,
        Key(
            "Training views of one decoded video (repeated augmentation).",
            unit="views",
            minimum=1,
            maximum=1000,
            source="[P] Table 11: 2 for fine-tuning, 4 for pretraining",
        ),
    ] = 1
    AA_TYPE: Annotated[
        str,
        Key(
            "RandAugment policy as timm writes it, such as rand-m7-mstd0.5-inc1, which draws two "
            "operations, or with n4 four; empty: none.",
            source="[P] Tables 11, 12: magnitude 7, spread 0.5; inc1 and two operations from [ST]",
        ),
    ] = "rand-m7-mstd0.5-inc1"
    RE_PROB: Annotated[float, Key("Chance of random erasing.", minimum=0, maximum=1)] = 0.0
    RE_MODE: Annotated[
        str, Key("What fills the erased box: noise or a constant.", choices=("pixel", "const"))
    ] = "pixel"


@dataclass(frozen=True)
class MixupSection:
    """Mixing of the clips of a batch."""

    ENABLE: Annotated[bool, Key("Mix clips and labels by mixup or cutmix.")] = False
    ALPHA: Annotated[
        float,
        Key(
            "Beta parameter of mixup; 0: no mixup.",
            minimum=0,
            maximum=1000,
            source="[P] Tables 11, 12: 0.8",
        ),
    ] = 0.8
    CUTMIX_ALPHA: Annotated[
        float,
        Key(
            "Beta parameter of cutmix; 0: no cutmix.",
            minimum=0,
            maximum=1000,
            source="[P] Tables 11, 12: 1.0",
        ),
    ] = 1.0
    PROB: Annotated[float, Key("Chance that a batch is mixed at all.", minimum=0, maximum=1)] = 1.0
    SWITCH_PROB: Annotated[
        float, Key("Chance of cutmix where both are on.", minimum=0, maximum=1)
    ] = 0.5

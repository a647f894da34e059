"""Keys of the sections that turn files into batches: DATA, DATA_LOADER, AUG, MIXUP.

`schema.py` lists the sources.
"""

from dataclasses import dataclass
from typing import Annotated

from hiera_video.config.rules import Key

Floats = tuple[float, ...]


@dataclass(frozen=True)
class DataSection:
    """Data: from the lists on disk to a normalised clip."""

    PATH_TO_DATA_DIR: Annotated[
        str, Key("Folder of the lists (for Kinetics, train.csv etc.).", is_path=True)
    ] = ""
    PATH_PREFIX: Annotated[
        str, Key("Folder to put before each relative path in a list.", is_path=True)
    ] = ""
    SPLIT_NUMBER: Annotated[
        int,
        Key("Number of the published split of UCF101 or HMDB51.", minimum=1, maximum=3),
    ] = 1
    NUM_FRAMES: Annotated[
        int,
        Key(
            "Frames of a clip; 1: single frames, for a model of images.",
            unit="frames",
            minimum=1,
            maximum=10**4,
            source="[P] Table 4: 16",
        ),
    ] = 16
    SAMPLING_RATE: Annotated[
        int,
        Key(
            "Distance between the frames of a densely sampled clip, in frames at TARGET_FPS.",
            unit="frames",
            minimum=1,
            maximum=10**4,
            source="[P] Table 11: 4",
        ),
    ] = 4
    TARGET_FPS: Annotated[
        float,
        Key(
            "Frame rate to which SAMPLING_RATE refers.",
            unit="frames per second",
            minimum=0.01,
            maximum=10**4,
        ),
    ] = 30.0
    SAMPLING: Annotated[
        str,
        Key(
            "How to choose frames: dense takes frames SAMPLING_RATE apart from one stretch of the "
            "video, uniform takes one frame from each of NUM_FRAMES equal parts of it.",
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
            "Smallest and largest random crop, as a fraction of the frame's area.",
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
            "Mean of red, green and blue in 0..1, subtracted from them.",
            length=3,
            minimum=-100,
            maximum=100,
            source="PySlowFast",
        ),
    ] = (0.45, 0.45, 0.45)
    STD: Annotated[
        Floats,
        Key(
            "Standard deviation of red, green and blue, which are divided by it.",
            length=3,
            minimum=1e-6,
            maximum=100,
            source="PySlowFast",
        ),
    ] = (0.225, 0.225, 0.225)
    MAX_BAD_FRACTION: Annotated[
        float,
        Key(
            "Largest fraction of videos that may be undecodable. If there are more, training "
            "stops, and a test ends with an error status.",
            minimum=0,
            maximum=1,
        ),
    ] = 0.1
    DECODING_BACKEND: Annotated[
        str,
        Key(
            "Library that decodes videos; auto chooses the best one that is installed.",
            choices=("auto",),
            modules_of="data/decoders",
        ),
    ] = "auto"
    SQUARE_PIXELS: Annotated[
        bool,
        Key(
            "If a file's pixels are not square (sample aspect ratio), stretch the picture as a "
            "player does; False: use pictures as they are stored, as in PySlowFast."
        ),
    ] = True


@dataclass(frozen=True)
class DataLoaderSection:
    """The processes that decode videos."""

    NUM_WORKERS: Annotated[
        int,
        Key("Decoding processes per GPU; 0: decode in the main process.", minimum=0, maximum=1024),
    ] = 8
    TIMEOUT_SEC: Annotated[
        float,
        Key(
            "Longest time to decode one video, after which its process is replaced and the video "
            "counts as bad; 0: no limit. NUM_WORKERS 0 has no limit either.",
            unit="seconds",
            minimum=0,
            maximum=10**7,
        ),
    ] = 120.0
    CACHE: Annotated[
        float,
        Key(
            "Memory in which the processes of a machine together keep decoded training and "
            "validation videos, so that a small list is decoded once; 0: keep none. The clips are "
            "the same.",
            unit="GiB",
            minimum=0,
            maximum=10**5,
        ),
    ] = 0.0
    NORMALIZE_ON_DEVICE: Annotated[
        bool,
        Key(
            "Send uint8 pixels to the device, a quarter of the bytes, and normalise them there; "
            "False: normalise in the decoding processes. The clips are the same."
        ),
    ] = True
    PIN_MEMORY: Annotated[bool, Key("Keep batches in page-locked memory, for faster copies.")] = (
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
            "RandAugment policy in timm's notation, such as rand-m7-mstd0.5-inc1, which draws two "
            "operations (four with n4); empty: none.",
            source="[P] Tables 11, 12: magnitude 7, spread 0.5; inc1 and two operations from [ST]",
        ),
    ] = "rand-m7-mstd0.5-inc1"
    RE_PROB: Annotated[float, Key("Probability of random erasing.", minimum=0, maximum=1)] = 0.0
    RE_MODE: Annotated[
        str, Key("Fill of the erased box: noise or a constant.", choices=("pixel", "const"))
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
    PROB: Annotated[float, Key("Probability that a batch is mixed.", minimum=0, maximum=1)] = 1.0
    SWITCH_PROB: Annotated[
        float, Key("Probability of cutmix if both are enabled.", minimum=0, maximum=1)
    ] = 0.5

"""Turn decoded frames into model input: crop, augment, normalise, mix.

The dataset applies `TrainTransform` and `TestTransform` to single clips. The training loop applies
`Mixup` to batches. The other modules hold their parts, public so that each can be used and tested
alone. Every random transform first draws plain numbers from an explicit `numpy.random.Generator`,
then applies a pure function of those numbers.
"""

from hiera_video.data.transforms.mixup import Mixup
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.data.transforms.randaugment import Policy, parse_policy

__all__ = ["Mixup", "Policy", "TestTransform", "TrainTransform", "parse_policy"]

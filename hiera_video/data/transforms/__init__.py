"""What happens to frames between the decoder and the model: crop, augment, normalise, mix.

The dataset uses `TrainTransform` and `TestTransform` on single clips, the training loop uses
`Mixup` on batches; everything else here is a piece of them, public so that it can be used and
tested alone. Every random piece is a draw of plain numbers from an explicit
`numpy.random.Generator`, followed by a pure function of those numbers.
"""

from hiera_video.data.transforms.mixup import Mixup
from hiera_video.data.transforms.pipeline import TestTransform, TrainTransform
from hiera_video.data.transforms.randaugment import Policy, parse_policy

__all__ = ["Mixup", "Policy", "TestTransform", "TrainTransform", "parse_policy"]

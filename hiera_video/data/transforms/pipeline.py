"""The two ways from decoded frames to model input: one for training, one for testing.

Legend: T frames, H height, W width (pixels), C colour channels, S spatial crops.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hiera_video.data.transforms.checks import check_fraction, check_positive, check_range
from hiera_video.data.transforms.crops import (
    check_num_crops,
    random_flip,
    random_resized_crop,
    resize_short_side,
    spatial_crops,
)
from hiera_video.data.transforms.erasing import check_mode, random_erase
from hiera_video.data.transforms.normalize import to_clip
from hiera_video.data.transforms.randaugment import Policy, rand_augment


def to_frames(frames_THWC: np.ndarray) -> torch.Tensor:
    """Return a decoder's uint8 RGB frames as a tensor [T, C, H, W], without copying if it can.

    Channels stay innermost in memory. Frames that are read-only or stored backwards (a rotated
    video) are copied, because torch knows neither.
    """
    frames_THWC = np.require(frames_THWC, requirements=["C", "W"])
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)


class TrainTransform:
    """Random-resized crop, flip, RandAugment, normalisation and erasing of one clip.

    `crop_size` is the side of the result in pixels; `scale` and `aspect` are those of
    `random_resized_crop`; `flip` mirrors half of all clips; `policy` is a RandAugment policy or
    None; `erase_probability` and `erase_mode` are those of `random_erase`; `mean` and `std` those
    of `to_clip`. All frames of a clip are treated alike. Raises a UserError for a number outside
    its range.

    Order: PySlowFast's recipes, VideoMAE's and with them Hiera's apply RandAugment to whole decoded
    frames and crop afterwards; here the crop comes first, as in timm's image recipes. RandAugment
    then handles 224x224 pixels, whatever the video's size, and never spends time on what is cut
    away. The difference it makes: translations and shears are relative to the crop, the fill at a
    moved picture's edge is not cropped away again, and histogram statistics are those of the crop.
    """

    def __init__(
        self,
        *,
        crop_size: int,
        scale: tuple[float, float],
        aspect: tuple[float, float],
        flip: bool,
        policy: Policy | None,
        erase_probability: float,
        erase_mode: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        check_positive("crop_size", crop_size)
        check_range("scale", scale, at_most=1.0)
        check_range("aspect", aspect)
        check_fraction("erase_probability", erase_probability)
        check_mode(erase_mode)
        self.crop_size = crop_size
        self.scale = scale
        self.aspect = aspect
        self.flip = flip
        self.policy = policy
        self.erase_probability = erase_probability
        self.erase_mode = erase_mode
        self.mean = mean
        self.std = std
        self.fill = [255.0 * channel for channel in mean]

    def __call__(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Turn decoded frames, uint8 RGB [T, H, W, 3], into a clip, float32 [3, T, S, S].

        S is `crop_size`. The frames are not changed, so that one decode can give several views
        (repeated augmentation) by calling this again with the same `rng`.
        """
        frames_TCHW = random_resized_crop(
            to_frames(frames_THWC),
            size=self.crop_size,
            scale=self.scale,
            aspect=self.aspect,
            rng=rng,
        )
        if self.flip:
            frames_TCHW = random_flip(frames_TCHW, rng=rng)
        if self.policy is not None:
            frames_TCHW = rand_augment(frames_TCHW, policy=self.policy, rng=rng, fill=self.fill)
        clip_CTHW = to_clip(frames_TCHW, self.mean, self.std)
        if self.erase_probability > 0.0:
            clip_CTHW = random_erase(
                clip_CTHW, probability=self.erase_probability, mode=self.erase_mode, rng=rng
            )
        return clip_CTHW


class TestTransform:
    """Shorter side to the crop's size, then one or three crops along the longer side.

    `crop_size` is in pixels, `num_crops` is 1 (centre) or 3, `mean` and `std` are those of
    `to_clip`. Nothing here is random. Raises a UserError for another number of crops.
    """

    __test__ = False  # the name is not a test for pytest to collect

    def __init__(
        self, *, crop_size: int, num_crops: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        check_positive("crop_size", crop_size)
        check_num_crops(num_crops)
        self.crop_size = crop_size
        self.num_crops = num_crops
        self.mean = mean
        self.std = std

    def __call__(self, frames_THWC: np.ndarray) -> torch.Tensor:
        """Turn decoded frames, uint8 RGB [T, H, W, 3], into views, float32 [S, 3, T, H', W'].

        H' and W' are `crop_size`, S is `num_crops`.
        """
        frames_TCHW = resize_short_side(to_frames(frames_THWC), self.crop_size)
        crops = spatial_crops(frames_TCHW, size=self.crop_size, num_crops=self.num_crops)
        num_frames, channels = frames_TCHW.shape[:2]
        views_SCTHW = torch.empty(
            (len(crops), channels, num_frames, self.crop_size, self.crop_size)
        )
        for crop_TCHW, view_CTHW in zip(crops, views_SCTHW, strict=True):
            to_clip(crop_TCHW, self.mean, self.std, out=view_CTHW)
        return views_SCTHW

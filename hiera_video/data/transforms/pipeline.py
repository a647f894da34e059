"""Turn decoded frames into model input: one pipeline for training, one for testing.

Legend: T frames of a clip, N decoded frames, H height, W width (pixels), C colour channels,
V clips, S spatial crops.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hiera_video.data.transforms.crops import (
    check_fraction,
    check_num_crops,
    check_positive,
    check_range,
    random_flip,
    random_resized_crop,
    resize_short_side,
    spatial_crops,
)
from hiera_video.data.transforms.normalize import Erasure, Normalize, check_mode, draw_erasure
from hiera_video.data.transforms.randaugment import Policy, rand_augment

# Small enough that resized frames stay in the CPU cache until they are written.
_FRAMES_AT_ONCE = 4


def to_frames(frames_THWC: np.ndarray) -> torch.Tensor:
    """Return a decoder's uint8 RGB frames as a tensor [T, C, H, W], without a copy if possible.

    Channels stay innermost in memory. Frames that are read-only or have negative strides (from a
    rotated video) are copied, because torch supports neither.
    """
    frames_THWC = np.require(frames_THWC, requirements=["C", "W"])
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)


def write_pixels(frames_TCHW: torch.Tensor, out_THWC: torch.Tensor) -> None:
    """Copy uint8 frames into the pixels of a view, whose channels are innermost in memory."""
    if frames_TCHW.stride(-1) == 1:
        # Copying plane by plane takes less than half the time of one copy by torch.
        for channel_THW, out_THW in zip(frames_TCHW.unbind(1), out_THWC.unbind(-1), strict=True):
            out_THW.copy_(channel_THW)
    else:
        out_THWC.copy_(frames_TCHW.permute(0, 2, 3, 1))


class TrainTransform:
    """Apply random-resized crop, flip, RandAugment, normalisation and erasing to one clip.

    `crop_size` is the side of the result in pixels. `scale` and `aspect` are those of
    `random_resized_crop`. `flip` mirrors half of all clips. `policy` is a RandAugment policy or
    None. `erase_probability` and `erase_mode` are those of `random_erase`, `mean` and `std` those
    of `to_clip`. All frames of a clip are transformed alike. Raises a UserError for a number
    outside its range.

    Order: the recipes of PySlowFast and VideoMAE, and so Hiera's, apply RandAugment to the decoded
    frames and crop afterwards. Here the crop comes first, as in timm's image recipes. RandAugment
    then handles 224x224 pixels whatever the size of the video, and spends no time on pixels that
    are cut away. The results differ in three ways. Translations and shears are relative to the
    crop. The fill at the edge of a moved picture is not cropped away. Histogram statistics are
    those of the crop.
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
        self.finish = Normalize(mean, std)
        self.fill = [255.0 * channel for channel in mean]

    def __call__(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Turn decoded frames, uint8 RGB [T, H, W, 3], into a clip, float32 [3, T, S, S].

        S is `crop_size`. The frames are not changed, so further calls with the same `rng` give
        more views of one decode (repeated augmentation).
        """
        pixels_THWC = torch.empty(
            (len(frames_THWC), self.crop_size, self.crop_size, 3), dtype=torch.uint8
        )
        erasure = self.write(frames_THWC, rng, pixels_THWC)
        return self.finish(pixels_THWC[None], [erasure])[0]

    def write(
        self, frames_THWC: np.ndarray, rng: np.random.Generator, out_THWC: torch.Tensor
    ) -> Erasure | None:
        """Do all but `finish`: write a view's pixels to `out_THWC`, return the box to erase."""
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
        write_pixels(frames_TCHW, out_THWC)
        if self.erase_probability == 0.0:
            return None
        return draw_erasure(
            self.crop_size,
            self.crop_size,
            probability=self.erase_probability,
            mode=self.erase_mode,
            rng=rng,
        )


class TestTransform:
    """Resize the shorter side to the crop's size, then take 1 or 3 crops along the longer side.

    `crop_size` is in pixels, `num_crops` is 1 (centre) or 3, `mean` and `std` are those of
    `to_clip`. Nothing here is random. Raises a UserError for any other number of crops.
    """

    __test__ = False  # the name is not a test for pytest to collect

    def __init__(
        self, *, crop_size: int, num_crops: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        check_positive("crop_size", crop_size)
        check_num_crops(num_crops)
        self.crop_size = crop_size
        self.num_crops = num_crops
        self.finish = Normalize(mean, std)

    def __call__(self, frames_THWC: np.ndarray) -> torch.Tensor:
        """Turn decoded frames, uint8 RGB [T, H, W, 3], into views, float32 [S, 3, T, H', W'].

        H' and W' are `crop_size`, S is `num_crops`.
        """
        clip_1T = np.arange(len(frames_THWC))[None]
        shape = (1, self.num_crops, len(frames_THWC), self.crop_size, self.crop_size, 3)
        pixels_1STHWC = torch.empty(shape, dtype=torch.uint8)
        self.write(frames_THWC, clip_1T, pixels_1STHWC)
        return self.finish(pixels_1STHWC[0])

    def write(
        self, frames_NHWC: np.ndarray, clips_VT: np.ndarray, out_VSTHWC: torch.Tensor
    ) -> None:
        """Write the pixels of all crops of the clips `clips_VT`, resizing each frame once."""
        out = out_VSTHWC.numpy()
        for start in range(0, len(frames_NHWC), _FRAMES_AT_ONCE):
            frames_NCHW = to_frames(frames_NHWC[start : start + _FRAMES_AT_ONCE])
            resized_NCHW = resize_short_side(frames_NCHW, self.crop_size)
            crops = spatial_crops(resized_NCHW, size=self.crop_size, num_crops=self.num_crops)
            crops_SNHWC = [crop_NCHW.permute(0, 2, 3, 1).numpy() for crop_NCHW in crops]
            shown = (clips_VT >= start) & (clips_VT < start + _FRAMES_AT_ONCE)
            for clip, place in zip(*shown.nonzero(), strict=True):
                for crop, crop_NHWC in enumerate(crops_SNHWC):
                    out[clip, crop, place] = crop_NHWC[clips_VT[clip, place] - start]

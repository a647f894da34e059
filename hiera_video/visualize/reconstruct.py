"""Show the visible part of a video and a masked autoencoder's reconstruction of it, as frames.

Shape suffixes: B clips (1 here), C channels, T frames, H height, W width, U mask units, N decoder
tokens, M hidden ones, P values of a patch; THW after `visible` are mask units in time and space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hiera_video.checkpoints.files import read_checkpoint
from hiera_video.config import Config, load_config
from hiera_video.data import sampling
from hiera_video.data.build import clip_spec, decoding
from hiera_video.data.decoders import open_video
from hiera_video.data.transforms.pipeline import TestTransform
from hiera_video.inference.load import saved_config
from hiera_video.models import masking
from hiera_video.models.build import build_trained
from hiera_video.models.load import load_model
from hiera_video.models.parts.autoencoder import MaskedAutoencoder
from hiera_video.models.parts.patches import (
    TakesClips,
    as_model_input,
    patches_to_frames,
    pixel_patches,
    statistics,
)
from hiera_video.models.parts.visible import tokens_in_order
from hiera_video.utils.errors import UserError
from hiera_video.utils.seed import seed_for
from hiera_video.visualize.pictures import grey_hidden

_KEY = "--checkpoint"
_TRY_A_RUN = "Try one of a run with TASK ssl, or --model mae_hiera_base_16x224."


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as the model takes it, `clip_CTHW`, and the time of each frame in the video."""

    clip_CTHW: torch.Tensor
    seconds_T: np.ndarray


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures to show, uint8 RGB frames_THWC: one for each time step of the tokens."""

    original: np.ndarray
    visible: np.ndarray
    reconstruction: np.ndarray


def load_autoencoder(
    checkpoint: str | None, *, cfg: Config | None = None, model_name: str | None = None
) -> tuple[MaskedAutoencoder, Config]:
    """Load an autoencoder in evaluation mode; return it with the config of its clips.

    If `model_name` is given, it is the model, and `checkpoint` is as in `load_model` (None: the
    published weights). Otherwise the model is that of `cfg`, by default the config that a run saved
    in its checkpoint.

    With `model_name` and no `cfg`, the clips follow the defaults at the model's own size: 16x4 as
    in the paper, masked by `random` as published. Mean 0.45 and standard deviation 0.225 are those
    of the nearest published training code, since the authors' own is not public.

    Raises:
        UserError: there is no such checkpoint, or it does not hold a video autoencoder.
    """
    if model_name is not None:
        return _named_model(model_name, checkpoint), cfg or load_config(
            None, ["MASK.STRATEGY", "random"]
        )
    if checkpoint is None:
        raise UserError(f"{_KEY} must be a checkpoint of a pretraining run. {_TRY_A_RUN}")
    if cfg is not None and cfg.TASK != "ssl":
        raise UserError(
            f"--cfg must be one of pretraining, TASK ssl, got TASK {cfg.TASK}. Try without --cfg, "
            "or that of the run that wrote the checkpoint."
        )
    content = read_checkpoint(checkpoint, key=_KEY)
    cfg = cfg or saved_config(content, checkpoint, key=_KEY)
    if cfg is None:
        raise UserError(
            f"{_KEY}: {checkpoint!r} does not say of which model it is. Try giving --cfg, the YAML "
            "file it was trained with, or --model, such as mae_hiera_base_16x224."
        )
    if cfg.TASK != "ssl":
        raise UserError(
            f"{_KEY} must hold an autoencoder, got {checkpoint!r} with TASK {cfg.TASK}. "
            f"{_TRY_A_RUN}"
        )
    model = build_trained(cfg, checkpoint, content, key=_KEY)
    assert isinstance(model, MaskedAutoencoder)
    return model.eval(), cfg


def draw_mask(
    model: MaskedAutoencoder,
    cfg: Config,
    *,
    strategy: str | None,
    ratio: float | None,
    seed: int,
) -> torch.Tensor:
    """Draw the visible units of one clip, bool `visible_BU`.

    A `strategy` or `ratio` of None stands for the config's.

    Raises:
        UserError: there is no such strategy, the ratio is outside (0, 1), or it hides nothing.
    """
    ratio = cfg.MASK.RATIO if ratio is None else ratio
    if not 0 < ratio < 1:
        raise UserError(f"--ratio must be above 0 and below 1, got {ratio}. Try 0.9.")
    draw = masking.find_strategy(strategy or cfg.MASK.STRATEGY, key="--strategy")
    generator = torch.Generator().manual_seed(seed_for("picture", seed))
    visible_BU: torch.Tensor = draw(model.unit_grid, num_clips=1, ratio=ratio, generator=generator)
    if visible_BU.all():
        raise UserError(f"--ratio must hide at least one mask unit, got {ratio}. Try 0.9.")
    return visible_BU


def read_clip(path: str, model: TakesClips, cfg: Config, *, start_sec: float | None = None) -> Clip:
    """Decode the centre crop of a video's clip that begins at `start_sec` (None: the middle clip).

    A clip that would extend beyond the video's end is moved to end there. A video shorter than the
    clip repeats its last frame.

    Raises:
        UserError: the video does not decode (a DecodeError), or is not longer than `start_sec`.
    """
    *frames, crop_size, _ = model.input_size
    num_frames = frames[0] if frames else 1
    clip = replace(clip_spec(cfg), num_frames=num_frames)
    with open_video(path, decoding(cfg)) as reader:
        fps = clip.rate_of(reader.fps)
        if start_sec is None:
            ticks_T = sampling.testing_indices(clip, reader.num_ticks, fps, num_clips=1)[0]
        else:
            _check_start(path, start_sec, duration_sec=reader.num_ticks / fps)
            ticks_T = sampling.dense_indices(clip, reader.num_ticks, fps, position=0.0)
            slack = reader.num_ticks - 1 - int(ticks_T[-1])
            ticks_T += min(round(start_sec * fps), slack)
        frames_THWC = reader.frames_at(reader.ticks_to_frames(ticks_T))
    transform = TestTransform(
        crop_size=crop_size, num_crops=1, mean=cfg.DATA.MEAN, std=cfg.DATA.STD
    )
    return Clip(transform(frames_THWC)[0], ticks_T / fps)


@torch.inference_mode()
def reconstruct(
    model: MaskedAutoencoder,
    clip_CTHW: torch.Tensor,
    visible_BU: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Pictures:
    """Return pictures of a clip, of its visible part, and of its reconstruction.

    The model predicts the first frame of each token, so there is one picture for each time step of
    the tokens, and one for an image. `visible_BU` is bool `[1, U]`. The clip was normalised with
    `mean` and `std`.
    """
    device = model.mask_token.device
    pred_MP = model(clip_CTHW[None].to(device), visible_BU).pred.float().cpu()
    patches_NP = pixel_patches(
        as_model_input(clip_CTHW[None], model.input_size),
        side=model.patch_side,
        frame_stride=model.frame_stride,
    )[0]
    hidden_M = tokens_in_order(~visible_BU, grid=model.decoder_grid, unit=model.decoder_unit)[0]
    original_THWC, filled_THWC = (
        to_pixels(_frames(patches, model), mean=mean, std=std)
        for patches in (patches_NP, fill_in(patches_NP, hidden_M, pred_MP))
    )
    time_grid = (1, *model.unit_grid)[-3:]
    visible_THW = visible_BU[0].unflatten(0, time_grid).numpy()
    return Pictures(original_THWC, grey_hidden(original_THWC, visible_THW), filled_THWC)


def _frames(patches_NP: torch.Tensor, model: MaskedAutoencoder) -> torch.Tensor:
    """Assemble patches into `[C, T, H, W]`; T is 1 for a model of images."""
    frames_X = patches_to_frames(patches_NP[None], grid=model.decoder_grid, side=model.patch_side)
    return frames_X[0] if frames_X.ndim == 5 else frames_X[0].unsqueeze(1)


def fill_in(
    patches_NP: torch.Tensor, hidden_M: torch.Tensor, pred_MP: torch.Tensor
) -> torch.Tensor:
    """Replace the patches at the indices `hidden_M` by the predicted ones.

    The model predicts normalised patches. Each is rescaled to the mean and contrast of the true
    patch, as is usual for pictures of masked autoencoders: without these it has no colours.
    """
    mean_M1, deviation_M1 = statistics(patches_NP[hidden_M])
    filled_NP = patches_NP.clone()
    filled_NP[hidden_M] = pred_MP * deviation_M1 + mean_M1
    return filled_NP


def to_pixels(
    clip_CTHW: torch.Tensor, *, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """Undo the normalisation; return uint8 frames_THWC, rounded and clamped to 0 and 255."""
    clip_THWC = clip_CTHW.permute(1, 2, 3, 0).double()
    shares_THWC = clip_THWC * torch.tensor(std).double() + torch.tensor(mean).double()
    return (shares_THWC * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _named_model(name: str, checkpoint: str | None) -> MaskedAutoencoder:
    if not name.startswith("mae_"):
        raise UserError(f"--model must be an autoencoder, got {name!r}. Try mae_{name}.")
    if name.endswith("_224"):  # checked before its weights are downloaded
        raise UserError(
            f"--model must be a video autoencoder, got {name!r}, which is one for images. Try "
            "mae_hiera_base_16x224."
        )
    model = load_model(name, checkpoint=checkpoint)
    assert isinstance(model, MaskedAutoencoder)
    return model


def _check_start(path: str, start_sec: float, *, duration_sec: float) -> None:
    if not 0 <= start_sec < duration_sec:
        raise UserError(
            f"{path}: --start must be at least 0 and below the video's {duration_sec:.2f} s, got "
            f"{start_sec:g}."
        )

"""Locate the evidence for a class in a clip.

Hiera's classifier is linear in the mean of the last stage's tokens, except that the layer norm
divides by that mean's standard deviation. With this divisor fixed to the clip's value, a logit is
exactly the mean of one term per token, and each token has a place in space and time. This is class
activation mapping (Zhou et al., CVPR 2016). Through attention, a token of the last stage has seen
the whole clip. So its place shows where the model put the evidence, not all of its sources.

Shape suffixes: B clips, K classes, D channels, T H W frames and pixels of clips, t h w the tokens
of the last stage; C colours (RGB).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hiera_video.models.hiera import Hiera
from hiera_video.models.parts.scores import softmax
from hiera_video.utils.errors import UserError

# Colours for and against the class, which colour-blind people can distinguish, too.
FOR, AGAINST = (255, 140, 0), (40, 110, 255)
_MOST_COLOUR = 0.75  # share of colour where evidence is strongest, so that the video stays visible


@dataclass(frozen=True, slots=True)
class Evidence:
    """The contribution of each token to the logit of one class of a clip.

    `map_THW` is float32 `[t, h, w]`, in logits above the mean of all classes. Its mean plus `bias`
    is the class's logit minus the mean logit. `label` is the class, `score` its probability.
    """

    map_THW: np.ndarray
    bias: float
    label: int
    score: float


def check_model(model: nn.Module) -> None:
    """Raise a UserError unless the model is a Hiera that classifies videos."""
    if not isinstance(model, Hiera) or len(model.input_size) != 3:
        raise UserError(
            "--checkpoint or --model must be a Hiera that classifies videos, got "
            f"{type(model).__name__}. Try the checkpoint of a fine-tuned video model."
        )
    if not model.mean_first:
        raise UserError(
            "evidence is shown of models whose head takes the mean of all tokens, got "
            f"{type(model).__name__} without it. Try the checkpoint of a Hiera."
        )
    if not isinstance(model.head.projection, nn.Linear):
        raise UserError(
            "evidence is shown of a Hiera that classifies videos, got one without. Try "
            "reset_classifier, or the checkpoint of a fine-tuned video model."
        )


@torch.inference_mode()
def find_evidence(model: nn.Module, clip_CTHW: torch.Tensor, label: int | None = None) -> Evidence:
    """Compute the evidence for class `label` in a clip; None selects the most probable class.

    The model is in evaluation mode; the clip is normalised, on any device.

    Raises:
        UserError: the model is not a video Hiera with a classifier, or has no such class.
    """
    check_model(model)
    assert isinstance(model, Hiera)
    head = model.head.projection
    assert isinstance(head, nn.Linear)
    num_classes = head.out_features
    if label is not None and not 0 <= label < num_classes:
        raise UserError(f"--label must be in 0 to {num_classes - 1}, got {label}.")
    logits_BK, stages = model(clip_CTHW[None].to(head.weight.device), return_intermediates=True)
    probabilities_K = softmax(logits_BK)[0]
    label = int(probabilities_K.argmax()) if label is None else label

    tokens_THWD = stages[-1][0].float()
    pooled_D = tokens_THWD.mean((0, 1, 2))
    deviation = (pooled_D.var(unbiased=False) + model.norm.eps).sqrt()
    # Softmax ignores what all classes share, so the mean over the classes is subtracted.
    weight_D = head.weight[label] - head.weight.mean(0)
    centred_THWD = tokens_THWD - tokens_THWD.mean(-1, keepdim=True)
    map_THW = centred_THWD @ (weight_D * model.norm.weight) / deviation
    bias = weight_D @ model.norm.bias + head.bias[label] - head.bias.mean()
    return Evidence(map_THW.cpu().numpy(), float(bias), label, float(probabilities_K[label]))


def draw_evidence(frames_THWC: np.ndarray, map_THW: np.ndarray) -> np.ndarray:
    """Return uint8 frames with the evidence in colour: orange for the class, blue against it.

    Linear interpolation stretches the map over the frames in space and time. The strongest token of
    the clip gets the most colour.
    """
    size = frames_THWC.shape[:3]
    stretched_THW = F.interpolate(
        torch.from_numpy(map_THW)[None, None], size=size, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    strongest = max(float(np.abs(map_THW).max()), 1e-12)
    share_THW1 = _MOST_COLOUR * np.clip(np.abs(stretched_THW) / strongest, 0, 1)[..., None]
    colour_THWC = np.where((stretched_THW > 0)[..., None], np.array(FOR), np.array(AGAINST))
    mixed_THWC = (1 - share_THW1) * frames_THWC + share_THW1 * colour_THWC
    return mixed_THWC.round().astype(np.uint8)

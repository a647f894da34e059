"""The sizes of the zoo, for images and for video (Ryali et al., tables 2 and 4)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from torch import nn

from hiera_video.utils.errors import UserError

M = TypeVar("M", bound=nn.Module)

SIZES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2)},
        "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2)},
        "base": {"embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3)},
        "base_plus": {"embed_dim": 112, "num_heads": 2, "stages": (2, 3, 16, 3)},
        "large": {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)},
        "huge": {"embed_dim": 256, "num_heads": 4, "stages": (2, 6, 36, 4)},
    }
)

# The defaults of `Hiera` are those of the published image models, for 224 px. The published video
# models differ in these settings.
VIDEO: Mapping[str, Any] = MappingProxyType(
    {
        "input_size": (16, 224, 224),
        "q_stride": (1, 2, 2),
        "mask_unit_size": (1, 8, 8),
        "patch_kernel": (3, 7, 7),
        "patch_stride": (2, 4, 4),
        "patch_padding": (1, 3, 3),
        "sep_pos_embed": True,
    }
)

# Small enough for a laptop's CPU, for the demo and the tests. The paper has no such size.
MICRO: Mapping[str, Any] = MappingProxyType(
    {
        **VIDEO,
        "input_size": (8, 64, 64),
        "embed_dim": 32,
        "num_heads": 1,
        "stages": (1, 1, 2, 1),
    }
)
# The same for images.
MICRO_IMAGE: Mapping[str, Any] = MappingProxyType(
    {"input_size": (64, 64), "embed_dim": 32, "num_heads": 1, "stages": (1, 1, 2, 1)}
)
MICRO_DECODER: Mapping[str, Any] = MappingProxyType(
    {"decoder_embed_dim": 128, "decoder_depth": 2, "decoder_num_heads": 4}
)


def build_size(
    make: type[M],
    name: str,
    settings: Mapping[str, Any],
    *,
    pretrained: bool,
    checkpoint: str | None,
    **family: Any,
) -> M:
    """Build the model for a name such as "mae_hiera_base_plus_16x224".

    `settings` come from the caller and override those of the size and of `family`. With
    `pretrained`, the published weights `checkpoint` are loaded (a name, path or URL; None: the
    default of the size).

    Raises:
        UserError: the settings do not fit together, or the weights cannot be fetched or do not fit.
    """
    if checkpoint is not None and not pretrained:
        raise UserError(
            f"checkpoint must come with pretrained=True, got {checkpoint!r} without. Try "
            f"{name}(pretrained=True, checkpoint={checkpoint!r})."
        )
    size, _, clip = name.removeprefix("mae_").removeprefix("hiera_").rpartition("_")
    video = VIDEO if "x" in clip else {}
    model = make(**{**SIZES[size], **video, **family, **settings})
    if pretrained:
        # Imported here, so a model without weights does not import the checkpoint readers.
        from hiera_video.checkpoints.published import load_published

        load_published(model, name, checkpoint)
    return model

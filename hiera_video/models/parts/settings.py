"""Types for the keyword arguments of models, for editors and type checkers.

`Hiera` documents each argument. A test compares the types with the constructors.
"""

from collections.abc import Sequence

from typing_extensions import TypedDict


class BodySettings(TypedDict, total=False):
    """The arguments of `HieraEncoder`, except `q_pool`, whose default depends on the model."""

    input_size: Sequence[int]
    in_chans: int
    embed_dim: int
    num_heads: int
    stages: Sequence[int]
    q_stride: Sequence[int]
    mask_unit_size: Sequence[int]
    mask_unit_attn: Sequence[bool]
    dim_mul: float
    head_mul: float
    patch_kernel: Sequence[int]
    patch_stride: Sequence[int]
    patch_padding: Sequence[int]
    mlp_ratio: float
    drop_path_rate: float
    sep_pos_embed: bool
    pos_embed_type: str
    class_token: bool


class EncoderSettings(BodySettings, total=False):
    """The arguments of `HieraEncoder`."""

    q_pool: int


class HieraSettings(EncoderSettings, total=False):
    """The arguments of `Hiera`."""

    num_classes: int
    head_dropout: float
    head_init_scale: float
    weight_init: str


class MAESettings(EncoderSettings, total=False):
    """The arguments of `MaskedAutoencoderHiera`."""

    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    mask_design: str


class ModelSettings(HieraSettings, MAESettings, total=False):
    """The arguments of either model."""

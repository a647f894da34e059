"""RandAugment as video recipes use it: `rand-m7-n4-mstd0.5-inc1`, the same for a whole clip.

Legend: T frames, C colour channels, H height, W width (pixels).
RandAugment is Cubuk et al. 2019 (arXiv 1909.13719): n operations out of a fixed set, one magnitude
for all. The string form, the noise on the magnitude, the probability of 0.5 and the 'increasing'
set, in which a larger magnitude always means a stronger change, come from timm; PySlowFast uses
them for video, and Hiera's paper gives "RandAug (7, 0.5)" (arXiv 2306.00989, tables 11 and 12).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.data.transforms import geometric, photometric
from hiera_video.utils.errors import UserError

MAX_MAGNITUDE = 10.0
"""The magnitude that means full strength; noise never takes a magnitude above it."""

APPLY_PROBABILITY = 0.5
"""Each of the n drawn operations is carried out with this probability (timm)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many operations to draw, and how strong they are."""

    magnitude: float
    """Mean strength, 0..10."""
    num_operations: int
    """Operations drawn per clip, with repetition."""
    magnitude_std: float = 0.0
    """Standard deviation of the gaussian noise that each operation's magnitude gets."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as drawn: its name in `OPERATIONS` and its one number, in its own unit."""

    name: str
    argument: float


def parse_policy(text: str) -> Policy:
    """Read a policy such as "rand-m7-n4-mstd0.5-inc1".

    `m` is the magnitude (0..10), `n` the number of operations, `mstd` the standard deviation of the
    magnitude (0 if absent), and `inc1` chooses the increasing set, the only one there is here: the
    other (timm's default without `inc1`) has operations that grow weaker with m. Raises a
    UserError that names the part it does not understand, or that is missing or there twice.
    """
    head, *parts = text.split("-")
    if head != "rand":
        raise _policy_error("begin with 'rand'", repr(text))
    values: dict[str, float] = {}
    for part in parts:
        key = part.rstrip("0123456789.")
        if key not in ("m", "n", "mstd", "inc"):
            raise _policy_error("be made of m, n, mstd and inc1", f"{part!r} in {text!r}")
        if key in values:
            raise _policy_error(f"give {key} once", f"{part!r} again in {text!r}")
        try:
            values[key] = float(part[len(key) :])
        except ValueError:
            raise _policy_error(f"give {key} a number", f"{part!r} in {text!r}") from None
    for key, meaning in (("m", "magnitude"), ("n", "number of operations"), ("inc", "set")):
        if key not in values:
            raise _policy_error(f"give {key}, the {meaning}", repr(text))
    if not 0.0 <= values["m"] <= MAX_MAGNITUDE:
        raise _policy_error("have m in 0..10", f"'m{values['m']:g}' in {text!r}")
    if values["n"] < 1 or values["n"] != int(values["n"]):
        raise _policy_error("have n as a whole number from 1 on", f"'n{values['n']:g}' in {text!r}")
    if values["inc"] != 1:
        raise _policy_error("have inc1, the increasing set", f"'inc{values['inc']:g}' in {text!r}")
    return Policy(values["m"], int(values["n"]), values.get("mstd", 0.0))


def draw_operations(policy: Policy, *, rng: np.random.Generator) -> list[Operation]:
    """Draw the operations for one clip, at most `policy.num_operations`, in order.

    Each of the n places gets any operation with equal chance (repeats allowed), is then left
    empty with probability 0.5, and has its own magnitude and sign.
    """
    names = list(OPERATIONS)
    drawn = []
    for index in rng.integers(len(names), size=policy.num_operations):
        applied = rng.random() < APPLY_PROBABILITY
        magnitude = policy.magnitude + policy.magnitude_std * rng.standard_normal()
        strength = min(max(magnitude / MAX_MAGNITUDE, 0.0), 1.0)
        sign = 1 if rng.random() < 0.5 else -1
        if applied:
            name = names[index]
            drawn.append(Operation(name, OPERATIONS[name].argument_of(strength, sign)))
    return drawn


def apply_operation(
    frames_TCHW: torch.Tensor, operation: Operation, *, fill: Sequence[float]
) -> torch.Tensor:
    """Carry out one drawn operation on all frames (uint8 RGB) and return new ones.

    `fill` is the level (0..255) per channel that geometric operations put where nothing comes
    from.
    """
    return OPERATIONS[operation.name].apply(frames_TCHW, operation.argument, fill)


def rand_augment(
    frames_TCHW: torch.Tensor, *, policy: Policy, rng: np.random.Generator, fill: Sequence[float]
) -> torch.Tensor:
    """Apply a random policy, the same operations and magnitudes in all frames.

    Takes and returns uint8 RGB [T, 3, H, W]; if nothing is drawn the frames come back as they
    are. `fill` as in `apply_operation`; usually the mean colour.
    """
    for operation in draw_operations(policy, rng=rng):
        # Planes, which most operations go through one by one; a no-op after the first.
        frames_TCHW = apply_operation(frames_TCHW.contiguous(), operation, fill=fill)
    return frames_TCHW


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an operation's number means: `argument_of(strength 0..1, sign)`, and what it does."""

    argument_of: Callable[[float, int], float]
    apply: Callable[[torch.Tensor, float, Sequence[float]], torch.Tensor]


def _policy_error(rule: str, got: str) -> UserError:
    return UserError(f"AUG.AA_TYPE must {rule}, got {got}. Try rand-m7-n4-mstd0.5-inc1.")


def _no_argument(strength: float, sign: int) -> float:
    return 0.0


def _enhance_factor(strength: float, sign: int) -> float:
    """1 is no change; full strength is 0.1 or 1.9."""
    return 1.0 + sign * 0.9 * strength


def _enhancing(function: Callable[[torch.Tensor, float], torch.Tensor]) -> _Kind:
    return _Kind(_enhance_factor, lambda frames, factor, fill: function(frames, factor))


def _moving(function: Callable[..., torch.Tensor], *, at_full_strength: float) -> _Kind:
    return _Kind(
        lambda strength, sign: sign * strength * at_full_strength,
        lambda frames, amount, fill: function(frames, amount, fill=fill),
    )


# The increasing set, with the ranges of timm 1.0: rotation to 30 degrees, shear to 0.3, translation
# to 0.45 of the side, solarize thresholds 256 down to 0, solarize-add 0 to 110, posterize 4 bits
# down to 0. They go back to AutoAugment (Cubuk et al. 2018, arXiv 1805.09501), whose own differ.
OPERATIONS: dict[str, _Kind] = {
    "AutoContrast": _Kind(_no_argument, lambda x, _, fill: photometric.auto_contrast(x)),
    "Equalize": _Kind(_no_argument, lambda x, _, fill: photometric.equalize(x)),
    "Invert": _Kind(_no_argument, lambda x, _, fill: photometric.invert(x)),
    "Rotate": _moving(geometric.rotate, at_full_strength=30.0),
    "Posterize": _Kind(
        lambda strength, sign: 4 - int(4 * strength),
        lambda x, bits, fill: photometric.posterize(x, int(bits)),
    ),
    "Solarize": _Kind(
        lambda strength, sign: 256 - int(256 * strength),
        lambda x, threshold, fill: photometric.solarize(x, int(threshold)),
    ),
    "SolarizeAdd": _Kind(
        lambda strength, sign: int(110 * strength),
        lambda x, addend, fill: photometric.solarize_add(x, int(addend)),
    ),
    "Color": _enhancing(photometric.color),
    "Contrast": _enhancing(photometric.contrast),
    "Brightness": _enhancing(photometric.brightness),
    "Sharpness": _enhancing(photometric.sharpness),
    "ShearX": _moving(geometric.shear_x, at_full_strength=0.3),
    "ShearY": _moving(geometric.shear_y, at_full_strength=0.3),
    "TranslateX": _moving(geometric.translate_x, at_full_strength=0.45),
    "TranslateY": _moving(geometric.translate_y, at_full_strength=0.45),
}
"""The fifteen operations by name; each is drawn with the same probability."""

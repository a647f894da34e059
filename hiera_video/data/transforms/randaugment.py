"""RandAugment as video recipes use it: `rand-m7-mstd0.5-inc1`, the same for all frames of a clip.

Legend: T frames, C colour channels, H height, W width (pixels).
RandAugment is Cubuk et al. 2019 (arXiv 1909.13719): n operations out of a fixed set, with one
magnitude for all. Four things come from timm: the policy string, the noise on the magnitude, the
probability of 0.5, and the 'increasing' set, in which a larger magnitude always means a stronger
change. PySlowFast uses them for video, and Hiera's paper gives "RandAug (7, 0.5)" (arXiv
2306.00989, tables 11 and 12).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hiera_video.data.transforms import geometric, photometric
from hiera_video.utils.errors import UserError

FULL_STRENGTH = 10.0
"""The magnitude of full strength, and the default of a policy's `m` and `mmax` (timm)."""

UNIFORM_ABOVE = 100.0
"""With a standard deviation above this, magnitudes are uniform instead of gaussian (timm)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many operations to draw, how often they are applied, and how strong they are."""

    magnitude: float = FULL_STRENGTH
    """Mean strength, 0..`magnitude_max`."""
    num_operations: int = 2
    """Operations drawn per clip, with repetition."""
    magnitude_std: float = 0.0
    """Standard deviation of the gaussian noise on each operation's magnitude. Above 100, the
    magnitude is uniform in 0..`magnitude` instead."""
    probability: float = 0.5
    """Probability that a drawn operation is applied."""
    magnitude_max: float = FULL_STRENGTH
    """Limit of the magnitude including noise; above 10, operations exceed full strength."""
    increasing: bool = True
    """Whether all operations grow stronger with the magnitude; False: timm's set without inc1."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A drawn operation: its name in `OPERATIONS` and its argument, in the operation's unit."""

    name: str
    argument: float


def parse_policy(text: str) -> Policy:
    """Parse a policy such as "rand-m7-mstd0.5-inc1", as timm and PySlowFast do.

    Parts may come in any order, and each has a default. `m` is the magnitude (0..10; 10), `n` the
    number of operations (2), `p` the probability of each (0.5). `mstd` is the standard deviation
    of the magnitude (0; above 100: uniform), `mmax` the limit of the magnitude (10). `inc1`
    chooses the increasing set. Without it, six operations act as in timm's other set, where some
    become weaker as m grows. timm's weighted sets (`t`, formerly `w`) are refused.

    Raises:
        UserError: names the part that is unknown, out of range or given twice.
    """
    head, *parts = text.split("-")
    if head != "rand":
        raise _policy_error("begin with 'rand'", repr(text))
    values: dict[str, float] = {}
    for part in parts:
        key = part.rstrip("0123456789.")
        if key[:1] in ("t", "w"):
            raise _policy_error("draw all operations alike", f"the set {part!r} in {text!r}")
        if key not in ("m", "n", "p", "mstd", "mmax", "inc"):
            raise _policy_error("be made of m, n, p, mstd, mmax and inc1", f"{part!r} in {text!r}")
        if key in values:
            raise _policy_error(f"give {key} once", f"{part!r} again in {text!r}")
        try:
            values[key] = float(part[len(key) :])
        except ValueError:
            raise _policy_error(f"give {key} a number", f"{part!r} in {text!r}") from None
    _check_ranges(values, text)
    return Policy(
        magnitude=values.get("m", FULL_STRENGTH),
        num_operations=int(values.get("n", 2)),
        magnitude_std=values.get("mstd", 0.0),
        probability=values.get("p", 0.5),
        magnitude_max=values.get("mmax", FULL_STRENGTH),
        increasing="inc" in values,
    )


def _check_ranges(values: dict[str, float], text: str) -> None:
    """Raise a UserError for a part of the policy `text` whose value is out of range."""
    limit = values.get("mmax", FULL_STRENGTH)
    beyond = ", or a larger mmax" if limit == FULL_STRENGTH else ""
    ranges = {
        "mmax": (1.0, 100.0, ""),
        "m": (0.0, limit, beyond),
        "n": (1.0, 100.0, ", a whole number"),
        "p": (0.0, 1.0, ""),
        "inc": (1.0, 1.0, ", the increasing set, or no inc"),
    }
    for key, (low, high, more) in ranges.items():
        value = values.get(key, low)
        if not low <= value <= high or (key == "n" and value != int(value)):
            bounds = f"{low:g}" if low == high else f"{low:g}..{high:g}"
            raise _policy_error(f"have {key} {bounds}{more}", f"'{key}{value:g}' in {text!r}")


def draw_operations(policy: Policy, *, rng: np.random.Generator) -> list[Operation]:
    """Draw the operations for one clip, at most `policy.num_operations`, in order.

    Each of the n operations is drawn uniformly, with repetition, and has its own magnitude and
    sign. It is kept with probability `policy.probability`.
    """
    names = list(OPERATIONS)
    drawn = []
    for index in rng.integers(len(names), size=policy.num_operations):
        applied = rng.random() < policy.probability
        if policy.magnitude_std > UNIFORM_ABOVE:
            magnitude = policy.magnitude * rng.random()
        else:
            magnitude = policy.magnitude + policy.magnitude_std * rng.standard_normal()
        sign = 1 if rng.random() < 0.5 else -1
        if applied:
            drawn.append(operation_at(names[index], policy, magnitude, sign))
    return drawn


def operation_at(name: str, policy: Policy, magnitude: float, sign: int) -> Operation:
    """Return the operation at a magnitude, clipped to the policy's range; `sign` is 1 or -1."""
    kind = OPERATIONS[name]
    strength = min(max(magnitude, 0.0), policy.magnitude_max) / FULL_STRENGTH
    plain = kind.plain_argument_of if not policy.increasing else None
    return Operation(name, (plain or kind.argument_of)(strength, sign))


def apply_operation(
    frames_TCHW: torch.Tensor, operation: Operation, *, fill: Sequence[float]
) -> torch.Tensor:
    """Apply one drawn operation to all frames (uint8 RGB) and return new ones.

    `fill` is the level (0..255) per channel that geometric operations use outside the frame.
    """
    return OPERATIONS[operation.name].apply(frames_TCHW, operation.argument, fill)


def rand_augment(
    frames_TCHW: torch.Tensor, *, policy: Policy, rng: np.random.Generator, fill: Sequence[float]
) -> torch.Tensor:
    """Draw operations from a policy and apply them to all frames alike.

    Takes and returns uint8 RGB [T, 3, H, W]; if no operation is drawn, the frames are unchanged.
    `fill` is that of `apply_operation`, usually the mean colour.
    """
    for operation in draw_operations(policy, rng=rng):
        # Most operations go through the planes one by one. This is a no-op after the first.
        frames_TCHW = apply_operation(frames_TCHW.contiguous(), operation, fill=fill)
    return frames_TCHW


@dataclass(frozen=True, slots=True)
class _Kind:
    """An operation's function, and its argument as a function of strength and sign.

    Full strength is 1. `plain_argument_of` replaces `argument_of` in the set without inc1, if the
    two differ.
    """

    argument_of: Callable[[float, int], float]
    apply: Callable[[torch.Tensor, float, Sequence[float]], torch.Tensor]
    plain_argument_of: Callable[[float, int], float] | None = None


def _policy_error(rule: str, got: str) -> UserError:
    return UserError(f"AUG.AA_TYPE must {rule}, got {got}. Try rand-m7-mstd0.5-inc1.")


def _no_argument(strength: float, sign: int) -> float:
    return 0.0


def _enhancing(function: Callable[[torch.Tensor, float], torch.Tensor]) -> _Kind:
    """Return an operation whose argument is a factor: 1 no change, 0.1 or 1.9 full strength."""
    return _Kind(
        lambda strength, sign: max(1.0 + sign * 0.9 * strength, 0.1),
        lambda frames, factor, fill: function(frames, factor),
        lambda strength, sign: 0.1 + 1.8 * strength,
    )


def _moving(function: Callable[..., torch.Tensor], *, at_full_strength: float) -> _Kind:
    return _Kind(
        lambda strength, sign: sign * strength * at_full_strength,
        lambda frames, amount, fill: function(frames, amount, fill=fill),
    )


# The increasing set, with the ranges of timm 1.0. Geometric: rotation to 30 degrees, shear to 0.3,
# translation to 0.45 of the side. Photometric: solarize thresholds 256 down to 0, solarize-add 0 to
# 110, posterize 4 bits down to 0. They derive from AutoAugment (Cubuk et al. 2018, arXiv
# 1805.09501), whose ranges differ. In the plain set, posterize and solarize run the other way, and
# factors from 0.1 to 1.9.
OPERATIONS: dict[str, _Kind] = {
    "AutoContrast": _Kind(_no_argument, lambda x, _, fill: photometric.auto_contrast(x)),
    "Equalize": _Kind(_no_argument, lambda x, _, fill: photometric.equalize(x)),
    "Invert": _Kind(_no_argument, lambda x, _, fill: photometric.invert(x)),
    "Rotate": _moving(geometric.rotate, at_full_strength=30.0),
    "Posterize": _Kind(
        lambda strength, sign: max(4 - int(4 * strength), 0),
        lambda x, bits, fill: photometric.posterize(x, int(bits)),
        lambda strength, sign: min(int(4 * strength), 8),
    ),
    "Solarize": _Kind(
        lambda strength, sign: max(256 - int(256 * strength), 0),
        lambda x, threshold, fill: photometric.solarize(x, int(threshold)),
        lambda strength, sign: min(int(256 * strength), 256),
    ),
    "SolarizeAdd": _Kind(
        lambda strength, sign: min(int(110 * strength), 128),
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

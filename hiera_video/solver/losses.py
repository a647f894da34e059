"""Losses on logits.

Shape suffixes: B views, K classes.
"""

import torch
import torch.nn.functional as F


def classification_loss(
    logits_BK: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float
) -> torch.Tensor:
    """Return the mean cross-entropy, computed in float32, or in float64 where the logits are.

    `targets` are classes `[B]` int64, or probabilities `[B, K]` as mixup makes them. Smoothing
    (in [0, 1)) moves that share of the target to the uniform distribution (Szegedy et al.,
    arXiv 1512.00567, section 7).
    """
    logits_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
    if targets.is_floating_point():
        targets = targets.to(logits_BK.dtype)
    return F.cross_entropy(logits_BK, targets, label_smoothing=label_smoothing)

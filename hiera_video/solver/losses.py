"""Losses on logits.

Shape suffixes: B views, K classes.
"""

import torch
import torch.nn.functional as F


def classification_loss(
    logits_BK: torch.Tensor, targets: torch.Tensor, *, label_smoothing: float
) -> torch.Tensor:
    """Return the mean cross-entropy, computed in float32.

    `targets` are classes `[B]` int64, or probabilities `[B, K]` as mixup makes them. Smoothing
    (in [0, 1)) moves that share of the target to the uniform distribution (Szegedy et al.,
    arXiv 1512.00567, section 7).
    """
    return F.cross_entropy(logits_BK.float(), targets, label_smoothing=label_smoothing)

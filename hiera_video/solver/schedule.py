"""The learning rate as a function of the (fractional) epoch."""

import math


def cosine_with_warmup(
    epoch: float,
    *,
    base_lr: float,
    end_lr: float,
    warmup_epochs: float,
    warmup_start_lr: float,
    max_epochs: float,
) -> float:
    """Return the learning rate at `epoch`, in [0, max_epochs] and fractional within an epoch.

    A straight line from `warmup_start_lr` to `base_lr` over `warmup_epochs`, then half a cosine
    down to `end_lr` at `max_epochs` (Loshchilov & Hutter, arXiv 1608.03983, without restarts; the
    cosine starts where the warm-up ends, as in MAE, arXiv 2111.06377, appendix A.1).
    """
    if epoch < warmup_epochs:
        return warmup_start_lr + (base_lr - warmup_start_lr) * epoch / warmup_epochs
    progress = min((epoch - warmup_epochs) / max(max_epochs - warmup_epochs, 1e-9), 1.0)
    return end_lr + (base_lr - end_lr) * (1 + math.cos(math.pi * progress)) / 2


def scaled_lr(lr: float, *, effective_batch: int, base_batch: int) -> float:
    """Scale `lr` linearly from steps of `base_batch` clips (0: absolute) to `effective_batch`.

    Source of the rule: Goyal et al., arXiv 1706.02677, section 2.1.
    """
    return lr * effective_batch / base_batch if base_batch else lr

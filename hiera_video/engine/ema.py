"""An average of the weights over the steps of a run, to validate and test with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from hiera_video.engine.parallel.fsdp import share_of


class WeightAverage:
    """The exponential moving average of a model's parameters.

    It begins at the model's weights. After n steps its decay is at most (1 + n) / (10 + n), so
    that the first weights are soon forgotten. Buffers are not averaged.

    Args:
        model: its parameters are averaged, except frozen ones.
        decay: the fraction of the average that a step keeps, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.num_steps = 0
        self._decay = decay
        self._learning = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._average = {
            name: parameter.detach().clone() for name, parameter in self._learning.items()
        }

    @torch.no_grad()
    def restart(self) -> None:
        """Restart the average at the model's current weights."""
        self.num_steps = 0
        for name, parameter in self._learning.items():
            self._average[name].copy_(parameter)

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after an optimizer step to the average."""
        decay = min(self._decay, (1 + self.num_steps) / (10 + self.num_steps))
        self.num_steps += 1
        torch._foreach_lerp_(list(self._average.values()), list(self._learning.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights while the context is open."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._learning.items():
            weights = parameter.clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(weights)

    def shares(self) -> dict[str, torch.Tensor]:
        """Return the averages by the names of their parameters, not copied."""
        return dict(self._average)

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor], num_steps: int) -> None:
        """Load an average over `num_steps` steps from a state dict of the model."""
        self.num_steps = num_steps
        for name, average in self._average.items():
            average.copy_(share_of(average, state[name]))

"""Figures with their errors, and how averages carry them.

Axis legend: d disorder instances; ... any further axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from backends import Estimate


@dataclass(frozen=True, slots=True)
class Measured:
    """Values, their standard errors and bounds on their truncation errors: three tensors of one shape.

    >>> import torch
    >>> Measured(torch.tensor([1.0, 3.0]), torch.tensor([0.3, 0.4]), torch.zeros(2)).mean().stderr.item()
    0.25
    """

    values: Tensor
    stderr: Tensor
    truncation_error: Tensor

    @staticmethod
    def of(estimate: Estimate) -> "Measured":
        """Return what a backend answered."""
        return Measured(estimate.values.detach(), estimate.stderr, estimate.truncation_error)

    @staticmethod
    def joined(parts: "Sequence[Measured]", axis: int = 0) -> "Measured":
        """Return several in a row along an axis that they have."""
        return Measured(*(torch.cat(each, axis) for each in zip(*(part.parts for part in parts), strict=True)))

    @staticmethod
    def stacked(parts: "Sequence[Measured]") -> "Measured":
        """Return several of one shape along a new first axis."""
        return Measured(*(torch.stack(each) for each in zip(*(part.parts for part in parts), strict=True)))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three tensors."""
        return self.values, self.stderr, self.truncation_error

    def arranged(self, arrange: Callable[[Tensor], Tensor]) -> "Measured":
        """Return all three indexed or reshaped alike."""
        return Measured(*(arrange(part) for part in self.parts))

    def mean(self, axis: int = 0) -> "Measured":
        """Return the mean over an axis of independent entries. The error is that of the shots, for these entries."""
        count = self.values.shape[axis]
        stderr = self.stderr.square().sum(axis).sqrt() / count
        return Measured(self.values.mean(axis), stderr, self.truncation_error.mean(axis))

    def ensemble_mean(self) -> "Measured":
        """Return the mean over the first axis (d, ...) as an estimate of the ensemble's: standard error s / sqrt(d).

        The spread s between instances holds the shots' error too. One instance has the shots' error alone.
        """
        count = len(self.values)
        if count == 1:
            return self.arranged(lambda part: part[0])
        return Measured(self.values.mean(0), self.values.std(0) / sqrt(count), self.truncation_error.mean(0))

    def ensemble_spread(self) -> "Measured":
        """Return the standard deviation over the first axis (d, ...), d >= 3, and its jackknife standard error.

        Shots widen it by their own spread. A bias of at most e_k in value k moves it by ``sqrt(sum_k e_k^2 / (d - 1))``
        at most.
        """
        count = len(self.values)
        if count < 3:
            raise ValueError(f"a spread with its error expects at least 3 disorder instances, got {count}; draw more.")
        total, squares = self.values.sum(0), self.values.square().sum(0)
        mean = (total - self.values) / (count - 1)
        variance = (squares - self.values.square()) / (count - 1) - mean.square()
        left_out = (variance.clamp(min=0) * (count - 1) / (count - 2)).sqrt()
        stderr = (left_out - left_out.mean(0)).square().sum(0).mul((count - 1) / count).sqrt()
        bound = (self.truncation_error.square().sum(0) / (count - 1)).sqrt()
        return Measured(self.values.std(0), stderr, bound)

"""Estimates from what was read of truncated states.

Axis legend: b batch, w Pauli words, o observables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.estimate import Estimate
from backends.tensor_network import chain
from backends.tensor_network.evolution import State
from circuits import PauliSum


@dataclass(frozen=True)
class Found:
    """Values (b, ...) in double precision, their states' distance and infidelity (b, ..., 2), and the angles (b, a)."""

    values: Tensor
    errors: Tensor
    angles: Tensor

    @property
    def distance(self) -> Tensor:
        """Bounds on the trace distance to the exact states."""
        return self.errors[..., 0]

    def estimate(self, values: Tensor, truncation_error: Tensor) -> Estimate:
        """Return values with a bound on their error (broadcast to their shape), in the precision of the angles."""
        real = self.angles.dtype
        dtype = real.to_complex() if values.is_complex() else real if values.is_floating_point() else values.dtype
        device = self.angles.device
        infidelity = self.errors[..., 1].reshape(len(values), -1).amax(1)
        return Estimate(
            values.to(device, dtype),
            stderr=torch.zeros(values.shape, dtype=real, device=device),
            truncation_error=truncation_error.expand(values.shape).to(device, real),
            infidelity=infidelity.to(device, real),
        )


def distinct(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows of angles (b, a), and for each sample which of them it is (b,).

    >>> distinct(torch.zeros(3, 0))[1].tolist()
    [0, 0, 0]
    """
    if not angles.shape[1]:  # torch.unique refuses rows without columns
        return angles[:1], torch.zeros(len(angles), dtype=torch.int64)
    return torch.unique(angles, dim=0, return_inverse=True)


class Words:
    """The distinct Pauli words of observables, read from a state once each."""

    def __init__(self, observables: Sequence[PauliSum]) -> None:
        self._words = sorted({word for observable in observables for word, _ in observable.terms})
        rows = [[dict(observable.terms).get(word, 0.0) for observable in observables] for word in self._words]
        self._table = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(observables))

    def read(self, state: State) -> chain.Real:
        """Return the words' expectations (w,)."""
        letters = [{state.sites((wire,))[0]: letter for wire, letter in word} for word in self._words]
        return chain.word_expectations(state.tensors(), letters)

    def estimate(self, found: Found) -> Estimate:
        """Return the observables' values (b, ..., o) with ``2 sum|c| T``, the sum without the identity."""
        uncertain = self._table[[len(word) > 0 for word in self._words]].abs().sum(0)
        return found.estimate(found.values @ self._table, 2 * found.distance[..., None] * uncertain)

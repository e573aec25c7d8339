"""Born probabilities of a circuit as a torch layer.

Axis legend: b batch, i inputs, k wires asked for; ... any leading axes.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from backends.gradients import Gradient
from circuits import Circuit, PauliSum, pauli_word
from qlm.quantum import WEIGHT_SPREAD, QuantumLayer

MAX_WIRES = 10
"""Wires of a distribution: 2**k expectations, all of one measured basis."""


class ProbabilityLayer(QuantumLayer):
    """``p(x) = |<x| U(inputs, w) |0>|^2`` of the wires' basis states, traced over the rest: (..., i) to (..., 2**k).

    From the backend's own probabilities where it is differentiable; elsewhere a Walsh transform of the expectations of
    all Z words, ``p(x) = 2**-k sum_W (-1)**(W.x) <Z_W>``, which one measured basis answers and a gradient rule
    differentiates. Counted shots give relative frequencies, which can be 0. The first wire is the most significant bit
    of x. Raises ValueError for more than 10 wires, and what ``QuantumLayer`` raises. Cost: one circuit per sample,
    O(k 2**k) to transform.

    >>> from circuits.library import angle_encoding
    >>> ProbabilityLayer(angle_encoding(2))(torch.tensor([[0.0, torch.pi / 2]]))
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """

    def __init__(
        self,
        circuit: Circuit,
        backend: str | Backend = "statevector",
        wires: Sequence[int] | None = None,
        gradient: str | Gradient | None = None,
        spread: float = WEIGHT_SPREAD,
    ) -> None:
        chosen = validate.wires(validate.circuit(circuit), wires)
        if len(chosen) > MAX_WIRES:
            raise ValueError(
                f"ProbabilityLayer expects at most {MAX_WIRES} wires, got {len(chosen)}: a distribution has 2**k "
                "entries; ask for fewer."
            )
        self.wires = chosen
        super().__init__(circuit, _z_words(chosen), backend, gradient, spread)

    def _options(self) -> tuple[Any, ...]:
        return self.observables, self.gradient, self.wires

    def _shape(self) -> tuple[int, ...]:
        return (2 ** len(self.wires),)

    @staticmethod
    def _estimate(
        backend: Backend,
        circuit: Circuit,
        options: tuple[Any, ...],
        inputs: Tensor,
        weights: Tensor,
        seed: int | None,
    ) -> Estimate:
        observables, gradient, wires = options
        if gradient is None and backend.capabilities.autograd:
            return backend.probabilities(circuit, inputs, weights, wires=wires, seed=seed)
        words = QuantumLayer._estimate(backend, circuit, (observables, gradient), inputs, weights, seed)
        chances = _walsh(words.values, len(wires))
        stderr = torch.zeros_like(chances)
        if words.shots is not None:
            stderr = (chances.detach() * (1 - chances.detach()) / words.shots).clamp(min=0).sqrt()
        return Estimate(chances, stderr, words.shots)


def _z_words(wires: tuple[int, ...]) -> tuple[PauliSum, ...]:
    """Z words on all non-empty subsets, in the order of the bits of 1 ... 2**k - 1, the first wire most significant."""
    subsets = [subset for size in range(1, len(wires) + 1) for subset in combinations(range(len(wires)), size)]
    subsets.sort(key=lambda subset: sum(1 << (len(wires) - 1 - place) for place in subset))
    return tuple(pauli_word("Z" * len(subset), [wires[place] for place in subset]) for subset in subsets)


def _walsh(words: Tensor, n_wires: int) -> Tensor:
    """Probabilities (..., 2**k) from the expectations (..., 2**k - 1) of the Z words."""
    values = torch.cat((torch.ones_like(words[..., :1]), words), -1)
    for axis in range(n_wires):
        split = values.unflatten(-1, (2**axis, 2, -1))
        even, odd = split.unbind(-2)
        values = torch.stack((even + odd, even - odd), -2).flatten(-3)
    return values / 2**n_wires

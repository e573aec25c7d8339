"""Random circuits with data and observables, and how far our gradients lie from PennyLane's.

Axis legend: b batch, o observables, a angles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from oracles import random_circuit, random_data
from torch import Tensor

from backends import open_backend
from circuits import Circuit, I, Input, Op, PauliSum, Weight, X, Y, Z
from circuits.interop.pennylane_tape import to_observable, to_tape

_LETTERS = (X, Y, Z)
_BATCHES = (1, 2, 3, 5, 7, 16, 33)
_LARGE = (129, 131, 200, 257)
"""More than the 128 samples of a block."""
SPECIAL = (0.0, np.pi, -np.pi, np.pi / 2, -np.pi / 2, 1.5 * np.pi, 2 * np.pi)


@dataclass(frozen=True, eq=False)
class Case:
    """What is asked; inputs (b, i) and weights (w,) are numbers of float32, so that both precisions ask the same."""

    circuit: Circuit
    inputs: Tensor
    weights: Tensor
    observables: tuple[PauliSum, ...]
    cotangent: Tensor


@dataclass(frozen=True)
class Errors:
    """How far we lie from PennyLane in double precision: the largest difference of a value, and the norm of the
    gradients' difference over the larger of the gradient's norm and 1."""

    value: float
    inputs: float
    weights: float

    @property
    def worst(self) -> float:
        return max(self.value, self.inputs, self.weights)


def random_observable(rng: np.random.Generator, n_wires: int) -> PauliSum:
    """A sum of one to four words with random coefficients, and now and then a number."""
    total = float(rng.uniform(-1, 1)) * I() if rng.random() < 0.2 else None
    for _ in range(int(rng.integers(1, 5))):
        wires = rng.permutation(n_wires)[: rng.integers(1, min(n_wires, 4) + 1)]
        word = float(rng.uniform(-1, 1)) * I()
        for wire in wires:
            word = word @ _LETTERS[rng.integers(3)](int(wire))
        total = word if total is None else total + word
    assert total is not None
    return total


def draw(number: int) -> Case:
    """Case ``number``: 1 to 6 wires, 1 to 20 gates as written, every fifth batch larger than a block.

    One case in four has special angles only, where many a gradient vanishes.
    """
    rng = np.random.default_rng((11, number))
    large = number % 5 == 4
    n_wires = int(rng.integers(1, 4 if large else 7))
    circuit = random_circuit(rng, n_wires, int(rng.integers(1, 21)))
    circuit += Circuit(n_wires, (Op("rx", (0,), (Weight(0),)), Op("ry", (n_wires - 1,), (Input(0, scale=0.7),))))
    batch = int(rng.choice(_LARGE if large else _BATCHES))
    inputs, weights = random_data(rng, circuit, batch)
    if number % 4 == 3:
        inputs, weights = rng.choice(SPECIAL, inputs.shape), rng.choice(SPECIAL, weights.shape)
    observables = tuple(random_observable(rng, n_wires) for _ in range(int(rng.integers(1, 5))))
    cotangent = torch.tensor(rng.normal(size=(batch, len(observables))))
    return Case(circuit, as_single(inputs).double(), as_single(weights).double(), observables, cotangent)


def as_single(data: NDArray[np.float64]) -> Tensor:
    return torch.tensor(data, dtype=torch.float32)


def differentiable(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Fresh inputs and weights that record gradients."""
    return case.inputs.to(dtype, copy=True).requires_grad_(), case.weights.to(dtype, copy=True).requires_grad_()


def ours(case: Case, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Values and both gradients, in double whatever they were computed in."""
    leaves = differentiable(case, dtype)
    values = open_backend("statevector").expectations(case.circuit, *leaves, case.observables).values
    assert values.dtype == dtype
    found = torch.autograd.grad(values, leaves, case.cotangent.to(dtype), materialize_grads=True)
    return values.detach().double(), found[0].double(), found[1].double()


def pennylanes(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The same from default.qubit in double precision, by backpropagation."""
    import pennylane as qml

    leaves = differentiable(case, torch.float64)
    tape = to_tape(
        case.circuit,
        case.circuit.angles(*leaves),
        [qml.expval(to_observable(observable)) for observable in case.observables],
    )
    (found,) = qml.execute([tape], qml.device("default.qubit", wires=case.circuit.n_wires), diff_method="backprop")
    rows = [
        torch.as_tensor(row).broadcast_to(len(case.inputs)) for row in (found if isinstance(found, tuple) else (found,))
    ]
    values = torch.stack(rows, 1)
    of_inputs, of_weights = torch.autograd.grad(values, leaves, case.cotangent, materialize_grads=True)
    return values.detach(), of_inputs, of_weights


def errors(case: Case) -> dict[str, Errors]:
    """By name of our precision. A NaN anywhere is an error of NaN, which no bound admits."""
    expected = pennylanes(case)
    return {
        name: _difference(ours(case, dtype), expected)
        for name, dtype in (("double", torch.float64), ("single", torch.float32))
    }


def _difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> Errors:
    value = float((found[0] - expected[0]).abs().max())
    inputs, weights = (
        float((one - other).norm() / other.norm().clamp(min=1))
        for one, other in zip(found[1:], expected[1:], strict=True)
    )
    return Errors(value, inputs, weights)

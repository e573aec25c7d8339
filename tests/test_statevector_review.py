"""What is kept between calls survives torch's modes; transforms of torch.func on the backend itself.

Axis legend: b batch, i inputs, w weights, o observables.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from backends import open_backend
from backends.statevector import executor, narrow
from circuits import Circuit, Op, Reset, X, Y, Z
from circuits.library import angle_encoding, hardware_efficient

BACKEND = open_backend("statevector")
OBSERVABLES = (Z(0), X(1) @ Y(0) + 0.3 * Z(1))


def circuit_of(n_wires: int, resets: bool) -> Circuit:
    middle = (Op("t", (0,)), *(Reset(0) if resets else ()))
    return angle_encoding(n_wires) + Circuit(n_wires, middle) + hardware_efficient(n_wires, 1)


def forget() -> None:
    """Empty the caches of constants."""
    for kept in (narrow._runs, narrow._constant, narrow._constants, executor._signs):
        kept.cache_clear()


def data(circuit: Circuit) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, circuit.n_inputs, generator=drawn, dtype=torch.float64)
    return inputs, torch.randn(circuit.n_weights, generator=drawn, dtype=torch.float64)


def slopes(circuit: Circuit, inputs: Tensor, weights: Tensor) -> list[Tensor]:
    """First and second derivatives of expectations along the circuit."""
    leaves = inputs.clone().requires_grad_(), weights.clone().requires_grad_()
    values = BACKEND.expectations(circuit, *leaves, OBSERVABLES, after=(3, len(circuit.ops))).values
    first = torch.autograd.grad(values.square().sum(), leaves, create_graph=True)
    return [*first, *torch.autograd.grad(torch.cat([part.flatten() for part in first]).sum(), leaves)]


@pytest.mark.parametrize(("n_wires", "resets"), [(2, True), (4, True), (2, False), (7, False)])
@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.device("meta")])
def test_constants_first_made_in_a_special_mode_serve_gradients_later(
    n_wires: int, resets: bool, mode: Callable[[], AbstractContextManager[object]]
) -> None:
    """Evaluated in inference mode, then trained."""
    forget()
    circuit = circuit_of(n_wires, resets)
    inputs, weights = data(circuit)
    expected = slopes(circuit, inputs, weights)
    forget()
    with mode():
        executor.expect_along(circuit, circuit.angles(inputs, weights), OBSERVABLES, (3, len(circuit.ops)))
    for found, right in zip(slopes(circuit, inputs, weights), expected, strict=True):
        assert torch.equal(found, right)

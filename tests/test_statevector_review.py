"""What is kept between calls survives torch's modes; transforms of torch.func on the backend itself.

Axis legend: b batch, i inputs, w weights, o observables.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from backends import open_backend
from backends.statevector import executor, narrow
from circuits import Circuit, Op, Reset, X, Y, Z
from circuits.library import angle_encoding, hardware_efficient
from qlm.quantum import QuantumLayer

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


@pytest.mark.parametrize(("n_wires", "resets"), [(2, True), (4, True), (7, False)])
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


def questions(circuit: Circuit) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What can be asked of the backend, from inputs (b, i) and weights (w,) to real numbers (b, ...)."""
    half = (0, 1)
    return {
        "expectations": lambda x, w: BACKEND.expectations(circuit, x, w, OBSERVABLES).values,
        "along": lambda x, w: BACKEND.expectations(circuit, x, w, OBSERVABLES, after=(2, len(circuit.ops))).values,
        "probabilities": lambda x, w: BACKEND.probabilities(circuit, x, w, half).values,
        "density": lambda x, w: torch.view_as_real(BACKEND.density(circuit, x, w, half).values),
        "von Neumann": lambda x, w: BACKEND.entropy(circuit, x, w, (0,)).values,
        "renyi2": lambda x, w: BACKEND.entropy(circuit, x, w, (0,), "renyi2").values,
    }


@pytest.mark.parametrize(("n_wires", "resets"), [(3, True), (3, False), (7, False), (14, False)])
def test_transforms_of_the_backend_itself_equal_loops(n_wires: int, resets: bool) -> None:
    circuit = circuit_of(n_wires, resets)
    inputs, weights = data(circuit)
    asked = questions(circuit)
    for name in asked if n_wires == 7 else ("along", "density"):
        ask = asked[name]
        mapped = torch.vmap(lambda row, ask=ask: ask(row[None], weights)[0])(inputs)
        torch.testing.assert_close(mapped, ask(inputs, weights), msg=name)
        mapped = torch.vmap(lambda row, ask=ask: ask(inputs, row))(torch.stack((weights, -weights)))
        torch.testing.assert_close(mapped[1], ask(inputs, -weights), msg=name)
        each = torch.vmap(torch.func.grad(lambda w, row, ask=ask: ask(row[None], w).square().sum()), (None, 0))
        leaf = weights.clone().requires_grad_()
        (whole,) = torch.autograd.grad(ask(inputs, leaf).square().sum(), leaf)
        torch.testing.assert_close(each(weights, inputs).sum(0), whole, msg=name)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, of its forward mode
def test_numbers_under_a_transform_are_checked_and_forward_mode_is_refused_with_a_remedy() -> None:
    circuit = circuit_of(7, False)
    inputs, weights = data(circuit)
    ask = questions(circuit)["expectations"]
    spoilt = inputs.clone()
    spoilt[2, 1] = float("nan")
    with pytest.raises(ValueError, match="inputs expect finite angles in radians, got nan"):
        torch.vmap(lambda row: ask(row[None], weights)[0])(spoilt)
    layer = QuantumLayer(circuit, OBSERVABLES)
    for function, given in ((lambda w: ask(inputs, w), weights), (layer, inputs.float())):
        with (
            forward_ad.dual_level(),
            pytest.raises(NotImplementedError, match=r"got forward mode; use torch\.func\.jacrev"),
        ):
            function(forward_ad.make_dual(given, torch.ones_like(given)))

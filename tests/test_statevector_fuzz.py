"""The state-vector backend on random circuits: PennyLane's gradients, odd data, special angles, any number of threads.

`python -m benchmarks.correctness` runs more circuits and prints the worst errors.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from fuzz_cases import SPECIAL, Case, as_single, draw, errors, ours
from oracles import random_circuit, random_data
from torch import Tensor

from backends import open_backend
from circuits import GATES, Circuit, Input, Op, Weight, X, Z
from classical_kernels.threads import thread_count

BACKEND = open_backend("statevector")
N_CIRCUITS, PART = 200, 25
BOUNDS = {"double": 1e-10, "single": 1e-5}


@pytest.mark.parametrize("first", range(0, N_CIRCUITS, PART))
def test_values_and_gradients_are_pennylane_s(first: int) -> None:
    pytest.importorskip("pennylane", reason="the extra pennylane is not installed")
    for number in range(first, first + PART):
        for precision, found in errors(draw(number)).items():
            assert max(found.value, found.inputs, found.weights) <= BOUNDS[precision], (number, precision, found)
            assert not math.isnan(found.value + found.inputs + found.weights), (number, precision)


def test_what_is_drawn_holds_every_gate_and_size() -> None:
    cases = [draw(number) for number in range(N_CIRCUITS)]
    assert {op.name for case in cases for op in case.circuit.ops} == set(GATES)
    batches = {len(case.inputs) for case in cases}
    assert {1, 2, 3} <= batches
    assert sum(batch > 128 for batch in batches) >= 3
    assert {case.circuit.n_wires for case in cases} == set(range(1, 7))
    assert any(len(set(case.circuit.slots)) < len(case.circuit.slots) for case in cases)


def wide_case(number: int, batch: int, n_wires: int = 6) -> Case:
    """More work than one thread is given."""
    rng = np.random.default_rng((13, number))
    circuit = random_circuit(rng, n_wires, 25)
    circuit += Circuit(n_wires, (Op("rx", (0,), (Weight(0),)), Op("ry", (1,), (Input(0),))))
    inputs, weights = (as_single(found) for found in random_data(rng, circuit, batch))
    cotangent = torch.tensor(rng.normal(size=(batch, 2)))
    return Case(circuit, inputs, weights, (Z(0), 0.7 * X(1) @ Z(5) - Z(2)), cotangent)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_the_number_of_threads_changes_rounding_only(
    number: int, dtype: torch.dtype, bound: float, set_threads: Callable[[int], None]
) -> None:
    case, found = wide_case(number, 701), []
    for n_threads in (1, 2):
        set_threads(n_threads)
        assert thread_count(len(case.inputs) * len(case.circuit.ops) << 6) == n_threads
        found.append(ours(case, dtype))
    for one, two in zip(*found, strict=True):
        assert float((one - two).norm()) <= bound * float(one.norm())


def layouts(data: Tensor) -> dict[str, Tensor]:
    """The same numbers in memory of other orders: (b, i) with gaps, transposed, from the end, from an odd offset."""
    rows, columns = data.shape
    gaps = data.new_full((2 * rows, 3 * columns), math.nan)
    gaps[::2, ::3] = data
    shifted = data.new_full((rows * columns + 1,), math.nan)
    shifted[1:] = data.flatten()
    return {
        "gaps": gaps[::2, ::3],
        "transposed": data.T.contiguous().T,
        "narrowed": torch.cat((data, data + 1), 1)[:, :columns],
        "offset": shifted[1:].reshape(rows, columns),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [0, 1, 4, 9])
def test_layouts_in_memory_change_nothing(number: int, dtype: torch.dtype) -> None:
    case = draw(number)
    expected = ours(case, dtype)
    inputs, weights = case.inputs.to(dtype), case.weights.to(dtype)
    spread = weights.new_full((2 * len(weights),), math.nan)
    spread[::2] = weights
    by_column = case.cotangent.to(dtype).T.contiguous().T
    for name, given in layouts(inputs).items():
        leaves = given.requires_grad_(), spread[::2].requires_grad_()
        values = BACKEND.expectations(case.circuit, *leaves, case.observables).values
        found = values, *torch.autograd.grad(values, leaves, by_column, materialize_grads=True)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.double(), other), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", range(6))
def test_an_empty_batch_has_empty_values_and_gradients_of_zero(number: int, dtype: torch.dtype) -> None:
    case = draw(number)
    inputs = case.inputs[:0].to(dtype).requires_grad_()
    weights = case.weights.to(dtype).requires_grad_()
    values = BACKEND.expectations(case.circuit, inputs, weights, case.observables).values
    assert (values.shape, values.dtype) == ((0, len(case.observables)), dtype)
    of_inputs, of_weights = torch.autograd.grad(values.sum(), (inputs, weights), materialize_grads=True)
    assert of_inputs.shape == inputs.shape
    assert torch.equal(of_weights, torch.zeros_like(weights))


def questions(circuit: Circuit, inputs: Tensor, weights: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every differentiable result, real and imaginary parts alike, to be asked for by a call."""
    given = circuit, inputs, weights
    half = tuple(range((circuit.n_wires + 1) // 2))
    observables = (Z(0), X(0) + 0.3 * Z(1) @ X(0))
    pair = {"inputs_b": inputs, "weights_a": weights, "weights_b": weights}
    return {
        "expectations": lambda: BACKEND.expectations(*given, observables).values,
        "probabilities": lambda: BACKEND.probabilities(*given, half).values,
        "state": lambda: torch.view_as_real(BACKEND.state(*given).values),
        "density": lambda: torch.view_as_real(BACKEND.density(*given, half).values),
        "von Neumann": lambda: BACKEND.entropy(*given, half).values,
        "renyi2": lambda: BACKEND.entropy(*given, half, "renyi2").values,
        "fidelity": lambda: BACKEND.fidelity(circuit, inputs, gram=True, **pair).values,  # pyright: ignore[reportArgumentType] -- named
    }


def product_circuit(rng: np.random.Generator, n_wires: int) -> Circuit:
    """Gates on one wire only: whatever the angles, nothing is entangled."""
    names = [name for name, gate in GATES.items() if gate.n_wires == 1]
    ops = [Op("ry", (wire,), (Input(wire % 2),)) for wire in range(n_wires)]
    for _ in range(12):
        name, wire = names[rng.integers(len(names))], int(rng.integers(n_wires))
        ops.append(Op(name, (wire,), (Weight(int(rng.integers(3))),) * GATES[name].n_angles))
    return Circuit(n_wires, tuple(ops))


@pytest.mark.parametrize("kind", ["entangling", "product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_is_nan_at_special_angles(kind: str, dtype: torch.dtype) -> None:
    for number in range(14):
        rng = np.random.default_rng((17, number))
        circuit = random_circuit(rng, 3, 10) if kind == "entangling" else product_circuit(rng, 3)
        circuit += Circuit(3, (Op("rx", (0,), (Weight(0),)), Op("ry", (1,), (Input(0),))))
        inputs = torch.tensor(rng.choice(SPECIAL, (4, circuit.n_inputs)), dtype=dtype)
        weights = torch.tensor(rng.choice(SPECIAL, circuit.n_weights), dtype=dtype)
        inputs[0], weights[:] = SPECIAL[number % 7], weights if number >= 7 else SPECIAL[number % 7]
        leaves = inputs.requires_grad_(), weights.requires_grad_()
        for name, ask in questions(circuit, *leaves).items():
            values = ask()
            assert bool(torch.isfinite(values).all()), (number, name)
            cotangent = torch.linspace(-1, 2, values.numel(), dtype=dtype).reshape(values.shape)
            for gradient in torch.autograd.grad(values, leaves, cotangent, materialize_grads=True):
                assert bool(torch.isfinite(gradient).all()), (number, name)
            if kind == "product" and name in ("von Neumann", "renyi2"):
                assert float(values.detach().abs().max()) < 2e-5, (number, name)


def leave_nans_behind() -> None:
    """Free memory full of NaN: of each small size that malloc keeps apart, and of powers of two. torch's, since numpy
    keeps small pieces for itself."""
    sizes = [*range(8, 600, 4), *(2**k for k in range(10, 19))]
    pieces = [torch.full((size,), math.nan) for size in sizes for _ in range(8)]
    del pieces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [5, 300])
def test_what_others_left_in_memory_is_not_read(dtype: torch.dtype, batch: int) -> None:
    for number in range(6):
        rng = np.random.default_rng((19, number))
        circuit = random_circuit(rng, 4, 12) + Circuit(4, (Op("rx", (0,), (Weight(0),)), Op("ry", (1,), (Input(0),))))
        inputs, weights = (torch.tensor(data, dtype=dtype) for data in random_data(rng, circuit, batch))
        leaves = inputs.requires_grad_(), weights.requires_grad_()
        for name, ask in questions(circuit, *leaves).items():
            leave_nans_behind()
            values = ask()
            assert bool(torch.isfinite(values).all()), (number, name)
            leave_nans_behind()
            for gradient in torch.autograd.grad(values.sum(), leaves, materialize_grads=True):
                assert bool(torch.isfinite(gradient).all()), (number, name)

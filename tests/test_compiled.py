"""The compiled executor against the one in torch, and that against matrices elsewhere; what lowering shares and moves.

Axis legend: b batch, a angles, o observables, N amplitudes.
"""

import math
import os
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import open_backend
from backends.statevector import compiled, executor
from backends.statevector.lowering import lower, lower_observed
from backends.statevector.program import MATRIX, PERMUTE, ROTATE, WORD
from backends.statevector.structure import structure
from backends.statevector.words import words_of
from circuits import GATES, Circuit, Input, Op, PauliSum, Product, Weight, X, Y, Z
from circuits.library import angle_encoding, hardware_efficient, reuploading

N_CIRCUITS = 120


def case(number: int) -> tuple[Circuit, Tensor, Tensor, tuple[PauliSum, ...]]:
    """A random circuit of 1 to 7 wires with an input and a weight at least, its data, and observables of all kinds."""
    rng = np.random.default_rng((7, number))
    n_wires = int(rng.integers(1, 8))
    circuit = random_circuit(rng, n_wires, int(rng.integers(1, 20)))
    circuit += Circuit(n_wires, (Op("rx", (0,), (Weight(0),)), Op("ry", (n_wires - 1,), (Input(0, scale=0.7),))))
    drawn = random_data(rng, circuit, int(rng.integers(1, 6)))
    first, last = (int(wire) for wire in rng.permutation(n_wires)[[0, -1]])
    observables = (Z(first), 0.5 * Z(first) - Y(last) + 0.3 * X(last))
    if n_wires > 1:
        observables += (X(first) @ Y(last), Z(first) @ Z(last))
    inputs, weights = (torch.tensor(data, dtype=torch.float64, requires_grad=True) for data in drawn)
    return circuit, inputs, weights, observables


def slopes(values: Tensor, of: tuple[Tensor, ...], seed: int = 0) -> Tensor:
    """The gradient of a random combination of the values, real and imaginary parts alike."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    generator = torch.Generator().manual_seed(seed)
    loss = (parts * torch.randn(parts.shape, generator=generator, dtype=torch.float64).to(parts)).sum()
    found = torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


@pytest.mark.parametrize("first", range(0, N_CIRCUITS, 40))
def test_random_circuits_and_their_gradients_are_torch_s(first: int) -> None:
    for number in range(first, first + 40):
        circuit, inputs, weights, observables = case(number)
        data, angles = (inputs, weights), circuit.angles(inputs, weights)
        vectors = executor.run(circuit, angles)
        times = (0, len(circuit.ops) // 2, len(circuit.ops))
        for found, expected in (
            (compiled.expectations(circuit, angles, observables), executor.expect(circuit, vectors, observables)),
            (compiled.states(circuit, angles), vectors.T),
            (
                compiled.expectations_along(circuit, angles, observables, times),
                executor.expect_along(circuit, angles, observables, times),
            ),
        ):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
            torch.testing.assert_close(slopes(found, data), slopes(expected, data), atol=1e-10, rtol=0)


@pytest.mark.parametrize("number", range(8))
def test_single_precision_is_near_double(number: int) -> None:
    circuit, inputs, weights, observables = case(number)
    single = inputs.detach().float().requires_grad_(), weights.detach().float().requires_grad_()
    found = compiled.expectations(circuit, circuit.angles(*single), observables)
    assert found.dtype == torch.float32
    expected = compiled.expectations(circuit, circuit.angles(inputs, weights), observables)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    near, exact = slopes(found, single).double(), slopes(expected, (inputs, weights))
    assert float((near - exact).norm()) < 1e-5 * max(1.0, float(exact.norm()))


@pytest.mark.parametrize("batch", [1, 2, 127, 128, 129, 300])
def test_batches_that_fill_blocks_and_that_do_not(batch: int) -> None:
    circuit, observables = reuploading(3, 2), (Z(0), X(1) @ Z(2))  # on 3 wires: blocks of 128
    inputs = torch.randn(batch, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(circuit.n_weights, dtype=torch.float64, requires_grad=True)
    whole = compiled.expectations(circuit, circuit.angles(inputs, weights), observables)
    torch.testing.assert_close(whole, torch.cat([row_alone(circuit, row, weights, observables) for row in inputs]))
    expected = executor.expect(circuit, executor.run(circuit, circuit.angles(inputs, weights)), observables)
    torch.testing.assert_close(
        slopes(whole, (inputs, weights)), slopes(expected, (inputs, weights)), atol=1e-10, rtol=0
    )


def row_alone(circuit: Circuit, row: Tensor, weights: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    return compiled.expectations(circuit, circuit.angles(row[None], weights), observables)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    circuit = reuploading(6, 3)
    inputs = torch.randn(700, 6, requires_grad=True)
    weights = torch.randn(circuit.n_weights, requires_grad=True)
    found, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            values = compiled.expectations(circuit, circuit.angles(inputs, weights), (Z(0), X(5)))
            found.append((values, slopes(values, (inputs, weights))))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1][: inputs.numel()], found[1][1][: inputs.numel()])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-4)  # torch sums the batch its own way


@pytest.mark.parametrize("angle", [0.0, math.pi / 2, math.pi, -math.pi, 2 * math.pi])
def test_special_angles_have_finite_gradients(angle: float) -> None:
    circuit = reuploading(3, 2)
    inputs = torch.full((2, 3), angle, requires_grad=True)
    weights = torch.full((circuit.n_weights,), angle, requires_grad=True)
    backend = open_backend("statevector")
    for values in (
        backend.expectations(circuit, inputs, weights, (Z(0), X(1) @ Z(2))).values,
        backend.probabilities(circuit, inputs, weights).values,
        backend.entropy(circuit, inputs, weights, wires=(0,)).values,
    ):
        assert bool(torch.isfinite(slopes(values, (inputs, weights))).all())


def test_a_gradient_can_be_differentiated_again() -> None:
    circuit = reuploading(2, 2)
    inputs, weights = torch.randn(2, 2).double(), torch.randn(circuit.n_weights).double()

    def values(inputs: Tensor, weights: Tensor) -> Tensor:
        return open_backend("statevector").expectations(circuit, inputs, weights, (Z(0), X(1))).values

    leaves = (inputs.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(values, leaves)
    assert torch.autograd.gradgradcheck(values, leaves)


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_inputs_of_any_layout(layout: str) -> None:
    circuit, weights = reuploading(3, 1), torch.linspace(-1, 1, 9)
    base = torch.randn(6, 6)
    inputs = {"transposed": base.T[:, :3], "strided": base[::2, ::2], "expanded": base[:1, :3].expand(4, 3)}[layout]
    backend = open_backend("statevector")
    found = backend.expectations(circuit, inputs, weights, (Z(0), Z(1))).values
    assert torch.equal(found, backend.expectations(circuit, inputs.contiguous(), weights, (Z(0), Z(1))).values)


def test_circuits_that_differ_in_numbers_share_a_program() -> None:
    programs = set()
    for number in range(50):
        ops = (Op("rx", (0,), (0.1 * number,)), Op("cx", (0, 1)), Op("ry", (1,), (Input(0, scale=1.0 + number),)))
        programs.add(id(lower(structure(Circuit(2, ops))[0])))
    assert len(programs) == 1
    assert id(lower(structure(Circuit(2, (Op("ry", (0,), (0.1,)),)))[0])) not in programs


def test_lowering_fuses_layers_and_moves_the_last_ring_onto_the_observables() -> None:
    circuit = angle_encoding(4) + hardware_efficient(4, 3)
    given = structure(circuit)[0]
    instructions = [int(row[0]) for row in lower_observed(given, frozenset(range(4)), True).code]
    assert [instructions.count(kind) for kind in (ROTATE, MATRIX, PERMUTE, WORD)] == [8, 0, 2, 0]
    assert [name for name, _ in lower_observed(given, frozenset(range(4)), True).sweep] == ["cx"] * 4
    assert [int(row[0]) for row in lower(given).code].count(PERMUTE) == 3


def test_what_cannot_reach_an_observable_is_left_out() -> None:
    circuit = Circuit(3, (Op("rx", (0,), (Input(0),)), Op("rxx", (1, 2), (Input(1),)), Op("ry", (2,), (Input(2),))))
    program = lower_observed(structure(circuit)[0], frozenset((0,)), True)
    assert not (program.code[:, 0] == WORD).any()
    assert program.start[:, 3].tolist() == [0]  # the one wire that has a matrix


@pytest.mark.parametrize("name", ["cx", "cz", "swap", "x", "z"])
def test_words_are_pulled_back_through_every_gate_that_moves_them(name: str) -> None:
    wires = (0, 2) if GATES[name].n_wires == 2 else (1,)
    letters = {"X": X, "Y": Y, "Z": Z}
    prepare = Circuit(3, tuple(Op("ry", (wire,), (0.3 + wire,)) for wire in range(3))) + hardware_efficient(3, 1)
    data = torch.zeros(1, 0).double(), torch.linspace(-2, 2, prepare.n_weights).double()
    for first in "XYZ":
        for second in "XYZ":
            word = letters[first](wires[0]) @ letters[second](1 if wires[0] != 1 else 2)
            behind = prepare + Circuit(3, (Op(name, wires),))
            expected = executor.expect(behind, executor.run(behind, behind.angles(*data)), (word,))
            before = words_of((word,), 3, ((name, wires),))
            found = executor.expect(prepare, executor.run(prepare, prepare.angles(*data)), (as_sum(before.masks[0]),))
            torch.testing.assert_close(found * before.table[0, 0], expected, atol=1e-12, rtol=0)


def as_sum(masks: np.ndarray, n_wires: int = 3) -> PauliSum:
    x, z, _ = (int(mask) for mask in masks)
    product: PauliSum | None = None
    for wire in range(n_wires):
        bit = 1 << (n_wires - 1 - wire)
        for pauli, here in ((X, x & bit and not z & bit), (Y, x & bit and z & bit), (Z, z & bit and not x & bit)):
            if here:
                product = pauli(wire) if product is None else product @ pauli(wire)
    assert product is not None
    return product


@pytest.mark.parametrize("after", [(0,), (1,), (0, 1)])
def test_a_result_without_any_angle_has_second_derivatives_of_zero(after: tuple[int, ...]) -> None:
    circuit, inputs = Circuit(1, (Op("h", (0,)), Op("rx", (0,), (Input(0),)))), torch.ones(2, 1, requires_grad=True)
    values = open_backend("statevector").expectations(circuit, inputs, None, (Z(0),), after=after).values
    (first,) = torch.autograd.grad(values.sum(), inputs, create_graph=True)
    assert torch.equal(first, torch.zeros_like(inputs))


def test_equal_rings_share_a_table_and_single_gates_need_none() -> None:
    layered = hardware_efficient(4, 5)
    assert len(lower(structure(layered)[0]).sources) == 1
    assert len(lower(structure(hardware_efficient(4, 5, "cz-chain"))[0]).sources) == 1
    lone = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)), Op("ry", (1,), (Weight(0),)), Op("cz", (1, 0))))
    assert len(lower(structure(lone)[0]).sources) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_circuits() -> None:
    circuit, inputs = reuploading(5, 2), torch.linspace(-2, 2, 1000).reshape(200, 5)
    weights = torch.linspace(-1, 1, circuit.n_weights)
    before = open_backend("statevector").expectations(circuit, inputs, weights, (Z(0),)).values
    with get_context("fork").Pool(1) as pool:
        again = pool.apply_async(_expectations, (circuit, inputs.numpy(), weights.numpy())).get(timeout=120)
    assert torch.equal(torch.from_numpy(again), before)


def _expectations(circuit: Circuit, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    data = torch.from_numpy(inputs), torch.from_numpy(weights)
    return open_backend("statevector").expectations(circuit, *data, (Z(0),)).values.numpy()


def test_equal_slots_of_samples_are_one_angle() -> None:
    ops = (
        Op("rx", (0,), (Input(0),)),
        Op("h", (0,)),
        Op("rx", (0,), (Input(0),)),
        Op("rz", (0,), (Input(0, scale=2.0),)),
    )
    _, shared, lanes = structure(Circuit(1, (*ops, Op("ry", (0,), (Product(Weight(0), 2.0),)))))
    assert (shared, lanes) == ((3,), (0, 2))

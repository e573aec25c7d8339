"""Single large circuits, compiled: against the torch executor at small sizes with tiny chunks, and as they run at 18.

Nine wires and five row bits are the least that a pass can move: four bits of a row, four that it transposes, one more.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends.statevector import Statevector, executor, wide
from backends.statevector.backend import draw
from backends.statevector.wide_lowering import lower_observed
from circuits import GATES, Circuit, Input, Op, PauliSum, Weight, X, Y, Z
from circuits.library import reuploading

OBSERVABLES = (Z(0), Z(1) @ Z(5) @ Z(8), 0.3 * X(0) @ Y(3) - 0.7 * Z(2), Y(7), X(8) @ X(4))
ROW_BITS = 5


def random_circuit(n_wires: int, n_ops: int, seed: int) -> Circuit:
    """Every gate with the same chance, on random wires, at inputs (two of them), weights, and numbers."""
    draw = np.random.default_rng(seed)
    names, ops, n_weights = list(GATES), [], 0
    for _ in range(n_ops):
        gate = GATES[names[draw.integers(len(names))]]
        wires = tuple(int(wire) for wire in draw.choice(n_wires, gate.n_wires, replace=False))
        slots: tuple[Input | Weight | float, ...] = ()
        if gate.n_angles:
            choice = draw.integers(4)
            slots = (Input(int(draw.integers(2))) if choice == 0 else Weight(n_weights) if choice < 3 else 0.7,)
            n_weights += choice in (1, 2)
        ops.append(Op(gate.name, wires, slots))
    return Circuit(n_wires, (*ops, Op("rx", (0,), (Input(1),)), Op("ry", (1,), (Weight(n_weights),))))


def numbers(circuit: Circuit, batch: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = 3 * torch.randn(batch, circuit.n_inputs, dtype=torch.float64, generator=generator)
    weights = 3 * torch.randn(circuit.n_weights, dtype=torch.float64, generator=generator)
    return inputs.to(dtype).requires_grad_(), weights.to(dtype).requires_grad_()


def agree(mine: Tensor, theirs: Tensor, leaves: tuple[Tensor, ...], bound: float) -> None:
    """Values, and gradients for a random cotangent."""
    torch.testing.assert_close(mine, theirs, rtol=bound, atol=bound)
    cotangent = torch.randn(mine.shape, dtype=mine.dtype, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad(mine, leaves, cotangent, retain_graph=True)
    expected = torch.autograd.grad(theirs, leaves, cotangent, retain_graph=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)


@settings(max_examples=25, deadline=None)
@given(n_wires=st.integers(9, 11), n_ops=st.integers(0, 90), batch=st.integers(1, 2), seed=st.integers(0, 2**32 - 1))
def test_random_circuits_of_all_gates(n_wires: int, n_ops: int, batch: int, seed: int) -> None:
    circuit = random_circuit(n_wires, n_ops, seed)
    leaves = numbers(circuit, batch, torch.float64, seed)
    angles = circuit.angles(*leaves)
    vectors = executor.run(circuit, angles)
    row_bits = ROW_BITS + seed % (n_wires - 8)  # up to a single chunk
    mine = wide.expectations(circuit, angles, OBSERVABLES, row_bits)
    agree(mine, executor.expect(circuit, vectors, OBSERVABLES), leaves, 1e-10)
    agree(wide.states(circuit, angles, row_bits), vectors.T, leaves, 1e-10)


@pytest.mark.parametrize("name", sorted(GATES))
def test_each_gate_on_low_and_high_wires(name: str) -> None:
    """Row bits, lane bits and bits of the chunk's number, as target and as control."""
    gate = GATES[name]
    spread = tuple(Op("ry", (wire,), (Weight(wire),)) for wire in range(9))
    places = [(a, b)[: gate.n_wires] for a, b in ((0, 8), (8, 0), (3, 4), (6, 7), (7, 5), (1, 2))]
    slots = (Weight(9),) if gate.n_angles else ()
    rings = tuple(Op("cx", (wire, (wire + 1) % 9)) for wire in range(9))
    circuit = Circuit(9, (*spread, *rings, *(Op(name, wires, slots) for wires in places), *rings, *spread))
    leaves = numbers(circuit, 1, torch.float64, 1)[1:]
    angles = circuit.angles(torch.zeros(1, 0, dtype=torch.float64), *leaves)
    agree(wide.states(circuit, angles, ROW_BITS), executor.run(circuit, angles).T, leaves, 1e-10)


def test_along_the_circuit() -> None:
    circuit = random_circuit(10, 60, 3)
    leaves = numbers(circuit, 2, torch.float64, 3)
    angles, times = circuit.angles(*leaves), (0, 1, 20, 20, 45, 62)
    mine = wide.expectations_along(circuit, angles, OBSERVABLES, times, ROW_BITS)
    agree(mine, executor.expect_along(circuit, angles, OBSERVABLES, times), leaves, 1e-10)


def test_single_precision() -> None:
    circuit = random_circuit(10, 80, 5)
    leaves = numbers(circuit, 2, torch.float32, 5)
    angles = circuit.angles(*leaves)
    mine = wide.expectations(circuit, angles, OBSERVABLES, ROW_BITS)
    assert mine.dtype == torch.float32
    agree(mine, executor.expect(circuit, executor.run(circuit, angles), OBSERVABLES), leaves, 1e-5)


def test_second_derivatives_and_gradients_taken_twice() -> None:
    circuit = random_circuit(9, 40, 7)
    inputs, weights = numbers(circuit, 1, torch.float64, 7)
    angles = circuit.angles(inputs, weights)
    mine = wide.expectations(circuit, angles, OBSERVABLES, ROW_BITS)[0, 0]
    first = torch.autograd.grad(mine, weights, retain_graph=True)[0]
    again = torch.autograd.grad(mine, weights, retain_graph=True)[0]
    torch.testing.assert_close(first, again, rtol=1e-12, atol=1e-12)  # the first one uncomputed the state
    theirs = executor.expect(circuit, executor.run(circuit, angles), OBSERVABLES)[0, 0]
    rows = []
    for value in (mine, theirs):
        slope = torch.autograd.grad(value, weights, create_graph=True)[0].sum()
        rows.append(torch.autograd.grad(slope, weights, retain_graph=True)[0])
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-10, atol=1e-10)


def test_what_cannot_influence_the_observable_is_left_out() -> None:
    """Nine of ten wires are rotated in vain: their angles have no slope, and no pass runs them."""
    rotations = tuple(Op("ry", (wire,), (Weight(wire),)) for wire in range(10))
    circuit = Circuit(10, (*rotations, Op("cx", (0, 1)), *(op for op in rotations for _ in range(2))))
    ops = tuple((op.name, op.wires) for op in circuit.ops)
    program = lower_observed(10, ops, (len(ops),), frozenset((4,)), ROW_BITS)
    assert [len(passed.code) for passed in program.stretches[0]] == [0]  # a product state
    (weights,) = numbers(circuit, 1, torch.float64, 2)[1:]
    angles = circuit.angles(torch.zeros(1, 0, dtype=torch.float64), weights)
    values = wide.expectations(circuit, angles, (Z(4),), ROW_BITS)
    torch.testing.assert_close(values[0, 0], torch.cos(3 * weights[4]))
    slopes = torch.zeros(10, dtype=torch.float64)
    slopes[4] = -3 * torch.sin(3 * weights.detach()[4])
    torch.testing.assert_close(torch.autograd.grad(values.sum(), weights)[0], slopes)


def test_circuits_with_hardly_anything_in_them() -> None:
    angles = torch.zeros(1, 0)
    assert wide.expectations(Circuit(14), angles, (Z(3), X(0) @ X(13))).tolist() == [[1.0, 0.0]]
    state = wide.states(Circuit(14, (Op("x", (0,)), Op("swap", (0, 13)))), angles)
    assert state[0, 1] == 1
    assert state.abs().sum() == 1


def test_results_do_not_depend_on_threads() -> None:
    circuit = random_circuit(16, 60, 11)
    leaves = numbers(circuit, 1, torch.float64, 11)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            values = wide.expectations(circuit, circuit.angles(*leaves), OBSERVABLES, 6)
            found.append((values.detach(), *torch.autograd.grad(values.sum(), leaves)))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.equal(one, other)


def test_eighteen_wires_through_the_backend() -> None:
    """A ring of CNOTs permutes basis states; one layer of RY has expectations in closed form."""
    backend, n_wires = Statevector(), 18
    circuit = reuploading(n_wires, 2)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, n_wires, dtype=torch.float64, generator=generator)
    weights = torch.randn(circuit.n_weights, dtype=torch.float64, generator=generator).requires_grad_()
    observables: tuple[PauliSum, ...] = (*(Z(wire) for wire in range(n_wires)), X(0) @ Y(17))
    values = backend.expectations(circuit, inputs, weights, observables).values
    vectors = executor.run(circuit, circuit.angles(inputs, weights))
    agree(values, executor.expect(circuit, vectors, observables), (weights,), 1e-10)
    state = backend.state(circuit, inputs, weights).values
    torch.testing.assert_close(state, vectors.T, rtol=1e-10, atol=1e-10)
    chances = backend.probabilities(circuit, inputs, weights, wires=(17, 0)).values.detach()
    torch.testing.assert_close(chances[0, 2] + chances[0, 3], (1 - values[0, 17].detach()) / 2)
    density = backend.density(circuit, inputs, weights, wires=(0,)).values.detach()
    torch.testing.assert_close((density[0, 0, 0] - density[0, 1, 1]).real, values[0, 0].detach())
    bits = backend.samples(circuit, inputs, weights, wires=(0,), shots=4000, seed=1).values.double()
    assert abs(float(1 - 2 * bits.mean() - values[0, 0].detach())) < 5 / 4000**0.5
    along = backend.expectations(circuit, inputs, weights, (Z(0),), after=(0, len(circuit.ops))).values.detach()
    torch.testing.assert_close(along[0, :, 0], torch.stack((torch.ones_like(values[0, 0]), values[0, 0])).detach())


def test_more_outcomes_than_torch_draws_from() -> None:
    chances = torch.tensor([[0.0, 0.5, 0.0, 0.25, 0.25, 0.0]], dtype=torch.float64)
    found = draw(chances, 20_000, torch.Generator().manual_seed(0), most=4)
    shares = torch.bincount(found[0], minlength=6).double() / 20_000
    assert shares[[0, 2, 5]].tolist() == [0, 0, 0]
    assert (shares - chances[0]).abs().max() < 5 * 0.5 / 20_000**0.5


def test_a_state_too_large_is_refused_with_its_size() -> None:
    circuit = Circuit(26, (Op("rx", (0,), (Input(0),)),))
    with pytest.raises(ValueError, match=r"at most 25 wires in torch.float64, got 26: the state takes 1 GiB"):
        Statevector().expectations(circuit, torch.zeros(1, 1, dtype=torch.float64), None, (Z(0),))
    with pytest.raises(ValueError, match=r"at most 26 wires, got 27, a state of 1 GiB"):
        Statevector().state(Circuit(27))

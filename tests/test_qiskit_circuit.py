"""Qiskit circuits both ways: unitaries with their phase, wire order, free parameters, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from oracles import Complex, circuits_strategy, random_circuit, random_data, unitary

from circuits import Circuit, Input, Op, Product, Reset, Slot, Weight

pytest.importorskip("qiskit")
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlModifier,
    Gate,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
    library,
)
from qiskit.circuit.random import random_circuit as qiskits_random_circuit
from qiskit.quantum_info import Operator, SparsePauliOp, random_unitary

from circuits.interop.qiskit_circuit import with_parameters
from circuits.interop.qiskit_import import from_qiskit
from circuits.slots import leaves


def matrix(circuit: QuantumCircuit) -> Complex:
    """Qiskit's unitary: its most significant bit is the last qubit, which is our wire 0."""
    return np.asarray(Operator(circuit).data)


def built(n_qubits: int, *steps: tuple[Any, list[int]]) -> QuantumCircuit:
    made = QuantumCircuit(n_qubits)
    for gate, qubits in steps:
        made.append(gate, qubits)
    return made


def scrambled(n_qubits: int = 2) -> Gate:
    """A custom gate without symmetries, with a global phase and a custom gate inside."""
    inner = QuantumCircuit(1, global_phase=0.4, name="inner")
    inner.u(0.3, 1.1, -0.7, 0)
    made = QuantumCircuit(n_qubits, global_phase=-0.9, name="scrambled")
    made.append(inner.to_gate(), [n_qubits - 1])
    made.cx(n_qubits - 1, 0)
    made.ry(0.8, 0)
    return made.to_gate()


@pytest.mark.parametrize("seed", range(40))
def test_what_qiskit_makes_at_random(seed: int) -> None:
    made = qiskits_random_circuit(4, 6, max_operands=4, seed=seed)
    np.testing.assert_allclose(unitary(from_qiskit(made)), matrix(made), rtol=0, atol=1e-11)


CONTROLS = [(n, state) for n in (1, 2, 3) for state in range(2**n)]
BASES = [library.XGate(), library.HGate(), library.SXGate(), library.RXGate(0.7), library.RZZGate(0.4), library.TGate()]
BASES += [library.UGate(0.3, 0.5, -0.8), library.SwapGate(), scrambled(), library.PhaseGate(0.6)]


@pytest.mark.parametrize(("n_controls", "state"), CONTROLS)
def test_controls_open_and_closed(n_controls: int, state: int) -> None:
    for base in BASES:
        gate = base.control(n_controls, ctrl_state=state, annotated=False)
        order = [3, 0, 4, 1, 2][: gate.num_qubits]
        made = built(5, (gate, order))
        np.testing.assert_allclose(unitary(from_qiskit(made)), matrix(made), rtol=0, atol=1e-12, err_msg=base.name)


def test_a_controlled_general_gate_keeps_its_fourth_angle() -> None:
    for state in (0, 1):
        made = built(2, (library.CUGate(0.3, 1.1, -0.7, 0.9, ctrl_state=state), [1, 0]))
        np.testing.assert_allclose(unitary(from_qiskit(made)), matrix(made), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "modifiers",
    [
        [InverseModifier()],
        [ControlModifier(2, 1)],
        [PowerModifier(3)],
        [PowerModifier(-2.0), ControlModifier(1, 0)],
        [ControlModifier(1, 0), InverseModifier(), ControlModifier(1)],
    ],
)
def test_annotated_operations(modifiers: list[Any]) -> None:
    operation = AnnotatedOperation(scrambled(), modifiers)
    made = QuantumCircuit(4)
    made.append(operation, [2, 0, 3, 1][: operation.num_qubits])
    np.testing.assert_allclose(unitary(from_qiskit(made)), matrix(made), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_qubits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_unitaries_and_their_controls(n_qubits: int, seed: int) -> None:
    gate = library.UnitaryGate(random_unitary(2**n_qubits, seed=seed))
    made = built(n_qubits + 1, (gate, list(range(n_qubits))[::-1]))
    np.testing.assert_allclose(unitary(from_qiskit(made)), matrix(made), rtol=0, atol=1e-12)
    if n_qubits < 3:
        under = built(n_qubits + 1, (gate.control(1, ctrl_state=0, annotated=True), list(range(n_qubits + 1))))
        np.testing.assert_allclose(unitary(from_qiskit(under)), matrix(under), rtol=0, atol=1e-12)


def test_a_gate_that_is_a_matrix_alone() -> None:
    class Root(Gate):
        def __init__(self) -> None:
            super().__init__("root", 1, [])

        def __array__(self, dtype: Any = None, copy: Any = None) -> Complex:
            return np.diag([1, np.exp(0.3j)]).astype(dtype)

    np.testing.assert_allclose(unitary(from_qiskit(built(1, (Root(), [0])))), np.diag([1, np.exp(0.3j)]), atol=1e-15)


def test_wires_are_reversed_and_global_phases_kept() -> None:
    made = QuantumCircuit(3, global_phase=0.25)
    made.cx(0, 2)
    made.barrier()
    made.reset(1)
    made.append(library.GlobalPhaseGate(0.5), [])
    assert from_qiskit(made) == Circuit(3, (Op("cx", (2, 0)), *Reset(1)), (0.75,))


@pytest.mark.parametrize("seed", range(20))
def test_our_circuits_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = random_circuit(rng, 1 + seed % 4, 25)
    circuit = Circuit(drawn.n_wires, tuple(op for op in drawn.ops if all(map(plain, op.slots))))
    inputs, weights = random_data(rng, circuit, 1)
    made = with_parameters(circuit)
    values = {f"input[{k}]": value for k, value in enumerate(inputs[0])}
    values |= {f"weight[{k}]": value for k, value in enumerate(weights)}
    bound = made.assign_parameters({parameter: values[parameter.name] for parameter in made.parameters})
    expected = unitary(circuit, inputs[0], weights)
    np.testing.assert_allclose(matrix(bound), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(unitary(from_qiskit(made), inputs[0], weights), expected, rtol=0, atol=1e-11)


def plain(slot: Slot) -> bool:
    """Whether no parameter enters twice: Qiskit does not simplify all squares."""
    return len({(type(leaf), leaf.index) for leaf in leaves(slot)}) == len(leaves(slot))


def affine(slot: Slot) -> bool:
    return not isinstance(slot, Product)


def ordinary(slot: Slot) -> bool:
    """Whether Qiskit's symbols keep its numbers: they round what is next to nothing to it."""
    shift = getattr(slot, "shift", 0.0)
    return abs(getattr(slot, "scale", 1.0)) > 1e-6 and (shift == 0 or abs(shift) > 1e-12)


@settings(max_examples=60)
@given(circuits_strategy(max_wires=4, resets=True, primitive=True))
def test_affine_slots_come_back_equal(circuit: Circuit) -> None:
    slots = (*circuit.slots, *circuit.global_phase)
    if all(affine(slot) and ordinary(slot) for slot in slots):
        again = from_qiskit(with_parameters(circuit))
        assert Circuit(again.n_wires, again.ops) == Circuit(circuit.n_wires, circuit.ops)


def test_parameters_are_numbered_naturally_and_vectors_by_index() -> None:
    made = QuantumCircuit(1)
    vector = ParameterVector("v", 12)
    names = {name: Parameter(name) for name in ("p10", "p2", "a")}
    for angle in (names["p10"], names["p2"], vector[10], vector[9], names["a"]):
        made.rx(angle, 0)
    assert from_qiskit(made).slots == (Weight(2), Weight(1), Weight(4), Weight(3), Weight(0))
    mixed = from_qiskit(made, inputs=(vector, names["p2"]))
    assert mixed.slots == (Weight(1), Input(2), Input(1), Input(0), Weight(0))
    assert from_qiskit(made, inputs=("a",)).slots[-1] == Input(0)
    with pytest.raises(ValueError, match="unknown free parameter 'nobody'"):
        from_qiskit(made, inputs=("nobody",))


X, Y = Parameter("x"), Parameter("y")


@pytest.mark.parametrize(
    ("angle", "slots"),
    [
        (2 * X + 0.5, (Weight(0, 2.0, 0.5),)),
        (-(X - 1) / 4, (Weight(0, -0.25, 0.25),)),
        (X * Y, (Product(Weight(0), Weight(1)),)),
        (2 * (X - 3) * (Y + 1) + 5, (Product(Weight(0, shift=-3.0), Weight(1, shift=1.0), 2.0, 5.0),)),
        (X + 2 * Y + 1, (Weight(0), Weight(1, 2.0, 1.0))),
        (3 * X * X + X, (Product(Weight(0), Weight(0, shift=1 / 3), 3.0),)),
    ],
)
def test_expressions(angle: Any, slots: tuple[Slot, ...]) -> None:
    made = QuantumCircuit(1)
    made.rx(angle, 0)
    assert from_qiskit(made).slots == slots


def test_a_polynomial_in_three_parameters_keeps_its_value() -> None:
    made, z = QuantumCircuit(2), Parameter("z")
    made.crz((X + 2) * (Y - 1) * (z + 0.5) + X * X * z - Y, 1, 0)
    weights = np.array([0.3, -0.8, 1.7])
    bound = made.assign_parameters({X: 0.3, Y: -0.8, z: 1.7})
    np.testing.assert_allclose(unitary(from_qiskit(made), weights=weights), matrix(bound), rtol=0, atol=1e-13)


def test_measurements_at_the_end_are_dropped_where_asked() -> None:
    made = QuantumCircuit(2, 2)
    made.h(0)
    made.measure(0, 0)
    made.x(1)
    made.barrier()
    with pytest.raises(ValueError, match="expects gates and resets, got a measurement; pass drop_measurements=True"):
        from_qiskit(made)
    assert from_qiskit(made, drop_measurements=True) == Circuit(2, (Op("h", (1,)), Op("x", (0,))))
    made.h(0)
    with pytest.raises(ValueError, match="expects measurements to come last, got 'h' after one; measure later"):
        from_qiskit(made, drop_measurements=True)


def with_loop() -> QuantumCircuit:
    made = QuantumCircuit(1, 1)
    with made.if_test((made.clbits[0], 1)):
        made.x(0)
    return made


def evolving() -> QuantumCircuit:
    return built(1, (library.PauliEvolutionGate(SparsePauliOp(["X", "Z"]), 0.3), [0]))


def bomb() -> QuantumCircuit:
    gate: Any = library.XGate()
    for _ in range(14):
        made = QuantumCircuit(1)
        made.append(gate, [0])
        made.append(gate, [0])
        gate = made.to_gate()
    return built(1, (gate, [0]))


def deep() -> QuantumCircuit:
    gate: Any = library.XGate()
    for _ in range(70):
        gate = built(1, (gate, [0])).to_gate()
    return built(1, (gate, [0]))


def angled(angle: Any) -> Callable[[], QuantumCircuit]:
    made = QuantumCircuit(1)
    made.rx(angle, 0)
    return lambda: made


def delayed() -> QuantumCircuit:
    made = QuantumCircuit(1)
    made.delay(100, 0)
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_loop, "expects gates and resets, got 'if_else' with bits; leave"),
        (delayed, "expects gates and resets, got 'delay'; leave"),
        (evolving, "expects exact gates, got 'PauliEvolution', whose definition is a product formula; decompose"),
        (lambda: built(2, (Gate("mystery", 2, []), [0, 1])), "expects gates with a definition, got 'mystery'"),
        (deep, "expects at most 64 levels of definitions, got more; decompose"),
        (angled(X.sin()), "expects angles quadratic in 'x', got sin\\(x\\); bind"),
        (angled(1 / (X + 1)), "expects angles quadratic in 'x', got .*; bind"),
        (lambda: QuantumCircuit(0), "expects at least one qubit, got none; add"),
        (lambda: built(1, (AnnotatedOperation(library.XGate(), [PowerModifier(0.5)]), [0])), "expects inverses"),
        (lambda: built(13, (library.HGate().control(12, annotated=True), list(range(13)))), "1 to 11 controls"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Callable[[], QuantumCircuit], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_qiskit(make())
    assert "\n" not in str(caught.value)


def test_nested_definitions_are_refused_before_they_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuits.interop.qiskit_import._MAX_OPS", 5000)
    with pytest.raises(ValueError, match="expects a circuit of at most 5000 ops, got more; split"):
        from_qiskit(bomb())


def test_what_is_no_circuit() -> None:
    loose: Any = from_qiskit
    with pytest.raises(TypeError, match="from_qiskit expects a QuantumCircuit, got str; pass one"):
        loose("OPENQASM 3;")

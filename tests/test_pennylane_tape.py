"""PennyLane's tapes: every operator against its matrix, free parameters both ways, and refusals in one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data, unitary

from circuits import Circuit, I, Input, Op, Product, Reset, Weight, X, Y, Z
from circuits.interop.pennylane_ops import Symbol, as_circuit
from circuits.interop.pennylane_tape import from_observable, from_tape, to_observable, to_tape

qml: Any = pytest.importorskip("pennylane", reason="the extra pennylane is not installed")


def matrix(tape: Any, n_wires: int) -> Any:
    """What PennyLane says the tape's operations are, wire 0 most significant."""
    return qml.matrix(tape, wire_order=range(n_wires))


def haar(size: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size)))
    return q * (np.diagonal(r) / np.abs(np.diagonal(r)))


OPERATORS: dict[str, Callable[[], Any]] = {
    "Rot": lambda: qml.Rot(0.3, 0.5, -1.2, 1),
    "U2": lambda: qml.U2(0.3, 0.5, 0),
    "U3": lambda: qml.U3(0.3, 0.5, -1.2, 0),
    "CRot": lambda: qml.CRot(0.3, 0.5, -1.2, (1, 0)),
    "CRX": lambda: qml.CRX(0.3, (1, 0)),
    "Toffoli": lambda: qml.Toffoli((2, 0, 1)),
    "CCZ": lambda: qml.CCZ((2, 0, 1)),
    "CSWAP": lambda: qml.CSWAP((2, 0, 1)),
    "ECR": lambda: qml.ECR((1, 0)),
    "ISWAP": lambda: qml.ISWAP((1, 0)),
    "SISWAP": lambda: qml.SISWAP((1, 0)),
    "PSWAP": lambda: qml.PSWAP(0.4, (1, 0)),
    "IsingXY": lambda: qml.IsingXY(0.4, (1, 0)),
    "MultiRZ": lambda: qml.MultiRZ(0.4, (1, 2, 0)),
    "PauliRot": lambda: qml.PauliRot(0.4, "XYZ", (1, 2, 0)),
    "SingleExcitation": lambda: qml.SingleExcitation(0.4, (2, 0)),
    "DoubleExcitation": lambda: qml.DoubleExcitation(0.4, (2, 0, 1, 3)),
    "OrbitalRotation": lambda: qml.OrbitalRotation(0.4, (2, 0, 1, 3)),
    "QFT": lambda: qml.QFT((2, 0, 1)),
    "adjoint": lambda: qml.adjoint(qml.Rot(0.3, 0.5, -1.2, 1)),
    "adjoint of a sequence": lambda: qml.adjoint(qml.prod(qml.S(0), qml.CNOT((0, 1)), qml.RX(0.2, 1))),
    "integer power": lambda: qml.pow(qml.T(0), 3),
    "inverse power": lambda: qml.pow(qml.RX(0.3, 0), -2),
    "root": lambda: qml.pow(qml.RX(0.3, 0), 0.5),
    "evolution": lambda: qml.evolve(qml.X(0) @ qml.Z(2), 0.3),
    "exponential": lambda: qml.exp(qml.X(0) @ qml.Y(2), 0.3j),
    "open control": lambda: qml.ctrl(qml.RX(0.3, 2), (1, 0), control_values=(0, 1)),
    "open Z": lambda: qml.ctrl(qml.Z(2), 1, control_values=[0]),
    "open X": lambda: qml.MultiControlledX((3, 1, 2, 0), control_values=(0, 1, 0)),
    "controlled H": lambda: qml.ctrl(qml.Hadamard(2), (1, 0)),
    "controlled sqrt X": lambda: qml.ctrl(qml.adjoint(qml.SX(2)), (1, 0)),
    "controlled SWAP": lambda: qml.ctrl(qml.SWAP((2, 3)), (1, 0), control_values=(1, 0)),
    "controlled ZZ": lambda: qml.ctrl(qml.IsingZZ(0.7, (2, 3)), (1, 0)),
    "controlled XX": lambda: qml.ctrl(qml.IsingXX(0.7, (2, 3)), (1, 0)),
    "controlled phase": lambda: qml.ctrl(qml.GlobalPhase(0.7), (1, 0), control_values=(0, 1)),
    "controlled U2": lambda: qml.ctrl(qml.U2(0.3, 0.5, 0), 1),
    "controlled root of unity": lambda: qml.ctrl(qml.pow(qml.Z(0), 0.3), 1),
    "control of a control": lambda: qml.ctrl(qml.ctrl(qml.T(0), 1, control_values=[0]), 2),
    "unitary on one wire": lambda: qml.QubitUnitary(haar(2), 1),
    "antidiagonal unitary": lambda: qml.QubitUnitary(np.array([[0, 1j], [1, 0]]), 1),
    "diagonal unitary": lambda: qml.QubitUnitary(np.diag([1j, 1]), 1),
    "unitary on two wires": lambda: qml.QubitUnitary(haar(4), (2, 0)),
    "unitary on three wires": lambda: qml.QubitUnitary(haar(8), (2, 0, 1)),
    "controlled unitary": lambda: qml.ctrl(qml.QubitUnitary(haar(2), 1), 0, control_values=[0]),
    "controlled unitary on two": lambda: qml.ControlledQubitUnitary(haar(4), (2, 0, 1)),
    "diagonal of phases": lambda: qml.DiagonalQubitUnitary(np.exp(1j * np.arange(8)), (2, 0, 1)),
    "product": lambda: qml.prod(qml.RX(0.2, 0), qml.CNOT((0, 2)), qml.Z(2)),
    "layers": lambda: qml.StronglyEntanglingLayers(np.arange(18).reshape(2, 3, 3) / 7, (0, 1, 2)),
    "permutation": lambda: qml.Permute([2, 0, 1], (0, 1, 2)),
    "select": lambda: qml.Select([qml.X(2), qml.RY(0.3, 2), qml.Z(2), qml.S(2)], (0, 1)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_converted_exactly(name: str) -> None:
    operator = OPERATORS[name]()
    n_wires = max(operator.wires) + 1
    circuit = from_tape(qml.tape.QuantumScript([operator], []), wires=range(n_wires)).circuit
    expected = matrix(qml.tape.QuantumScript([operator], []), n_wires)
    np.testing.assert_allclose(unitary(circuit), expected, atol=1e-9)


def test_unitaries_on_one_wire_are_exact() -> None:
    for seed in range(50):
        given = haar(2, seed)
        np.testing.assert_allclose(unitary(as_circuit(qml.QubitUnitary(given, 0))), given, atol=1e-12)


def test_every_circuit_comes_back() -> None:
    for case in range(60):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(1, 5))
        circuit = random_circuit(rng, n_wires, int(rng.integers(1, 15)), resets=case % 2 == 0)
        assert from_tape(to_tape(circuit), wires=range(n_wires)).circuit == circuit


def test_bound_tapes_are_pennylanes_own_gates() -> None:
    for case in range(40):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(2, 5))
        circuit = random_circuit(rng, n_wires, 12)
        inputs, weights = random_data(rng, circuit, 1)
        row = circuit.angles(inputs, weights)[0]
        expected = unitary(Circuit(n_wires, circuit.ops), inputs[0], weights)
        np.testing.assert_allclose(matrix(to_tape(circuit, row), n_wires), expected, atol=1e-10)
        free = to_tape(Circuit(n_wires, circuit.ops))
        numbered = [k for k, slot in enumerate(circuit.slots) if not isinstance(slot, float)]
        bound = free.bind_new_parameters(row[numbered].tolist(), numbered)
        np.testing.assert_allclose(matrix(bound, n_wires), expected, atol=1e-10)


def test_parameters_are_numbered_as_they_come() -> None:
    weights = torch.arange(12, dtype=torch.float64).requires_grad_()
    tape = qml.tape.QuantumScript([qml.RX(weights[k], 0) for k in range(12)], [])
    circuit, inputs, found, wires = from_tape(tape)
    assert [op.slots for op in circuit.ops] == [(Weight(k),) for k in range(12)]
    assert inputs is None
    assert wires == (0,)
    found.square().sum().backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, 2 * weights.detach())


def test_inputs_weights_and_numbers_are_told_apart() -> None:
    inputs = torch.rand(5, 2)
    weight = torch.tensor(0.7, requires_grad=True)
    tape = qml.tape.QuantumScript(
        [
            qml.AngleEmbedding(inputs, ("x", "y"), rotation="Y"),
            qml.RZ(weight, "y"),
            qml.CRX(weight, ("y", "x")),
            qml.PhaseShift(0.25, "x"),
        ],
        [],
    )
    circuit, found, weights, wires = from_tape(tape)
    assert circuit == Circuit(
        2,
        (
            Op("ry", (0,), (Input(0),)),
            Op("ry", (1,), (Input(1),)),
            Op("rz", (1,), (Weight(0),)),
            Op("crx", (1, 0), (Weight(0),)),
            Op("p", (0,), (0.25,)),
        ),
    )
    assert torch.equal(found, inputs)
    assert weights.tolist() == [pytest.approx(0.7)]
    assert wires == ("x", "y")
    assert from_tape(tape, free=(2, 4)).circuit.n_weights == 1  # a choice by index
    assert from_tape(tape, free=(3,)).weights.shape == (1,)


def test_symbols_survive_decomposition() -> None:
    angles = np.array([Symbol(Input(0)), Symbol(Weight(0, scale=2.0)), Symbol(Product(Input(0), Weight(1)))])
    operators = [
        qml.Rot(*(np.array(a, dtype=object) for a in angles), 0),
        qml.U2(*(np.array(a, dtype=object) for a in angles[:2]), 1),
        qml.CRot(*(np.array(a, dtype=object) for a in angles), (0, 1)),
        qml.PauliRot(np.array(angles[0], dtype=object), "XY", (1, 0)),
        qml.MultiRZ(np.array(angles[1], dtype=object), (0, 2, 1)),
        qml.SingleExcitation(np.array(angles[0], dtype=object), (2, 1)),
        qml.IsingXY(np.array(angles[1], dtype=object), (2, 1)),
        qml.ctrl(qml.RX(np.array(angles[2], dtype=object), 2), 0, control_values=[0]),
        qml.adjoint(qml.GlobalPhase(np.array(angles[0], dtype=object))),
        qml.pow(qml.RY(np.array(angles[0], dtype=object), 0), 2),
        qml.StronglyEntanglingLayers(np.resize(angles, (2, 3, 3)), (0, 1, 2)),
    ]
    values = {"Input": 0.6, "w0": -0.8, "w1": 1.7}
    numbers = [values["Input"], 2 * values["w0"], values["Input"] * values["w1"]]
    circuit = from_tape(qml.tape.QuantumScript(operators, []), wires=range(3)).circuit
    concrete = qml.tape.QuantumScript(
        [
            qml.Rot(*numbers, 0),
            qml.U2(*numbers[:2], 1),
            qml.CRot(*numbers, (0, 1)),
            qml.PauliRot(numbers[0], "XY", (1, 0)),
            qml.MultiRZ(numbers[1], (0, 2, 1)),
            qml.SingleExcitation(numbers[0], (2, 1)),
            qml.IsingXY(numbers[1], (2, 1)),
            qml.ctrl(qml.RX(numbers[2], 2), 0, control_values=[0]),
            qml.GlobalPhase(-numbers[0]),
            qml.RY(2 * numbers[0], 0),
            qml.StronglyEntanglingLayers(np.resize(numbers, (2, 3, 3)), (0, 1, 2)),
        ],
        [],
    )
    expected = matrix(concrete, 3)
    np.testing.assert_allclose(
        unitary(circuit, np.array([values["Input"]]), np.array([values["w0"], values["w1"]])), expected, atol=1e-9
    )


def test_drawings_name_free_parameters() -> None:
    tape = to_tape(Circuit(1, (Op("rx", (0,), (Weight(10),)), Op("sdg", (0,)))))
    assert "RX(Weight(10))" in qml.drawer.tape_text(tape, decimals=2)


def test_resets_go_both_ways() -> None:
    circuit = Circuit(2, (Op("h", (0,)), *Reset((0, 1)), Op("cx", (1, 0))))
    tape = to_tape(circuit)
    measurements: list[Any] = tape.operations[1:3]
    assert [measurement.reset for measurement in measurements] == [True, True]
    assert from_tape(tape).circuit == circuit


def test_wires_by_label() -> None:
    tape = qml.tape.QuantumScript([qml.CNOT((7, 3))], [])
    assert from_tape(tape)[::3] == (Circuit(2, (Op("cx", (0, 1)),)), (7, 3))
    assert from_tape(tape, wires=(3, 5, 7)).circuit == Circuit(3, (Op("cx", (2, 0)),))
    assert from_tape(qml.tape.QuantumScript([qml.CNOT((1, 0))], [])).circuit == Circuit(2, (Op("cx", (1, 0)),))


def test_prepared_states() -> None:
    amplitudes = np.array([0.5, -0.5, 0.5j, 0.5])
    for operation in (qml.StatePrep(amplitudes, (1, 0)), qml.AmplitudeEmbedding(amplitudes, (1, 0))):
        circuit = from_tape(qml.tape.QuantumScript([operation], []), wires=range(2)).circuit
        np.testing.assert_allclose(unitary(circuit)[:, 0], amplitudes[[0, 2, 1, 3]], atol=1e-12)
    basis = from_tape(qml.tape.QuantumScript([qml.BasisState([1, 0], (1, 0))], [])).circuit
    assert np.abs(unitary(basis)[1, 0]) == 1


def _measured(**options: Any) -> Any:
    return qml.tape.make_qscript(lambda: qml.measure(0, **options))().operations


def _conditional() -> Any:
    def circuit() -> None:
        qml.cond(qml.measure(0, reset=True), qml.X)(1)

    return qml.tape.make_qscript(circuit)().operations


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a channel": (lambda: [qml.DepolarizingChannel(0.1, 0)], "noise belongs to the backend"),
    "a measurement": (lambda: _measured(), "no measurement in its middle"),
    "a postselection": (lambda: _measured(reset=True, postselect=1), "without postselect"),
    "a condition": (_conditional, "depends on a measurement"),
    "a snapshot": (lambda: [qml.Snapshot("here")], "records a state"),
    "a cut": (lambda: [qml.WireCut(0)], "where to cut"),
    "a matrix that is not unitary": (lambda: [qml.QubitUnitary(np.ones((2, 2)), 0)], "expects a unitary matrix"),
    "a wide matrix that is not": (lambda: [qml.QubitUnitary(np.ones((4, 4)), (0, 1))], "expects a unitary matrix"),
    "a diagonal that is not": (lambda: [qml.DiagonalQubitUnitary([1, 2], 0)], "unitary"),
    "a free matrix": (lambda: [qml.QubitUnitary(torch.eye(2).requires_grad_(), 0)], "free parameter"),
    "a batch of matrices": (lambda: [qml.QubitUnitary(np.stack([np.eye(2)] * 3), 0)], "free"),
    "free amplitudes": (lambda: [qml.StatePrep(torch.tensor([0.6, 0.8]).requires_grad_(), 0)], "free parameter"),
    "a state after a gate": (lambda: [qml.X(0), qml.StatePrep([0.6, 0.8], 0)], "prepare states first"),
    "an operator that is no gate": (lambda: [qml.s_prod(2.0, qml.X(0))], "no decomposition"),
    "a sum": (lambda: [qml.sum(qml.X(0), qml.Z(0))], "no decomposition"),
    "a projector": (lambda: [qml.Projector([0], 0)], "no decomposition"),
    "decay": (lambda: [qml.exp(qml.X(0), 0.3)], "expects gates"),
    "a NaN": (lambda: [qml.RX(float("nan"), 0)], "finite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_circuit_cannot_hold_is_refused(what: str) -> None:
    build, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=sentence) as caught:
        from_tape(qml.tape.QuantumScript(build(), []))
    assert len(str(caught.value)) < 300


def test_wrong_arguments_are_refused() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Input(0),)),))
    with pytest.raises(ValueError, match="angles \\(batch, 1\\)"):
        to_tape(circuit, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="each label of the tape once"):
        from_tape(qml.tape.QuantumScript([qml.X("a")], []), wires=("b",))
    with pytest.raises(ValueError, match="symbols or data"):
        from_tape(qml.tape.QuantumScript([*to_tape(circuit).operations, qml.RX(np.zeros(2), 0)], []))
    with pytest.raises(ValueError, match="free complex parameter"):
        from_tape(qml.tape.QuantumScript([qml.exp(qml.X(0), torch.tensor(0.3j, requires_grad=True))], []))
    with pytest.raises(ValueError, match="bind it"):
        from_tape(qml.tape.QuantumScript([qml.PCPhase(torch.tensor(0.3, requires_grad=True), 3, (0, 1, 2))], []))


def test_observables_go_both_ways() -> None:
    for observable in (Z(0), X(2) @ Y(0), 0.5 * Z(0) - 0.2 * X(1) @ X(2) + 0.25, I(), 2 * I(), 0 * Z(0)):
        assert from_observable(to_observable(observable)) == observable
    assert from_observable(qml.X("a") @ qml.Z("b"), wires=("b", "a")) == Z(0) @ X(1)
    with pytest.raises(ValueError, match="sum of Pauli words"):
        from_observable(qml.Projector([0], 0))
    with pytest.raises(ValueError, match="real coefficients"):
        from_observable(qml.X(0) @ qml.Y(0))

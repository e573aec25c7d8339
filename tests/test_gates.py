"""Each column of the gate table, and each decomposition, against independent ones: exponentials, Qiskit, PennyLane."""

from typing import Any

import numpy as np
import pytest
import torch
from oracles import Complex, unitary

from circuits import GATES, Circuit, Gate, Op
from circuits.decompositions import COMPOSITES, MULTI_CONTROLLED
from circuits.gates import PAULI, pauli_matrix

ANGLES = (-2.7, -0.4, 0.0, 0.9, np.pi, 5.1)
every_gate = pytest.mark.parametrize("gate", GATES.values(), ids=GATES.keys())


def matrices(gate: Gate) -> list[Complex]:
    return [gate.matrix(angle) for angle in ANGLES] if gate.n_angles else [gate.matrix()]


def ends_swapped(matrix: Complex) -> Complex:
    """The same operator with its wires in reverse order: Qiskit's convention to ours."""
    n_wires = len(matrix).bit_length() - 1
    axes = [*reversed(range(n_wires)), *reversed(range(n_wires, 2 * n_wires))]
    return np.asarray(matrix).reshape((2,) * (2 * n_wires)).transpose(axes).reshape(matrix.shape)


def test_names_are_their_keys_and_cover_the_promised_ones() -> None:
    assert [gate.name for gate in GATES.values()] == list(GATES)
    primitive = "id rx ry rz p h x y z s sdg t tdg sx sxdg cx cy cz ch swap rxx ryy rzz"
    assert list(GATES) == primitive.split()
    composite = "u3 cp crx cry crz ccx cswap ecr iswap"
    assert list(COMPOSITES) == composite.split()
    assert not set(GATES) & set(COMPOSITES)
    assert not (set(GATES) | set(COMPOSITES)) & set(MULTI_CONTROLLED)


@every_gate
def test_matrix_is_unitary_and_of_the_right_size(gate: Gate) -> None:
    for matrix in matrices(gate):
        assert matrix.shape == (2**gate.n_wires, 2**gate.n_wires)
        np.testing.assert_allclose(matrix @ matrix.conj().T, np.eye(len(matrix)), atol=1e-15)


@pytest.mark.parametrize("gate", [gate for gate in GATES.values() if gate.generator], ids=lambda gate: gate.name)
def test_rotation_is_the_exponential_of_its_pauli_word(gate: Gate) -> None:
    word = pauli_matrix(gate.generator)
    np.testing.assert_array_equal(word @ word, np.eye(len(word)))  # so the two-term shift rule holds
    for angle in ANGLES:
        exponent = torch.from_numpy(1j * angle * (gate.phase * np.eye(len(word)) - word / 2))
        np.testing.assert_allclose(gate.matrix(angle), torch.linalg.matrix_exp(exponent).numpy(), atol=1e-14)


def test_only_p_has_a_phase_beside_its_pauli_word() -> None:
    assert {gate.name for gate in GATES.values() if gate.phase} == {"p"}
    np.testing.assert_allclose(GATES["p"].matrix(0.7), np.diag([1, np.exp(0.7j)]), atol=1e-15)


@every_gate
def test_inverse_column(gate: Gate) -> None:
    partner = GATES[gate.inverse]
    assert partner.inverse == gate.name
    for angle in ANGLES if gate.n_angles else (None,):
        product = partner.matrix(None if angle is None else -angle) @ gate.matrix(angle)
        np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-15)


@every_gate
def test_a_gate_is_its_own_inverse_exactly_when_hermitian(gate: Gate) -> None:
    if not gate.n_angles:
        hermitian = bool(np.allclose(gate.matrix(), gate.matrix().conj().T, atol=1e-15))
        assert hermitian == (gate.inverse == gate.name)
    else:
        assert gate.inverse == gate.name


@every_gate
def test_is_diagonal_agrees_with_the_matrices(gate: Gate) -> None:
    off = max(float(np.abs(matrix - np.diag(np.diagonal(matrix))).max()) for matrix in matrices(gate))
    assert gate.is_diagonal == (off == 0)


@every_gate
def test_matrix_refuses_a_missing_or_needless_angle(gate: Gate) -> None:
    with pytest.raises(ValueError, match=r"expects (one|no) angle, got .*; pass"):
        gate.matrix(None if gate.n_angles else 0.3)


def test_fixed_gates_by_their_definitions() -> None:
    matrix = {name: gate.matrix() for name, gate in GATES.items() if not gate.n_angles}
    np.testing.assert_allclose(matrix["s"] @ matrix["s"], PAULI["Z"], atol=1e-15)
    np.testing.assert_allclose(matrix["t"] @ matrix["t"], matrix["s"], atol=1e-15)
    np.testing.assert_allclose(matrix["sx"] @ matrix["sx"], PAULI["X"], atol=1e-15)
    np.testing.assert_allclose(matrix["h"] @ PAULI["X"] @ matrix["h"], PAULI["Z"], atol=1e-15)
    for name, corner in (("cx", "x"), ("cy", "y"), ("cz", "z"), ("ch", "h")):
        np.testing.assert_array_equal(matrix[name], controlled_matrix(matrix[corner], 1))
    np.testing.assert_array_equal(matrix["swap"] @ np.arange(4), [0, 2, 1, 3])


def test_pauli_matrix_orders_letters_as_wires_and_cannot_be_changed() -> None:
    np.testing.assert_array_equal(pauli_matrix("XYZ"), np.kron(PAULI["X"], np.kron(PAULI["Y"], PAULI["Z"])))
    with pytest.raises(ValueError, match="read-only"):
        pauli_matrix("X")[0, 0] = 1


# --- Qiskit, OpenQASM, PennyLane ----------------------------------------------------------------------------------


@every_gate
def test_qiskit_column(gate: Gate) -> None:
    library: Any = pytest.importorskip("qiskit.circuit.library")
    make = getattr(library, gate.qiskit)
    for angle in ANGLES if gate.n_angles else (None,):
        theirs = make() if angle is None else make(angle)
        np.testing.assert_allclose(gate.matrix(angle), ends_swapped(theirs.to_matrix()), atol=1e-15)
        assert theirs.name == gate.name
        assert theirs.inverse().name == gate.inverse


@every_gate
def test_openqasm_column(gate: Gate) -> None:
    qasm3: Any = pytest.importorskip("qiskit.qasm3")
    standard = {known.name: (known.num_qubits, known.num_params) for known in qasm3.STDGATES_INC_GATES}
    assert (gate.qasm in standard) == gate.qasm_standard
    if gate.qasm_standard:
        assert standard[gate.qasm] == (gate.n_wires, gate.n_angles)
    qiskit: Any = pytest.importorskip("qiskit")
    library: Any = pytest.importorskip("qiskit.circuit.library")
    circuit = qiskit.QuantumCircuit(gate.n_wires)
    circuit.append(getattr(library, gate.qiskit)(*[0.5] * gate.n_angles), range(gate.n_wires))
    angles = "(0.5)" if gate.n_angles else ""
    wires = ", ".join(f"q[{wire}]" for wire in range(gate.n_wires))
    text = qasm3.dumps(circuit)
    assert f"\n{gate.qasm}{angles} {wires};" in text
    assert (f"gate {gate.qasm}" in text) != gate.qasm_standard  # Qiskit defines what the include lacks


@every_gate
def test_pennylane_column(gate: Gate) -> None:
    qml: Any = pytest.importorskip("pennylane")
    base = gate.pennylane.removeprefix("Adjoint(").removesuffix(")")
    for angle in ANGLES if gate.n_angles else (None,):
        theirs = getattr(qml, base)(*(() if angle is None else (angle,)), wires=range(gate.n_wires))
        theirs = theirs if base == gate.pennylane else qml.adjoint(theirs)
        assert theirs.name == gate.pennylane
        np.testing.assert_allclose(gate.matrix(angle), qml.matrix(theirs), atol=1e-15)


# --- Composite gates ----------------------------------------------------------------------------------------------

QISKIT_COMPOSITES = {
    "u3": "UGate",
    "cp": "CPhaseGate",
    "crx": "CRXGate",
    "cry": "CRYGate",
    "crz": "CRZGate",
    "ccx": "CCXGate",
    "cswap": "CSwapGate",
    "ecr": "ECRGate",
    "iswap": "iSwapGate",
}


def controlled_matrix(matrix: Complex, n_controls: int) -> Complex:
    full = np.eye(len(matrix) << n_controls, dtype=complex)
    full[-len(matrix) :, -len(matrix) :] = matrix
    return full


def some_angles(number: int) -> tuple[float, ...]:
    return tuple(float(angle) for angle in np.random.default_rng(number).uniform(-4, 4, number))


@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_equals_qiskits_gate_with_its_global_phase(name: str) -> None:
    library: Any = pytest.importorskip("qiskit.circuit.library")
    record = COMPOSITES[name]
    angles = some_angles(record.n_angles)
    circuit = Circuit(record.n_wires, (Op(name, tuple(range(record.n_wires)), angles),))
    theirs = getattr(library, QISKIT_COMPOSITES[name])(*angles)
    np.testing.assert_allclose(unitary(circuit), ends_swapped(theirs.to_matrix()), atol=1e-14)


def test_composites_by_their_definitions() -> None:
    theta, phi, lam = some_angles(3)
    c, s = np.cos(theta / 2), np.sin(theta / 2)
    u3 = np.array([[c, -np.exp(1j * lam) * s], [np.exp(1j * phi) * s, np.exp(1j * (phi + lam)) * c]])
    expected = {
        ("u3", theta, phi, lam): u3,
        ("cp", theta): np.diag([1, 1, 1, np.exp(1j * theta)]),
        ("crx", theta): controlled_matrix(GATES["rx"].matrix(theta), 1),
        ("cry", theta): controlled_matrix(GATES["ry"].matrix(theta), 1),
        ("crz", theta): controlled_matrix(GATES["rz"].matrix(theta), 1),
        ("ccx",): controlled_matrix(PAULI["X"], 2),
        ("cswap",): controlled_matrix(GATES["swap"].matrix(), 1),
        ("ecr",): (np.kron(PAULI["X"], PAULI["I"]) - np.kron(PAULI["Y"], PAULI["X"])) / np.sqrt(2),
        ("iswap",): np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
    }
    assert {name for name, *_ in expected} == set(COMPOSITES)
    for (name, *angles), matrix in expected.items():
        wires = tuple(range(COMPOSITES[name].n_wires))
        np.testing.assert_allclose(unitary(Circuit(len(wires), (Op(name, wires, tuple(angles)),))), matrix, atol=1e-14)


@pytest.mark.parametrize("n_controls", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", MULTI_CONTROLLED)
def test_multi_controlled_equals_its_block_matrix(name: str, n_controls: int) -> None:
    angles = some_angles(MULTI_CONTROLLED[name].n_angles)
    circuit = Circuit(n_controls + 1, (Op(name, tuple(range(n_controls + 1)), angles),))
    corner = GATES[name.removeprefix("mc")].matrix(*angles)
    np.testing.assert_allclose(unitary(circuit), controlled_matrix(corner, n_controls), atol=1e-13)


def test_multi_controlled_gates_respect_the_order_of_their_wires() -> None:
    circuit = Circuit(3, (Op("mcry", (2, 0, 1), (0.8,)),))
    on_target = controlled_matrix(GATES["ry"].matrix(0.8), 2).reshape((2,) * 6)
    expected = on_target.transpose(1, 2, 0, 4, 5, 3).reshape(8, 8)  # wires 0, 1, 2 are gate axes 1, 2, 0
    np.testing.assert_allclose(unitary(circuit), expected, atol=1e-14)


def test_every_angle_left_by_a_decomposition_has_a_pauli_word() -> None:
    for name, record in (COMPOSITES | MULTI_CONTROLLED).items():
        wires = tuple(range(record.n_wires or 4))
        for op in Circuit(len(wires), (Op(name, wires, some_angles(record.n_angles)),)).ops:
            assert bool(op.slots) == bool(GATES[op.name].generator)


def test_a_multi_controlled_gate_beyond_its_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expects at most 11 controls, got 12: .*; split it"):
        Circuit(13, (Op("mcx", tuple(range(13))),))

"""Our Qiskit primitives against Qiskit's own: values, broadcasting, parameters, precision, registers, statistics."""

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qiskit", reason="the extra qiskit is not installed")

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import UnitaryGate, XGate
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import DensityMatrix, SparsePauliOp, Statevector, random_unitary

from backends.statevector import qiskit_primitives

# Qiskit's types of PUBs leave out most of what it takes.
QLMEstimator: Any = qiskit_primitives.QLMEstimator
QLMSampler: Any = qiskit_primitives.QLMSampler
QiskitEstimator: Any = StatevectorEstimator
QiskitSampler: Any = StatevectorSampler

ONE = ("rx", "ry", "rz", "p", "h", "s", "t", "sx", "y")
TWO = ("cx", "cz", "swap", "rzz", "rxx", "crx", "cp", "ch", "iswap")


def _random(rng: np.random.Generator, n_qubits: int, n_gates: int, n_parameters: int = 12) -> QuantumCircuit:
    """Gates of all kinds; angles are numbers, parameters and expressions of them, p10 among them."""
    made, vector = QuantumCircuit(n_qubits), ParameterVector("p", n_parameters)
    loose = Parameter("b")
    for _ in range(n_gates):
        name = str(rng.choice(ONE if n_qubits == 1 or rng.random() < 0.6 else TWO))
        qubits = [int(q) for q in rng.permutation(n_qubits)[: 1 if name in ONE else 2]]
        one, other = (vector[int(k)] for k in rng.integers(n_parameters, size=2))
        choices = [one, 2 * one - 0.3, one * other + loose, float(rng.uniform(-3, 3)), (one + 0.1).sin() + other / 2]
        angles = (
            [choices[int(rng.integers(len(choices)))]]
            if name in ("rx", "ry", "rz", "p", "rzz", "rxx", "crx", "cp")
            else []
        )
        getattr(made, name)(*angles, *qubits)
    made.append(UnitaryGate(random_unitary(4, seed=int(rng.integers(1000)))), [0, n_qubits - 1])
    made.append(XGate().control(2, ctrl_state=1), range(3))
    made.global_phase = loose
    return made


def test_values_are_qiskits() -> None:
    for case in range(25):
        rng = np.random.default_rng(case)
        n_qubits = int(rng.integers(3, 6))
        made = _random(rng, n_qubits, 12)
        labels = ["".join(rng.choice(list("IXYZ"), n_qubits)) for _ in range(4)]
        observables = [[labels[0]], [SparsePauliOp(labels[1:], np.array([0.3, -1.2, 2.0]))]]
        pub = (made, observables, rng.uniform(-3, 3, (3, made.num_parameters)))
        ours, theirs = (estimator.run([pub]).result()[0] for estimator in (QLMEstimator(), QiskitEstimator()))
        assert ours.data.evs.shape == (2, 3)
        np.testing.assert_allclose(ours.data.evs, theirs.data.evs, atol=1e-10, rtol=0)
        assert not ours.data.stds.any()


@pytest.mark.parametrize(
    ("observables", "parameters", "shape"),
    [
        *[((), (), ()), ((), (4,), (4,)), ((3,), (), (3,)), ((4,), (4,), (4,)), ((3, 1), (4,), (3, 4))],
        *[((2, 1, 1), (3, 1), (2, 3, 1)), ((1, 5), (2, 1), (2, 5)), ((2,), (0, 1), (0, 2))],
    ],
)
def test_arrays_broadcast(observables: tuple[int, ...], parameters: tuple[int, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    made = QuantumCircuit(2)
    a, b = Parameter("a"), Parameter("b")
    made.ry(a, 0)
    made.crx(b, 0, 1)
    words = rng.choice(["XI", "ZZ", "YX", "IZ"], observables)
    values = {(a, b): rng.uniform(0, 3, (*parameters, 2))}
    pub = (made, words.tolist() if observables else str(words), values)
    ours, theirs = (estimator.run([pub]).result()[0].data for estimator in (QLMEstimator(), QiskitEstimator()))
    assert ours.shape == ours.evs.shape == ours.stds.shape == shape == theirs.evs.shape
    np.testing.assert_allclose(ours.evs, theirs.evs, atol=1e-10, rtol=0)


def test_parameters_are_bound_by_name_and_by_vector() -> None:
    made, vector = QuantumCircuit(1), ParameterVector("p", 12)
    for parameter in reversed(list(vector)):
        made.rx(parameter, 0)
        made.rz(parameter, 0)
    values = np.random.default_rng(1).uniform(-1, 1, (2, 12))
    by_vector = QLMEstimator().run([(made, "Z", {vector: values})]).result()[0].data.evs
    by_name = QLMEstimator().run([(made, "Z", {tuple(p.name for p in vector): values})]).result()[0].data.evs
    truth = QiskitEstimator().run([(made, "Z", {vector: values})]).result()[0].data.evs
    np.testing.assert_allclose(by_vector, truth, atol=1e-10)
    np.testing.assert_allclose(by_name, truth, atol=1e-10)


def test_several_pubs_and_metadata() -> None:
    bell = QuantumCircuit(2, metadata={"name": "bell"})
    bell.h(0)
    bell.cx(0, 1)
    flip = QuantumCircuit(3)
    flip.x(0)
    job = QLMEstimator().run([(bell, ["XX", "ZZ", "YY"]), (flip, ["IIZ", "ZII"], [], 0.1)])
    first, second = job.result()
    np.testing.assert_allclose(first.data.evs, [1, 1, -1], atol=1e-12)
    assert first.metadata["circuit_metadata"] == {"name": "bell"}
    assert second.metadata["target_precision"] == 0.1
    assert abs(second.data.evs - [-1, 1]).max() < 4.9 * 0.1 * 1.2
    assert second.data.stds.tolist() == [0.1, 0.1]


def test_precision_is_normal_noise() -> None:
    made = QuantumCircuit(1)
    made.h(0)
    many = ["Z"] * 4000
    found = QLMEstimator(seed=3).run([(made, many)], precision=0.2).result()[0].data
    assert abs(found.evs.mean()) < 4.9 * 0.2 / math.sqrt(4000)
    assert abs(found.evs.std() / 0.2 - 1) < 4.9 / math.sqrt(8000)
    again = QLMEstimator(default_precision=0.2, seed=3).run([(made, many)]).result()[0].data
    np.testing.assert_array_equal(found.evs, again.evs)


def test_projectors_are_understood() -> None:
    """Qiskit's own state-vector estimator takes none: the truth is the state's."""
    made = _random(np.random.default_rng(5), 3, 10)
    values = np.random.default_rng(6).uniform(-2, 2, made.num_parameters)
    state = Statevector(made.assign_parameters(values))
    found = QLMEstimator().run([(made, ["001", "I1I", "X-r"], values)]).result()[0].data.evs
    p = np.abs(state.data) ** 2
    minus, right = np.array([1, -1]) / math.sqrt(2), np.array([1, 1j]) / math.sqrt(2)
    x = np.array([[0, 1], [1, 0]])
    last = np.kron(x, np.kron(np.outer(minus, minus.conj()), np.outer(right, right.conj())))
    expected = [p[1], p[[2, 3, 6, 7]].sum(), (state.data.conj() @ last @ state.data).real]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_resets_are_exact() -> None:
    made = QuantumCircuit(2)
    made.ry(0.8, 0)
    made.cx(0, 1)
    made.reset(0)
    made.h(0)
    made.cx(0, 1)
    words = ["IX", "ZI", "XX", "ZZ", "YY"]
    rho: Any = DensityMatrix(made)
    found = QLMEstimator().run([(made, words)]).result()[0].data.evs
    np.testing.assert_allclose(found, [rho.expectation_value(SparsePauliOp(word)).real for word in words], atol=1e-10)


def _frequencies(data, name: str, index: tuple[int, ...], size: int) -> np.ndarray:
    counts = data[name][index].get_int_counts()
    return np.array([counts.get(k, 0) for k in range(size)])


def test_samples_follow_qiskits_probabilities() -> None:
    shots = 4000
    for case in range(6):
        rng = np.random.default_rng(case)
        made = _random(rng, 3, 8)
        values = rng.uniform(-3, 3, (2, 1, made.num_parameters))
        measured = made.copy()
        measured.measure_all()
        data = QLMSampler(seed=case).run([(measured, values)], shots=shots).result()[0].data
        assert data.meas.shape == (2, 1)
        assert data.meas.num_shots == shots
        for row in range(2):
            p = Statevector(made.assign_parameters(values[row, 0])).probabilities()
            got = _frequencies(data, "meas", (row, 0), 8)
            spread = np.sqrt(shots * p * (1 - p) + 25)
            assert (np.abs(got - shots * p) < 5.5 * spread).all()  # 96 comparisons at a joint level of 1e-6


def test_registers_are_filled_as_qiskit_fills_them() -> None:
    """Deterministic states, two registers, crossed bits, a bit that none writes, a qubit read twice."""
    qubits, alpha, beta = QuantumRegister(3), ClassicalRegister(10, "alpha"), ClassicalRegister(2, "beta")
    made = QuantumCircuit(qubits, alpha, beta)
    made.ry(Parameter("t"), 0)
    made.x(2)
    made.barrier()
    made.measure(0, alpha[9])
    made.measure(2, alpha[0])
    made.measure(2, beta[1])
    values = [[0.0], [math.pi]]
    ours, theirs = (sampler.run([(made, values)], shots=7).result()[0] for sampler in (QLMSampler(), QiskitSampler()))
    for name in ("alpha", "beta"):
        np.testing.assert_array_equal(ours.data[name].array, theirs.data[name].array)
        assert ours.data[name].num_bits == theirs.data[name].num_bits
    assert ours.data.alpha.get_counts(1) == {"1000000001": 7}
    assert ours.metadata["shots"] == 7


def test_shots_and_seeds() -> None:
    made = QuantumCircuit(1)
    made.h(0)
    made.measure_all()
    first, second = QLMSampler(default_shots=5, seed=1).run([made, (made, None, 9)]).result()
    assert (first.data.meas.num_shots, second.data.meas.num_shots) == (5, 9)
    runs = [QLMSampler(seed=seed).run([made], shots=60).result()[0].data.meas.get_bitstrings() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    bare = QLMSampler().run([QuantumCircuit(1, 2)], shots=3).result()[0].data.c
    assert bare.get_counts() == {"00": 3}


def test_what_is_refused() -> None:
    middle = QuantumCircuit(1, 1)
    middle.measure(0, 0)
    middle.h(0)
    with pytest.raises(ValueError, match="measurements to come last, got 'h' after one"):
        QLMSampler().run([middle]).result()
    with pytest.raises(ValueError, match="gates and resets, got a measurement"):
        QLMEstimator().run([(middle, "Z")]).result()
    branch = QuantumCircuit(1, 1)
    with branch.if_test((branch.clbits[0], True)):
        branch.x(0)
    with pytest.raises(ValueError, match="if_else"):
        QLMSampler().run([branch]).result()
    made = QuantumCircuit(1)
    made.ry(Parameter("t"), 0)
    with pytest.raises(ValueError, match="not broadcastable"):
        QLMEstimator().run([(made, ["Z", "X"], [[0.0], [1.0], [2.0]])])

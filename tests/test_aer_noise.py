"""Noise of the aer backend: numbers against hand-made channels, devices against whole devices, readout, entropies."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data

from backends import open_backend
from circuits import Circuit, I, Input, Op, PauliSum, Reset, Weight, X, Y, Z
from circuits.library import angle_encoding, hardware_efficient

pytest.importorskip("qiskit_aer", reason="the extra qiskit is not installed")
pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from backends.aer import Aer
from backends.aer_noise import Noise, misread, misread_probabilities

BELL = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
ALPHA_1E_6 = 4.9


def test_depolarising_shrinks_by_the_chance() -> None:
    """One RX, one CX: (1 - p1) on the rotated wire alone, then (1 - p2) on both."""
    circuit = Circuit(2, (Op("rx", (0,), (Input(0),)), Op("cx", (0, 1))))
    backend = Aer(noise=Noise(depolarising_1q=0.1, depolarising_2q=0.2))
    inputs = torch.tensor([[0.7], [2.0]], dtype=torch.float64)
    found = backend.expectations(circuit, inputs, None, (Z(0), Z(1), Z(0) @ Z(1), Y(0) @ X(1)))
    kept = 0.9 * 0.8 * torch.cos(inputs[:, 0])
    both = torch.full_like(kept, 0.8)
    turned = -0.9 * 0.8 * torch.sin(inputs[:, 0])
    torch.testing.assert_close(found.values, torch.stack([kept, kept, both, turned], 1), atol=1e-12, rtol=0)
    assert found.shots is None


def test_relaxation_during_gates() -> None:
    """X takes 50 ns: |1> decays by exp(-t/T1), a coherence by exp(-t/T2)."""
    backend = Aer(noise=Noise(t1_us=1.0, t2_us=0.5, gate_1q_ns=50.0))
    excited = backend.probabilities(Circuit(1, (Op("x", (0,)),)), torch.zeros(1, 0, dtype=torch.float64)).values
    assert excited[0, 1].item() == pytest.approx(math.exp(-0.05), abs=1e-12)
    plus = backend.expectations(Circuit(1, (Op("h", (0,)),)), torch.zeros(1, 0, dtype=torch.float64), None, (X(0),))
    assert plus.values.item() == pytest.approx(math.exp(-0.1), abs=1e-12)
    slow = Aer(noise=Noise(t1_us=1.0, gate_2q_ns=200.0))  # T2 = 2 T1: no dephasing of its own
    pair = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
    found = slow.expectations(pair, torch.zeros(1, 0, dtype=torch.float64), None, (X(0) @ X(1),)).values.item()
    assert found == pytest.approx(math.exp(-0.05 / 2) * math.exp(-0.2 / 2) ** 2, abs=1e-3)


def test_readout_is_part_of_what_is_read_and_not_of_the_state() -> None:
    backend = Aer(noise=Noise(readout=0.1))
    double = torch.zeros(1, 0, dtype=torch.float64)
    observables = (Z(0), Z(0) @ Z(1), X(0) @ X(1), 2 * Z(0) @ Z(1) + 3, I())
    found = backend.expectations(BELL, double, None, observables).values[0]
    assert found.tolist() == pytest.approx([0.0, 0.64, 0.64, 4.28, 1.0], abs=1e-12)
    chances = backend.probabilities(BELL, double).values[0]
    assert chances.tolist() == pytest.approx([0.41, 0.09, 0.09, 0.41], abs=1e-12)
    entropy = backend.entropy(BELL, double, wires=(0,))
    assert entropy.values.item() == pytest.approx(math.log(2), abs=1e-12)
    assert entropy.purity is not None
    assert entropy.purity.item() == pytest.approx(1.0, abs=1e-12)


def test_unequal_readout_errors() -> None:
    flips = ((0.1, 0.3), (0.0, 0.2))
    seen = misread(Z(0) @ Z(1), flips)
    expected = 0.6 * 0.8 * Z(0) @ Z(1) + 0.6 * 0.2 * Z(0) + 0.2 * 0.8 * Z(1) + 0.2 * 0.2
    assert dict(seen.terms) == pytest.approx(dict(expected.terms))
    values = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    read = misread_probabilities(values, flips)[0]
    tables = np.kron([[0.9, 0.3], [0.1, 0.7]], [[1.0, 0.2], [0.0, 0.8]])
    assert read.tolist() == pytest.approx((tables @ values[0].numpy()).tolist())
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    mean = {(): 1.0, ((0, "Z"),): 0.4, ((1, "Z"),): 0.2, ((0, "Z"), (1, "Z")): 0.0}
    assert (read @ signs).item() == pytest.approx(sum(c * mean[word] for word, c in seen.terms))


@pytest.mark.parametrize("noise", ["depolarising_1q:0.03,depolarising_2q:0.05,readout:0.04,t1_us:20", "fake_manila"])
def test_shots_scatter_about_the_exact_values(noise: str) -> None:
    circuit = Circuit(3, (*angle_encoding(3).ops, Op("cx", (0, 1)), Op("rzz", (1, 2), (Weight(0),)), *Reset(0)))
    inputs, weights = torch.tensor([[0.5, 1.5, 2.5], [3.0, 0.2, 1.0]]), torch.tensor([0.8])
    exact, shots = Aer(method="density_matrix", noise=noise), 20000
    asked = (circuit, inputs, weights, (Z(1), Z(0), Z(1) @ Z(2)))  # Z alone: no gate chooses a basis
    truth, found = exact.expectations(*asked), exact.expectations(*asked, shots=shots, seed=1)
    assert (found.stderr > 0).all()
    assert ((found.values - truth.values).abs() < ALPHA_1E_6 * found.stderr).all()
    ideal = open_backend("statevector").expectations(*asked).values
    assert ((ideal - truth.values).abs().max() > 0.02).all()
    chances = exact.probabilities(circuit, inputs, weights, (2, 1))
    counted = exact.probabilities(circuit, inputs, weights, (2, 1), shots=shots, seed=2)
    assert ((counted.values - chances.values).abs() < ALPHA_1E_6 * counted.stderr).all()


def test_gates_that_choose_a_basis_have_no_noise_in_numbers() -> None:
    backend = Aer(noise=Noise(depolarising_1q=0.2))
    circuit = Circuit(1, (Op("ry", (0,), (Input(0),)),))
    inputs = torch.tensor([[0.6]])
    truth = 0.8 * math.sin(0.6)
    assert backend.expectations(circuit, inputs, None, (X(0),)).values.item() == pytest.approx(truth, abs=1e-6)
    found = backend.expectations(circuit, inputs, None, (X(0), Z(0)), shots=40000, seed=0)
    assert abs(found.values[0, 0].item() - truth) < ALPHA_1E_6 * found.stderr[0, 0].item()


def test_a_device_cut_down_is_the_device() -> None:
    """Against Aer's own model of all five qubits of fake_manila, circuit by circuit."""
    from qiskit import transpile
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    from circuits.interop.qiskit_circuit import to_qiskit

    device = FakeManilaV2()
    whole = AerSimulator.from_backend(device, method="density_matrix")
    backend = Aer(method="density_matrix", noise="fake_manila")
    for case in range(6):
        rng = np.random.default_rng(case)
        circuit = random_circuit(rng, 3, 8)
        inputs, weights = (torch.tensor(data, dtype=torch.float64) for data in random_data(rng, circuit, 2))
        rho = backend.density(circuit, inputs, weights).values
        angles = circuit.angles(inputs, weights)
        for row, found in zip(angles.numpy(), rho, strict=True):
            made = to_qiskit(circuit)
            isa: Any = transpile(made, device, optimization_level=2, seed_transpiler=0).assign_parameters(
                dict(zip(made.parameters, row, strict=True)), strict=False
            )
            places = isa.layout.final_index_layout()
            for label in ("ZII", "IXY", "YZX"):
                isa_copy = isa.copy()
                operator = SparsePauliOp(label).apply_layout(places, 5)
                isa_copy.save_expectation_value(operator, range(5), label="e")
                truth = whole.run(isa_copy, shots=1).result().data()["e"]
                word = PauliSum(((tuple(enumerate(label)), 1.0),))
                matrix = _matrix(word, 3)
                assert torch.einsum("ij,ji->", found, matrix).real.item() == pytest.approx(truth, abs=1e-9)


def _matrix(word: PauliSum, n_wires: int) -> torch.Tensor:
    from circuits.gates import pauli_matrix

    ((letters, _),) = word.terms
    named = dict(letters)
    return torch.from_numpy(pauli_matrix("".join(named.get(wire, "I") for wire in range(n_wires))).copy())


def test_six_wires_of_133_qubits() -> None:
    circuit = angle_encoding(6) + hardware_efficient(6, 1)
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.rand(4, 6, generator=generator), torch.rand(circuit.n_weights, generator=generator)
    backend = Aer(method="density_matrix", noise="fake_torino")
    asked = (circuit, inputs, weights, tuple(Z(wire) for wire in range(6)))
    found = backend.expectations(*asked).values
    ideal = open_backend("statevector").expectations(*asked).values
    assert ((found - ideal).abs() < 0.3).all()
    assert (found - ideal).abs().max() > 0.01
    placed = backend._engine.prepare(circuit)
    assert placed.circuit.num_qubits < 10
    assert set(placed.physical) <= set(range(133))


@pytest.mark.parametrize("noise", [None, "readout:0.1", "fake_manila"])
@pytest.mark.parametrize("shots", [None, 100])
def test_a_batch_is_one_call(monkeypatch: pytest.MonkeyPatch, noise: str | None, shots: int | None) -> None:
    from qiskit_aer import AerSimulator

    calls: list[int] = []
    run = AerSimulator.run

    def counted(self, circuits, *args, **options):
        calls.append(1)
        return run(self, circuits, *args, **options)

    monkeypatch.setattr(AerSimulator, "run", counted)
    circuit = angle_encoding(2) + hardware_efficient(2, 1)
    backend = Aer(noise=noise, shots=shots)
    inputs, weights = torch.rand(9, 2), torch.rand(circuit.n_weights)
    backend.expectations(circuit, inputs, weights, (Z(0), X(0) @ X(1), 0.5 * Y(1) + 1), seed=0)
    assert len(calls) == 1


@pytest.mark.parametrize("shots", [None, 4000])
def test_entropy_brings_the_global_purity(shots: int | None) -> None:
    backend = Aer(noise=Noise(depolarising_2q=0.3), shots=shots)
    inputs = torch.zeros(2, 0, dtype=torch.float64)
    found = backend.entropy(BELL, inputs, wires=(0,), kind="renyi2", seed=0)
    assert found.purity is not None
    assert found.purity_stderr is not None
    # 0.7 Bell + 0.3 / 4 everywhere: purity 0.49 + 2 * 0.7 * 0.3 / 4 + 0.09 / 4
    errors = found.purity_stderr if shots else torch.full((2,), 1e-9)
    assert ((found.purity - 0.6175).abs() < ALPHA_1E_6 * errors).all()
    assert ((found.values - math.log(2)).abs() < ALPHA_1E_6 * found.stderr + 1e-9).all()
    assert (found.purity_stderr == 0).all() == (shots is None)


def test_precision_is_the_callers_or_the_backends() -> None:
    circuit = angle_encoding(3) + hardware_efficient(3, 2)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(circuit.n_weights, generator=generator, dtype=torch.float64)
    exact = open_backend("statevector").expectations(circuit, inputs, weights, (Z(0), X(2))).values
    single, double = (
        (Aer(precision=name).expectations(circuit, inputs, weights, (Z(0), X(2))).values - exact).abs().max().item()
        for name in ("single", "double")
    )
    assert 1e-10 < single < 1e-5
    assert double < 1e-12


def test_noise_aware_gradients() -> None:
    """Parameter shift through depolarising noise: the derivative of (1 - p) cos t, by the parts of the circuit."""
    from backends.gradients import expectations_with_gradient

    circuit = Circuit(1, (Op("ry", (0,), (Weight(0),)),))
    weights = torch.tensor([0.9], dtype=torch.float64, requires_grad=True)
    estimate = expectations_with_gradient(Aer(noise=Noise(depolarising_1q=0.25)), circuit, None, weights, (Z(0),))
    (slope,) = torch.autograd.grad(estimate.values.sum(), weights)
    assert slope.item() == pytest.approx(-0.75 * math.sin(0.9), abs=1e-12)


def test_noise_is_part_of_the_configuration() -> None:
    spec = "aer:density_matrix?noise=depolarising_2q:0.01,readout:0.02"
    backend = open_backend(spec)
    assert backend == Aer(method="density_matrix", noise=Noise(readout=0.02, depolarising_2q=0.01))
    assert backend.spec == spec
    assert open_backend("aer?noise=fake_torino").spec == "aer?noise=fake_torino"
    backend.expectations(BELL, observables=(Z(0),))
    for twin in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend)), open_backend(backend.spec)):
        assert (twin, hash(twin), repr(twin)) == (backend, hash(backend), repr(backend))
    declared = backend.capabilities
    assert (declared.noisy, declared.exact, declared.density, declared.state) == (True, False, True, False)
    tiny = Noise(t1_us=1e-7 / 3, readout=1e-9)
    assert Noise.parse(str(tiny)) == tiny


@pytest.mark.parametrize(
    ("noise", "sentence"),
    [
        (
            "fake_torinno",
            "noise of backend 'aer' expects a fake device, got 'fake_torinno': did you mean 'fake_torino'",
        ),
        ("ibm_torino", "did you mean 'fake_torino'"),
        ("readot:0.1", "did you mean 'readout'"),
        ("readout:much", "expects a number for readout, got 'much'"),
        ("readout:1.5", "readout from 0 to 1, got 1.5"),
        ("depolarising_1q:nan", "depolarising_1q from 0 to 1, got nan"),
        ("t1_us:0.0", "positive t1_us, got 0.0"),
        ("t1_us:10,t2_us:30", "t2_us <= 2 t1_us, got 30 and 10"),
        ("gate_1q_ns:30", "expects one of .* got none"),
    ],
)
def test_bad_noise(noise: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_backend(f"aer?noise={noise}")


def test_what_cannot_be_exact_is_refused() -> None:
    networks = Aer(method="matrix_product_state", noise=Noise(readout=0.1))
    with pytest.raises(ValueError, match="with noise expect a density matrix"):
        networks.expectations(BELL, observables=(Z(0),))
    assert networks.expectations(BELL, observables=(Z(0),), shots=50, seed=0).shots == 50
    with pytest.raises(ValueError, match="at most 12 wires"):
        Aer(noise=Noise(readout=0.1)).expectations(Circuit(13), observables=(Z(0),))

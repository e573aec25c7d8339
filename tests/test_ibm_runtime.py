"""The ibm backend's way to the runtime: one call per request, options, both generations, large devices cut down."""

from typing import Any

import numpy as np
import pytest
import torch

from backends import open_backend
from backends.gradients import expectations_with_gradient
from circuits import Circuit, I, Input, Op, Weight, X, Y, Z
from circuits.library import angle_encoding, hardware_efficient

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.executor_sampler import Sampler

from backends.ibm import IBM
from backends.ibm.placing import narrowed, place
from backends.ibm.primitives import Primitives

LOPSIDED = Circuit(3, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 2)), Op("x", (2,)), Op("ry", (1,), (Weight(0),))))
INPUTS, WEIGHTS = torch.tensor([[0.9], [2.5]]), torch.tensor([1.9])
OBSERVABLES = (Z(0), Z(1), Z(2), X(1), Z(0) @ Z(2), 0.5 * Z(0) + 1)
EXACT = open_backend("statevector").expectations(LOPSIDED, INPUTS, WEIGHTS, OBSERVABLES).values


def _count(monkeypatch: pytest.MonkeyPatch, primitive: Any) -> list[tuple[Any, ...]]:
    """Each call's number of PUBs and the shape of the first one's parameters, as calls come."""
    calls: list[tuple[Any, ...]] = []
    run = primitive.run

    def counted(self: Any, pubs: Any, **options: Any) -> Any:
        pubs = list(pubs)
        calls.append((len(pubs), next(iter(pubs[0][-1].values())).shape))
        return run(self, pubs, **options)

    monkeypatch.setattr(primitive, "run", counted)
    return calls


def test_a_jacobian_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 samples, 24 angles, 6 observables in one product basis: one call forward, one for all 768 shifted circuits."""
    calls = _count(monkeypatch, Sampler)
    circuit = angle_encoding(3) + hardware_efficient(3, 2) + angle_encoding(3)
    assert circuit.n_angles == 24
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(16, 3, generator=generator, requires_grad=True)
    weights = torch.rand(circuit.n_weights, generator=generator, requires_grad=True)
    observables = (Z(0), X(1), Y(2), Z(0) @ X(1), X(1) @ Y(2), Z(0) @ Y(2) + 1)
    estimate = expectations_with_gradient(IBM("fake_manila"), circuit, inputs, weights, observables, shots=20, seed=0)
    assert calls == [(1, (16, 24 + 4))]
    (slopes, _) = torch.autograd.grad(estimate.values.sum(), (inputs, weights))
    assert calls[1:] == [(1, (2 * 24 * 16, 24 + 4))]
    assert slopes.shape == (16, 3)
    assert slopes.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({"resilience_level": 1}, 0.1),
        ({"zne": "1,3"}, 0.25),
        ({"twirling": True}, 0.2),
        ({"dynamical_decoupling": "XY4"}, 0.2),
        ({"mode": "job"}, 0.2),
        ({"mode": "session"}, 0.2),
        ({"generation": "older"}, 0.2),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:No positive, finite standard errors")  # the runtime's, where all shots agree
def test_options_reach_the_runtime(options: dict[str, Any], within: float) -> None:
    backend = IBM("fake_manila", shots=1500, **options)
    found = backend.expectations(LOPSIDED, INPUTS, WEIGHTS, OBSERVABLES, seed=3)
    assert ((found.values - EXACT).abs() < within + 4.9 * found.stderr).all()
    assert (EXACT[0] - EXACT[0].flip(0)).abs().max() > 0.8  # an order mistaken could not hide in that
    assert (found.stderr > 0).all()
    assert torch.equal(found.values, backend.expectations(LOPSIDED, INPUTS, WEIGHTS, OBSERVABLES, seed=3).values)
    assert open_backend(backend.spec) == backend


def test_readout_mitigation_corrects_readout() -> None:
    """fake_manila reads |1> wrong in 3 to 7 % of the shots: far beyond the errors of 20,000 shots."""
    ones = Circuit(2, (Op("x", (0,)), Op("x", (1,))))
    raw, corrected = (
        IBM("fake_manila", shots=20000, resilience_level=level).expectations(ones, observables=(Z(0), Z(1)), seed=0)
        for level in (0, 1)
    )
    assert (raw.values > -0.98).all()
    assert (corrected.values < raw.values - 4.9 * corrected.stderr).any()
    assert ((corrected.values + 1).abs() < 0.02 + 4.9 * corrected.stderr).all()


def test_the_estimator_gets_the_batch_in_one_pub(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _count(monkeypatch, Estimator)
    backend = IBM("fake_manila", shots=100, resilience_level=1)
    found = backend.expectations(LOPSIDED, INPUTS, WEIGHTS, OBSERVABLES, seed=0)
    assert calls == [(1, (2, 2))]
    assert found.shots == 200  # X1 and Z1 take a basis each
    constant = backend.expectations(LOPSIDED, INPUTS, WEIGHTS, (3 * I(),), seed=0)
    assert constant.values.tolist() == [[3.0], [3.0]]
    assert len(calls) == 1  # nothing to measure


def test_a_circuit_without_parameters_is_mitigated_too() -> None:
    bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
    backend = IBM("fake_manila", shots=2000, resilience_level=1)
    found = backend.expectations(bell, torch.zeros(3, 0), None, (Z(0) @ Z(1), X(0) @ X(1)), seed=0)
    assert found.values.shape == (3, 2)
    assert (found.values > 0.85).all()


def test_precision_is_shots() -> None:
    assert IBM("fake_manila", precision=0.05).shots == 400
    assert IBM("fake_manila", precision=0.1).shots == 100
    backend = open_backend("ibm:fake_manila?precision=0.05")
    assert backend == open_backend(backend.spec)
    found = backend.expectations(LOPSIDED, INPUTS, WEIGHTS, (Z(0), X(0)), seed=0)
    assert found.shots == 800
    assert (found.stderr < 0.052).all()


def test_the_options_that_are_sent() -> None:
    local = Primitives(twirling=True, dynamical_decoupling="XX").options("Sampler", seed=7)
    assert local == {
        "twirling": {"enable_gates": True, "enable_measure": True},
        "dynamical_decoupling": {"enable": True, "sequence_type": "XX"},
        "simulator": {"seed_simulator": 7, "angle_decimals": 12},
    }
    remote = Primitives(resilience_level=1, zne=(1.0, 3.0)).options("Estimator", 7, tag="qlm-ab", seconds=30)
    assert remote == {
        "max_execution_time": 30,
        "environment": {"job_tags": ["hybridqlm", "qlm-ab"]},
        "resilience_level": 1,
        "resilience": {"zne_mitigation": True, "zne": {"noise_factors": (1.0, 3.0)}},
    }


def test_six_wires_of_156_qubits() -> None:
    circuit = angle_encoding(6) + hardware_efficient(6, 1)
    generator = torch.Generator().manual_seed(0)
    inputs, weights = torch.rand(2, 6, generator=generator), torch.rand(circuit.n_weights, generator=generator)
    asked = (circuit, inputs, weights, tuple(Z(wire) for wire in range(6)))
    found = open_backend("ibm:fake_fez").expectations(*asked, seed=0)
    ideal = open_backend("statevector").expectations(*asked).values
    assert ((found.values - ideal).abs() < 0.25 + 4.9 * found.stderr).all()
    assert open_backend("ibm:fake_fez").capabilities.max_wires == 12


def test_too_many_qubits_in_use_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.ibm.access.MAX_FAKE_WIRES", 2)
    with pytest.raises(ValueError, match=r"at most 2 qubits in use, got \d+ after routing"):
        open_backend("ibm:fake_torino").expectations(LOPSIDED, INPUTS, WEIGHTS, (Z(0),), seed=0)


def test_a_narrowed_circuit_is_the_circuit() -> None:
    """Unitaries of the whole transpiled circuit and of the narrowed one agree on every wire."""
    from qiskit.quantum_info import Statevector, partial_trace
    from qiskit_ibm_runtime.fake_provider import FakeJakartaV2

    circuit = angle_encoding(3) + hardware_efficient(3, 1, entangler="ring")
    placed = place(FakeJakartaV2(), circuit)
    small = narrowed(placed)
    assert small.circuit.num_qubits < placed.circuit.num_qubits == 7
    assert [small.physical[qubit] for qubit in small.qubits] == list(placed.qubits)
    values = np.random.default_rng(0).uniform(0, 6, circuit.n_angles)
    rhos = []
    for each in (placed, small):
        state = Statevector(each.circuit.assign_parameters(values[list(each.columns)]))
        others = [qubit for qubit in range(each.circuit.num_qubits) if qubit not in each.qubits]
        order = np.argsort(np.argsort(each.qubits))
        rhos.append((partial_trace(state, others).data, order.tolist()))
    np.testing.assert_allclose(rhos[0][0], rhos[1][0], atol=1e-12)
    assert rhos[0][1] == rhos[1][1]

"""Nothing that was sampled is certain: every figure of a backend with shots has an error, product states too."""

import math

import pytest
import torch

from backends import Backend, Estimate, open_backend
from circuits import Circuit, Input, Op, X, Z

BASIS_STATE = Circuit(4, (Op("x", (1,)), Op("ry", (3,), (Input(0),))))
"""|0100> at angle 0: some outcomes are certain, whatever the shots."""
ANGLES = torch.tensor([[0.0], [math.pi]], dtype=torch.float64)


@pytest.fixture(params=["aer?shots=64", "ibm:fake_manila?shots=64"])
def sampled(request: pytest.FixtureRequest) -> Backend:
    pytest.importorskip("qiskit_aer" if request.param.startswith("aer") else "qiskit_ibm_runtime")
    return open_backend(request.param)


def results(backend: Backend) -> dict[str, Estimate]:
    """Every kind of result for the basis states."""
    circuit = (BASIS_STATE, ANGLES)
    observables = (Z(0), Z(0) @ Z(1), X(2), Z(3) + 0.5 * X(3))
    return {
        "expectations": backend.expectations(*circuit, None, observables, seed=3),
        "along": backend.expectations(*circuit, None, observables, after=(0, 1, 2), seed=3),
        "probabilities": backend.probabilities(*circuit, None, (1, 3), seed=3),
        "density": backend.density(*circuit, None, (0, 1), seed=3),
        "one wire": backend.entropy(*circuit, None, (1,), seed=3),
        "two wires": backend.entropy(*circuit, None, (3, 0), seed=3),
        "renyi2": backend.entropy(*circuit, None, (1, 3), "renyi2", seed=3),
        "fidelity": backend.fidelity(*circuit, *circuit, seed=3),
        "gram": backend.fidelity(*circuit, *circuit, gram=True, seed=3),
    }


def test_no_error_is_zero(sampled: Backend) -> None:
    for name, found in results(sampled).items():
        assert float(found.stderr.min()) > 1 / 64**2, name
        if found.purity_stderr is not None:
            assert float(found.purity_stderr.min()) > 1 / 64**2, name


def test_what_is_certain_lies_within_its_error() -> None:
    """On a simulator without noise: -1 and 1, probabilities 0 and 1, entropy 0, fidelity 1."""
    pytest.importorskip("qiskit_aer")
    found = results(open_backend("aer?shots=64"))
    for name, truth in {
        "probabilities": torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 1]]),
        "one wire": torch.zeros(2),
        "two wires": torch.zeros(2),
        "renyi2": torch.zeros(2),
        "fidelity": torch.ones(2),
        "gram": torch.eye(2),
    }.items():
        assert bool(((found[name].values - truth).abs() <= 1.96 * found[name].stderr).all()), name
    assert found["expectations"].values[:, :2].tolist() == [[1, -1], [1, -1]]
    upper = found["one wire"].values + 1.96 * found["one wire"].stderr
    assert bool((upper > 0.15).all())  # a flip in 3 of 64 shots has 0.19 nats


@pytest.mark.parametrize("shots", [256, 1024])
def test_subsystems_of_a_pure_state_of_four_wires_are_covered(shots: int) -> None:
    """cos(t/2)|00> + sin(t/2)|11> on wires 0 and 2: entropies from 0 to ln 2, 40 copies of each."""
    pytest.importorskip("qiskit_aer")
    circuit = Circuit(
        4, (Op("x", (1,)), Op("ry", (0,), (Input(0),)), Op("cx", (0, 2)), Op("h", (3,)), Op("cx", (3, 1)))
    )
    angles = torch.tensor([0.0, 0.29, 0.92, 1.45, math.pi / 2], dtype=torch.float64).repeat(40)[:, None]
    for wires in ((0,), (3, 2)):
        exact = open_backend("statevector").entropy(circuit, angles, None, wires).values
        found = open_backend("aer").entropy(circuit, angles, None, wires, shots=shots, seed=1)
        covered = ((found.values - exact).abs() <= 1.96 * found.stderr + 1e-9).double().reshape(40, 5).mean(0)
        print(wires, shots, exact[:5].tolist(), covered.tolist())
        assert float(covered.min()) >= 0.85
        assert float(found.stderr.min()) > 0.5 / shots

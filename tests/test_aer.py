"""The aer backend: wire order, agreement with the state vector and with dense matrices, shots, batches, strings."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data

from backends import Backend, Estimate, open_backend
from backends.counts import Bases, bases_of, derived_seed, expectations, probabilities
from circuits import Circuit, I, Input, Op, PauliSum, Reset, Weight, X, Y, Z

pytest.importorskip("qiskit_aer", reason="the extra qiskit is not installed")

from backends.aer import Aer

METHODS = ("automatic", "statevector", "density_matrix", "matrix_product_state")
# RY(1.2) on wire 0, X on wire 2, and wire 1 entangled with wire 0: no two wires and no reversal look alike.
LOPSIDED = Circuit(3, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("x", (2,)), Op("ry", (1,), (Weight(0),))))
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
ALPHA_1E_6 = 4.9
"""Standard errors beyond which a normal deviate lies with probability 1e-6."""


def _observables(n_wires: int) -> tuple[PauliSum, ...]:
    last = n_wires - 1
    return Z(0), X(last) @ Y(0), 0.5 * Z(0) @ X(1) + 0.3 * Y(1) - 0.2, Z(last) - Z(0) @ Z(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shots", [None, 2000])
def test_wire_order(method: str, shots: int | None) -> None:
    backend = Aer(method=method, shots=shots)
    inputs, weights = torch.tensor([[1.2], [0.4]]), torch.tensor([0.3])
    found = backend.expectations(LOPSIDED, inputs, weights, (Z(0), Z(1), Z(2), X(0) @ X(1)), seed=1)
    expected = torch.tensor(
        [[math.cos(a), math.cos(a) * math.cos(0.3), -1.0, math.sin(a) * math.cos(0.3)] for a in (1.2, 0.4)]
    )
    assert ((found.values - expected).abs() <= ALPHA_1E_6 * found.stderr + 1e-6).all()
    chances = backend.probabilities(LOPSIDED, inputs, weights, wires=(2, 0), seed=1)
    one = torch.sin(torch.tensor([0.6, 0.2])).square()
    exact = torch.stack([torch.zeros(2), torch.zeros(2), 1 - one, one], 1)
    assert ((chances.values - exact).abs() <= ALPHA_1E_6 * chances.stderr + 1e-6).all()
    bits = backend.samples(LOPSIDED, inputs, weights, wires=(2, 0), shots=2000, seed=1).values
    assert bits.shape == (2, 2000, 2)
    assert (bits[..., 0] == 1).all()
    assert ((bits[..., 1].double().mean(1) - one).abs() < ALPHA_1E_6 * (one * (1 - one) / 2000).sqrt()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_state_vector(dtype: torch.dtype) -> None:
    exact, backend = open_backend("statevector"), Aer()
    for case in range(100):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(2, 6))
        circuit = random_circuit(rng, n_wires, int(rng.integers(1, 12)))
        inputs, weights = (torch.tensor(data, dtype=dtype) for data in random_data(rng, circuit, 3))
        wires = tuple(int(wire) for wire in rng.permutation(n_wires)[:2])
        asked = (circuit, inputs, weights)
        pairs = [
            (backend.expectations(*asked, _observables(n_wires)), exact.expectations(*asked, _observables(n_wires))),
            (backend.probabilities(*asked, wires), exact.probabilities(*asked, wires)),
            (backend.state(*asked), exact.state(*asked)),
            (backend.density(*asked, wires), exact.density(*asked, wires)),
            (backend.entropy(*asked, wires), exact.entropy(*asked, wires)),
        ]
        for ours, theirs in pairs:
            assert ours.values.dtype == theirs.values.dtype
            torch.testing.assert_close(ours.values, theirs.values, atol=TOLERANCE[dtype], rtol=0)
            assert ours.shots is None
            assert (ours.stderr == 0).all()


def test_resets_with_shots_are_sampled_shot_by_shot() -> None:
    mixing = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)), *Reset(1)))
    for method in METHODS:
        bits = Aer(method=method, shots=3000).samples(mixing, seed=2).values[0].double()
        assert (bits[:, 1] == 0).all()
        assert abs(bits[:, 0].mean() - 0.5) < ALPHA_1E_6 * 0.5 / 3000**0.5


def test_exact_networks_refuse_resets() -> None:
    with pytest.raises(ValueError, match="without resets"):
        Aer(method="matrix_product_state").expectations(Circuit(1, Reset(0)), observables=(Z(0),))
    with pytest.raises(ValueError, match="at most 12 wires"):
        Aer().expectations(Circuit(13, Reset(0)), observables=(Z(0),))


def test_matrix_product_state_holds_many_wires() -> None:
    ghz = Circuit(40, (Op("ry", (0,), (Input(0),)), *(Op("cx", (k, k + 1)) for k in range(39))))
    found = Aer(method="matrix_product_state").expectations(
        ghz, torch.tensor([[0.7], [2.0]], dtype=torch.float64), None, (Z(39), Z(0) @ Z(39))
    )
    expected = [[math.cos(0.7), 1.0], [math.cos(2.0), 1.0]]
    torch.testing.assert_close(found.values, torch.tensor(expected, dtype=torch.float64))


def test_shots_are_honest() -> None:
    exact, backend = open_backend("statevector"), Aer(shots=500)
    deviates: list[torch.Tensor] = []
    for case in range(25):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(2, 5))
        circuit = random_circuit(rng, n_wires, int(rng.integers(4, 12)))
        inputs, weights = random_data(rng, circuit, 3)
        found = backend.expectations(circuit, inputs, weights, _observables(n_wires), seed=case)
        truth = exact.expectations(circuit, inputs, weights, _observables(n_wires)).values
        assert (found.stderr > 0).all()
        deviates.append(((found.values - truth) / found.stderr).flatten())
    every = torch.cat(deviates)
    assert every.numel() == 300
    assert every.abs().max() < 5.9  # 300 deviates at a joint level of 1e-6
    assert 0.75 < every.std() < 1.15  # many observables have fixed signs, whose errors are rounded up


def test_covariance_within_a_basis_counts() -> None:
    """Z0 + Z1 of a singlet-like state never varies; Z0 - Z1 varies twice as much as independent wires would."""
    opposite = Circuit(2, (Op("x", (1,)), Op("h", (0,)), Op("cx", (0, 1))))
    found = Aer(shots=1000).expectations(opposite, observables=(Z(0) + Z(1), Z(0) - Z(1)), seed=0)
    assert found.values[0, 0] == 0
    assert found.shots == 1000
    assert found.stderr[0, 0] < 0.006
    assert found.stderr[0, 1] == pytest.approx(2 / 1000**0.5, rel=0.05)


def test_equal_shots_never_claim_certainty() -> None:
    found = Aer(shots=100).expectations(Circuit(1), observables=(Z(0), 3 * Z(0) + 1, I()), seed=0)
    assert found.values.tolist() == [[1.0, 4.0, 1.0]]
    assert found.stderr[0].tolist() == pytest.approx([0.0197, 3 * 0.0197, 0.0], abs=1e-3)
    chances = Aer(shots=100).probabilities(Circuit(1), seed=0)
    assert chances.values.tolist() == [[1.0, 0.0]]
    assert (chances.stderr > 0.009).all()


def test_bases_are_few_and_shared() -> None:
    bases = bases_of((Z(0), Z(0) @ Z(2), X(2), I()))
    assert sorted(bases.letters) == ["ZX", "ZZ"]
    assert bases.rotated == (2,)
    bits = np.zeros((1, 2, 10, 2), np.uint8)
    bits[0, 0, :5, 0] = 1  # Z0 reads 0 in the first basis and 1 in the second: their mean is what both together say
    assert expectations(bits, bases, (Z(0),), torch.zeros(1)).values.item() == 0.5
    assert probabilities(bits[:, 0], torch.zeros(1)).values.tolist() == [[0.5, 0.0, 0.5, 0.0]]
    assert bases_of((I(),)) == Bases((), ())
    assert derived_seed(2**70, 0) != derived_seed(2**70, 1)


@pytest.mark.parametrize("shots", [None, 64])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_batches(shots: int | None, batch: int) -> None:
    backend = Aer(shots=shots)
    circuit = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
    inputs = torch.full((batch, 1), math.pi)
    found = backend.expectations(circuit, inputs, None, (Z(0), Z(0) @ Z(1)), seed=0)
    assert found.values.shape == found.stderr.shape == (batch, 2)
    torch.testing.assert_close(found.values, torch.tensor([[-1.0, 1.0]]).repeat(batch, 1))
    assert backend.samples(circuit, inputs, None, shots=7, seed=0).values.tolist() == [[[1, 1]] * 7] * batch
    assert backend.entropy(circuit, inputs, None, wires=(0,), seed=0).values.shape == (batch,)


def test_a_batch_without_angles_draws_independent_samples() -> None:
    circuit = Circuit(1, (Op("h", (0,)),))
    found = Aer(shots=200).expectations(circuit, torch.zeros(4, 0), None, (Z(0),), seed=0)
    assert found.values.shape == (4, 1)
    assert len(set(found.values[:, 0].tolist())) > 1
    exact = Aer().expectations(circuit, torch.zeros(4, 0), None, (X(0),))
    torch.testing.assert_close(exact.values, torch.ones(4, 1))


def test_seeds_repeat_and_rows_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, asked = (
        Aer(shots=100),
        (Circuit(1, (Op("ry", (0,), (Input(0),)),)), torch.full((6, 1), 1.5), None, (Z(0),)),
    )
    first = backend.expectations(*asked, seed=5).values
    assert torch.equal(first, backend.expectations(*asked, seed=5).values)
    assert not torch.equal(first, backend.expectations(*asked, seed=6).values)
    assert not torch.equal(backend.expectations(*asked).values, backend.expectations(*asked).values)
    assert len(set(first.flatten().tolist())) > 1
    monkeypatch.setattr("backends.counts._MAX_STRINGS", 200)  # two rows a call: the calls have seeds of their own
    split = backend.expectations(*asked, seed=5).values
    assert split.shape == (6, 1)
    assert not torch.equal(split[:2], split[2:4])


def test_shots_per_call_override_an_exact_backend() -> None:
    bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
    counted: list[Estimate] = [
        Aer().expectations(bell, observables=(Z(0),), shots=50, seed=0),
        Aer().entropy(bell, wires=(0,), shots=400, seed=0),
        Aer().density(bell, wires=(0,), shots=400, seed=0),
    ]
    assert [estimate.shots for estimate in counted] == [50, 1200, 1200]
    assert all((estimate.stderr > 0).any() for estimate in counted)
    assert abs(counted[1].values.item() - math.log(2)) < 0.02


def test_is_its_own_configuration() -> None:
    backend = Aer(method="density_matrix", shots=10)
    backend.expectations(Circuit(1), observables=(Z(0),), seed=0)  # opens a live simulator
    assert "_engine" in vars(backend)
    for twin in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend)), open_backend(backend.spec)):
        assert twin == backend
        assert hash(twin) == hash(backend)
        assert (
            repr(twin)
            == repr(backend)
            == ("Aer(method='density_matrix', shots=10, max_bond=None, precision=None, noise=None)")
        )
        assert "_engine" not in vars(twin)
        assert twin.expectations(Circuit(1), observables=(Z(0),), seed=0).values.item() == 1
    assert isinstance(backend, Backend)
    assert backend != Aer(shots=10)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("aer", Aer()),
        ("aer:matrix_product_state", Aer(method="matrix_product_state")),
        ("aer?shots=1000", Aer(shots=1000)),
        ("aer:statevector?shots=3", Aer(method="statevector", shots=3)),
        ("aer:matrix_product_state?max_bond=32", Aer(method="matrix_product_state", max_bond=32)),
        ("aer?precision=single", Aer(precision="single")),
    ],
)
def test_strings(spec: str, expected: Aer) -> None:
    assert open_backend(spec) == expected
    assert expected.spec == spec

"""The ibm backend on fake devices: noise near the ideal, layouts, seeds, entropies with global purity, strings."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch

from backends import open_backend
from circuits import Circuit, Input, Op, Reset, Weight, X, Z
from circuits.library import angle_encoding, hardware_efficient

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from backends.ibm import IBM
from backends.ibm.devices import fake_devices

MANILA = IBM("fake_manila", shots=1000)
BELL = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
LOPSIDED = Circuit(3, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 2)), Op("x", (2,)), Op("ry", (1,), (Weight(0),))))
NOISE = 0.2
"""Loss of an expectation through a handful of gates and the readout of two or three wires of fake_manila."""


def test_layout_and_wire_order() -> None:
    """Three of five qubits, routed between wires 0 and 2, read in the caller's order."""
    inputs, weights = torch.tensor([[0.9], [2.5]]), torch.tensor([1.9])
    observables = (Z(0), Z(1), Z(2), X(1), Z(0) @ Z(2))
    exact = open_backend("statevector").expectations(LOPSIDED, inputs, weights, observables).values
    found = MANILA.expectations(LOPSIDED, inputs, weights, observables, seed=3)
    assert ((found.values - exact).abs() < NOISE).all()
    assert (exact[0] - exact[0].flip(0)).abs().max() > 4 * NOISE  # an order mistaken could not hide in the noise
    assert (found.values - exact > 4.9 * found.stderr)[:, 4].all()  # and the noise is there: ideally Z0 Z2 = -1
    chances = MANILA.probabilities(LOPSIDED, inputs, weights, wires=(2, 1), seed=3).values
    ideal = open_backend("statevector").probabilities(LOPSIDED, inputs, weights, wires=(2, 1)).values
    assert ((chances - ideal).abs() < NOISE).all()
    bits = MANILA.samples(LOPSIDED, inputs, weights, wires=(2, 1), seed=3).values
    assert bits.shape == (2, 1000, 2)
    frequencies = (2 * bits[..., 0].int() + bits[..., 1].int()).flatten(1)
    assert torch.equal(chances, torch.stack([torch.bincount(row, minlength=4) / 1000 for row in frequencies]))


def test_a_batch_in_all_bases_is_one_pub(monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit_ibm_runtime.executor_sampler import Sampler

    calls: list[tuple[int, Any]] = []
    run = Sampler.run

    def counted(self: Sampler, pubs: Any, **options: Any) -> Any:
        pubs = list(pubs)
        calls.append((len(pubs), next(iter(pubs[0][1].values())).shape))
        return run(self, pubs, **options)

    monkeypatch.setattr(Sampler, "run", counted)
    inputs = torch.rand(7, 1, generator=torch.Generator().manual_seed(0))
    found = MANILA.entropy(LOPSIDED, inputs, torch.tensor([1.9]), wires=(0, 2), shots=50, seed=0)
    assert calls == [(1, (7 * 27, LOPSIDED.n_angles + 6))]
    assert found.shots == 27 * 17  # 50 a basis of the two wires, shared by three letters of the third


def test_entropy_of_a_bell_pair() -> None:
    for kind in ("von_neumann", "renyi2"):
        found = MANILA.entropy(BELL, wires=(0,), kind=kind, seed=1)
        assert abs(found.values.item() - math.log(2)) < 0.02
        assert 0 < found.stderr.item() < 0.02
        assert found.purity is not None
        assert found.purity_stderr is not None
        assert 0.6 < found.purity.item() < 0.95
        assert 0 < found.purity_stderr.item() < 0.05
        assert found.values.item() > -math.log(found.purity.item())  # entangled: S(A) > S(AB)


def test_entropy_of_a_product_is_noise_alone() -> None:
    product = Circuit(2, (Op("ry", (0,), (1.0,)), Op("ry", (1,), (2.0,))))
    found = MANILA.entropy(product, wires=(0,), kind="renyi2", seed=1)
    assert found.purity is not None
    assert 0 < found.values.item() < 0.25
    assert found.values.item() < -math.log(found.purity.item())  # no claim of entanglement: S(A) < S(AB)


def test_four_wires_as_in_an_entropy_map() -> None:
    circuit = angle_encoding(4) + hardware_efficient(4, 1)
    generator = torch.Generator().manual_seed(0)
    inputs, weights = 3 * torch.rand(6, 4, generator=generator), 3 * torch.rand(circuit.n_weights, generator=generator)
    found = MANILA.entropy(circuit, inputs, weights, wires=(0, 1), seed=2)
    exact = open_backend("statevector").entropy(circuit, inputs, weights, wires=(0, 1)).values
    assert found.shots == 27 * 334
    assert found.purity is not None
    assert found.purity.shape == found.values.shape == found.stderr.shape == (6,)
    assert (found.values > exact - 4.9 * found.stderr).all()  # noise adds entropy
    assert ((found.purity > 1 / 16) & (found.purity < 1)).all()
    assert ((found.values >= 0) & (found.values <= 2 * math.log(2))).all()


def test_seeds_repeat() -> None:
    asked = (LOPSIDED, torch.tensor([[0.9]]), torch.tensor([1.9]), (Z(0), X(1)))
    first = MANILA.expectations(*asked, seed=5)
    again = IBM("fake_manila", shots=1000).expectations(*asked, seed=5)
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, MANILA.expectations(*asked, seed=6).values)
    assert not torch.equal(MANILA.expectations(*asked).values, MANILA.expectations(*asked).values)


def test_resets() -> None:
    circuit = Circuit(2, (Op("x", (0,)), Op("x", (1,)), *Reset(0)))
    found = MANILA.expectations(circuit, observables=(Z(0), Z(1)), seed=1).values
    assert found[0, 0] > 1 - NOISE
    assert found[0, 1] < -1 + NOISE


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches(batch: int) -> None:
    found = MANILA.expectations(LOPSIDED, torch.zeros(batch, 1), torch.zeros(1), (Z(0),), shots=20, seed=0)
    assert found.values.shape == found.stderr.shape == (batch, 1)
    assert found.shots == (20 if batch else found.shots)
    fixed = MANILA.samples(BELL, torch.zeros(batch, 0), shots=20, seed=0).values
    assert fixed.shape == (batch, 20, 2)


def test_is_its_own_configuration() -> None:
    backend = IBM("fake_lima", shots=10)
    backend.expectations(BELL, observables=(Z(0),), seed=0)
    assert "_access" in vars(backend)
    for twin in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend)), open_backend(backend.spec)):
        assert twin == backend
        assert hash(twin) == hash(backend)
        assert repr(twin) == repr(backend)
        assert "_access" not in vars(twin)
    assert torch.equal(
        copy.deepcopy(backend).expectations(BELL, observables=(Z(0),), seed=0).values,
        backend.expectations(BELL, observables=(Z(0),), seed=0).values,
    )


def test_capabilities() -> None:
    declared = MANILA.capabilities
    assert (declared.max_wires, declared.noisy, declared.shots, declared.exact) == (5, True, True, False)
    assert not declared.remote
    with pytest.raises(ValueError, match="at most 5 wires"):
        MANILA.expectations(Circuit(6), observables=(Z(0),))


def test_all_names_are_devices() -> None:
    assert {"fake_manila", "fake_jakarta", "fake_torino"} <= set(fake_devices())
    assert open_backend("ibm:fake_jakarta?shots=7") == IBM("fake_jakarta", shots=7)


def test_a_device_must_be_named() -> None:
    with pytest.raises(ValueError, match="ibm:fake_manila"):
        open_backend("ibm")
    assert open_backend("ibm:fake_manila").spec == "ibm:fake_manila"

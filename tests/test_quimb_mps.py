"""quimb's matrix product states against the exact state: values, errors, wires, entropies, costs, refusals."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("quimb", reason="needs quimb: pip install 'hybridqlm[tensornet]'")

from backends import Estimate, expectations_with_gradient, open_backend
from backends.quimb_mps import QuimbMPS
from backends.tensor_network import chain
from backends.tensor_network.evolution import State
from circuits import GATES, Circuit, I, Input, Op, PauliSum, Reset, Weight, X, Y, Z

EXACT = open_backend("statevector")
METHODS = ("mps", "permmps")


def scrambled(n_wires: int, n_ops: int, seed: int) -> tuple[Circuit, torch.Tensor]:
    """Random gates on random wires, distant ones too, and angles for them."""
    rng = np.random.default_rng(seed)
    ops = [Op("ry", (wire,), (0.3 + 0.4 * wire,)) for wire in range(n_wires)]
    names, count = list(GATES), 0
    for _ in range(n_ops):
        gate = GATES[names[rng.integers(len(names))]]
        wires = tuple(int(wire) for wire in rng.choice(n_wires, gate.n_wires, replace=False))
        ops.append(Op(gate.name, wires, (Weight(count),) if gate.n_angles else ()))
        count += gate.n_angles
    return Circuit(n_wires, tuple(ops)), torch.from_numpy(rng.uniform(-3, 3, count))


def brickwork(n_wires: int, n_layers: int, seed: int) -> tuple[Circuit, torch.Tensor]:
    """Layers of RY, RZ and alternating RXX, RZZ on neighbours."""
    ops: list[Op] = []
    count = 0
    for layer in range(n_layers):
        for wire in range(n_wires):
            ops += [Op("ry", (wire,), (Weight(count),)), Op("rz", (wire,), (Weight(count + 1),))]
            count += 2
        for wire in range(layer % 2, n_wires - 1, 2):
            ops += [Op("rxx", (wire, wire + 1), (Weight(count),)), Op("rzz", (wire, wire + 1), (Weight(count + 1),))]
            count += 2
    return Circuit(n_wires, tuple(ops)), torch.from_numpy(np.random.default_rng(seed).uniform(-3, 3, count))


def some_observables(n_wires: int) -> tuple[PauliSum, ...]:
    last = n_wires - 1
    return (X(0), Y(last), 0.5 * Z(0) - 0.25 * X(0) @ Y(last) + 0.1 * I(), *(Z(wire) for wire in range(n_wires)))


def within(estimate: Estimate, truth: Estimate) -> None:
    """The declared error covers the true one, and 1e-12 of rounding."""
    error = (estimate.values - truth.values).abs()
    assert estimate.truncation_error.shape == error.shape
    assert bool((error <= estimate.truncation_error + 1e-12).all()), (error.max(), estimate.truncation_error.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_wires", [1, 2, 5, 8])
def test_without_truncation_all_results_are_those_of_the_state(method: str, n_wires: int) -> None:
    circuit, weights = (
        scrambled(n_wires, 40, seed=n_wires) if n_wires > 1 else (Circuit(1, (Op("rx", (0,), (0.7,)),)), None)
    )
    backend = QuimbMPS(method=method)
    observables = some_observables(n_wires) if n_wires > 1 else (Y(0), Z(0))
    calls = [("expectations", {"observables": observables})]
    subsets = {(0,), (n_wires - 1, 0)[: min(2, n_wires)], tuple(range(n_wires))[::-1]}
    for wires in subsets:
        calls += [("probabilities", {"wires": wires}), ("density", {"wires": wires})]
        calls += [("entropy", {"wires": wires, "kind": kind}) for kind in ("von_neumann", "renyi2")]
    for name, asked in calls:
        found = getattr(backend, name)(circuit, None, weights, **asked)
        truth = getattr(EXACT, name)(circuit, None, weights, **asked)
        tolerance = 1e-6 if weights is None else 1e-10  # single precision where the caller gave no tensor
        assert (found.values - truth.values).abs().max() < tolerance, (name, asked)
        assert found.truncation_error.max() < 1e-7
        assert found.infidelity.max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n_wires", "max_bond", "seed"), [(4, 1, 0), (6, 2, 1), (8, 4, 2), (8, 6, 3)])
def test_truncation_error_covers_every_result_of_long_range_circuits(
    method: str, n_wires: int, max_bond: int, seed: int
) -> None:
    circuit, weights = scrambled(n_wires, 50, seed)
    backend = QuimbMPS(method=method, max_bond=max_bond)
    observables = some_observables(n_wires)
    found = backend.expectations(circuit, None, weights, observables)
    assert 0 < found.infidelity.item() < 1
    within(found, EXACT.expectations(circuit, None, weights, observables))
    for wires in ((1,), (2, 0), (3, 1, 0), tuple(range(n_wires // 2))):
        within(backend.probabilities(circuit, None, weights, wires), EXACT.probabilities(circuit, None, weights, wires))
        within(backend.density(circuit, None, weights, wires), EXACT.density(circuit, None, weights, wires))
        for kind in ("von_neumann", "renyi2"):
            truth = EXACT.entropy(circuit, None, weights, wires, kind)
            within(backend.entropy(circuit, None, weights, wires, kind), truth)


def test_a_light_truncation_has_a_useful_bound_and_a_good_estimate_of_the_fidelity() -> None:
    circuit, weights = brickwork(12, 4, seed=1)
    backend = QuimbMPS(max_bond=12)
    found = backend.expectations(circuit, None, weights, some_observables(12))
    within(found, EXACT.expectations(circuit, None, weights, some_observables(12)))
    assert 0 < found.truncation_error[0, 0] < 0.5
    assert torch.allclose(found.truncation_error[0, 2], 0.75 * found.truncation_error[0, 0])  # the identity is certain
    exact = EXACT.state(circuit, None, weights).values
    state = State(circuit, circuit.angles(torch.zeros(1, 0, dtype=torch.float64), weights)[0].numpy(), False, 12, 1e-10)
    state.advance(len(circuit.ops))
    lost = 1 - abs(np.vdot(chain.dense(state.tensors()), exact[0].numpy())) ** 2
    assert lost < state.distance**2
    assert 0.5 * lost < found.infidelity.item() < 2 * lost


def test_errors_that_add_up_in_phase_are_covered() -> None:
    """A rotation in 100 small steps at bond 1: each step loses little, all of them lose everything."""
    steps = tuple(Op("rxx", (0, 1), (math.pi / 200,)) for _ in range(100))
    found = QuimbMPS(max_bond=1).expectations(Circuit(2, steps), None, torch.zeros(0, dtype=torch.float64), (Z(0),))
    assert found.values.item() == pytest.approx(1.0)  # the exact value is cos(pi / 2) = 0
    assert 2 * math.sqrt(found.infidelity.item()) < 0.2  # what independent errors would do
    assert found.truncation_error.item() == pytest.approx(2 * math.sin(math.pi / 4))


@pytest.mark.parametrize("method", METHODS)
def test_values_along_and_single_precision(method: str) -> None:
    circuit, weights = scrambled(5, 30, seed=9)
    times = (0, 7, 7, 20, len(circuit.ops))
    found = QuimbMPS(method=method, max_bond=2).expectations(circuit, None, weights, (Z(0), X(3)), after=times)
    truth = EXACT.expectations(circuit, None, weights, (Z(0), X(3)), after=times)
    within(found, truth)
    assert bool((found.truncation_error[0].diff(dim=0) >= 0).all())
    single = QuimbMPS(method=method).expectations(circuit, None, weights.float(), (Z(0), X(3)), after=times)
    assert single.values.dtype == torch.float32
    assert (single.values - truth.values).abs().max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_entropies_are_those_of_the_right_cut(method: str) -> None:
    """GHZ has ln 2 everywhere; two Bell pairs across the chain have 0, ln 2 or 2 ln 2, whatever order sites end in."""
    ghz = Circuit(6, (Op("h", (0,)), *(Op("cx", (0, wire)) for wire in (5, 2, 4, 1, 3))))
    pairs = Circuit(6, (Op("h", (0,)), Op("cx", (0, 4)), Op("h", (1,)), Op("cx", (1, 3))))
    backend = QuimbMPS(method=method)
    for wires in ((0,), (0, 1), (0, 1, 2), (5, 3), (2, 4), (0, 2, 4, 5)):
        for kind in ("von_neumann", "renyi2"):
            assert backend.entropy(ghz, wires=wires, kind=kind).values.item() == pytest.approx(math.log(2), abs=1e-6)
    cuts = {(0,): 1, (0, 1): 2, (0, 4): 0, (1, 3): 0, (0, 1, 2, 3): 1, (5,): 0, (4, 5): 1, (3, 4): 2, (0, 3): 2}
    for wires, number in cuts.items():
        found = backend.entropy(pairs, wires=wires).values.item()
        assert found == pytest.approx(number * math.log(2), abs=1e-6), wires


def test_a_wide_chain_has_entropies_at_its_ends_and_of_few_wires() -> None:
    ghz = Circuit(60, (Op("h", (0,)), *(Op("cx", (wire, wire + 1)) for wire in range(59))))
    backend = QuimbMPS()
    for wires in (range(30), range(25, 60), (3, 40, 17), range(1, 59)):
        assert backend.entropy(ghz, wires=tuple(wires)).values.item() == pytest.approx(math.log(2), abs=1e-6)
    with pytest.raises(ValueError, match="no end of the chain, of at most 10 wires, got 20; ask for fewer"):
        backend.entropy(ghz, wires=tuple(range(20, 40)))
    with pytest.raises(ValueError, match="at most 10 wires, got 60"):
        backend.density(ghz)
    with pytest.raises(ValueError, match=r"got one of \d+ bytes; lower max_bond, ask for fewer wires or raise memory"):
        backend.with_options(memory_limit=2**30).probabilities(ghz)
    drawn = backend.samples(ghz, shots=200, seed=3)
    assert set(drawn.values[0].sum(1).tolist()) == {0, 60}
    assert 60 < drawn.values[0, :, 0].sum() < 140


@pytest.mark.parametrize("method", METHODS)
def test_samples_follow_the_probabilities_in_the_callers_order(method: str) -> None:
    circuit, weights = scrambled(5, 30, seed=4)
    backend = QuimbMPS(method=method)
    bits = backend.samples(circuit, None, weights, wires=(3, 0), shots=20000, seed=5).values[0].double().numpy()
    counts = np.bincount((bits @ [2, 1]).astype(int), minlength=4) / 20000
    truth = EXACT.probabilities(circuit, None, weights, (3, 0)).values[0].numpy()
    assert np.abs(counts - truth).max() < 5 * 0.5 / math.sqrt(20000)
    truncated = backend.with_options(max_bond=1).samples(circuit, None, weights, shots=3, seed=5)
    assert truncated.infidelity.item() > 0
    assert bool((truncated.truncation_error > 0).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("max_bond", [2, 64])
def test_fidelities_of_different_circuits_are_within_both_errors(method: str, max_bond: int) -> None:
    """Different circuits leave permuted chains in different orders."""
    (one, one_weights), (two, two_weights) = scrambled(5, 25, seed=6), scrambled(5, 20, seed=7)
    backend = QuimbMPS(method=method, max_bond=max_bond)
    for other, weights in ((two, two_weights), (one, one_weights + 0.1), (one, one_weights)):
        asked: dict[str, Any] = {"weights_a": one_weights, "weights_b": weights}
        within(backend.fidelity(one, None, other, **asked), EXACT.fidelity(one, None, other, **asked))


def test_gradients_by_one_call_of_the_shift_rule_pass_through_a_product_state() -> None:
    circuit = Circuit(
        4, (*(Op("ry", (w,), (Input(w),)) for w in range(4)), Op("cx", (0, 3)), Op("rx", (2,), (Weight(0),)))
    )
    data = [(torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64)) for _ in range(2)]
    slopes = []
    for backend, tensors in zip((QuimbMPS(), EXACT), data, strict=True):
        inputs, weights = (tensor.requires_grad_() for tensor in tensors)
        values = expectations_with_gradient(backend, circuit, inputs, weights, (X(0), X(3), Y(2))).values
        slopes.append(torch.cat([g.ravel() for g in torch.autograd.grad(values.sum(), (inputs, weights))]))
    assert torch.allclose(*slopes, atol=1e-12)
    assert slopes[0].abs().max() > 0.5


def test_a_rehearsal_bounds_the_bond_and_a_run_that_would_not_fit_is_refused() -> None:
    circuit, _ = brickwork(60, 12, seed=0)
    costs = [QuimbMPS(max_bond=bond).rehearse(circuit, (Z(0),)) for bond in (16, 32, 64)]
    assert [cost.bond for cost in costs] == [16, 32, 64]
    assert costs[1].flops > 5 * costs[0].flops
    assert costs[2].peak_bytes > 3 * costs[1].peak_bytes
    assert QuimbMPS().rehearse(Circuit(3, (Op("cz", (0, 2)),)), (Z(0),)).bond == 2
    tight = QuimbMPS(memory_limit=costs[0].peak_bytes - 1, max_bond=16)
    with pytest.raises(ValueError, match=f"within {costs[0].peak_bytes - 1} bytes, got one of {costs[0].peak_bytes}"):
        tight.expectations(circuit, None, torch.zeros(circuit.n_weights), (Z(0),))


def test_what_a_caller_gets_wrong_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="did you mean 'permmps'"):
        open_backend("quimb:permmp")
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        open_backend("quimb:exat")
    for wrong in ({"max_bond": 0}, {"max_bond": True}, {"cutoff": 0.0}, {"cutoff": 1.5}, {"memory_limit": -1}):
        with pytest.raises(ValueError, match="backend 'quimb' expects"):
            QuimbMPS(**wrong)  # pyright: ignore[reportArgumentType] -- what is tested
    with pytest.raises(ValueError, match="expects shots=None, got 10"):
        QuimbMPS().expectations(Circuit(1), None, None, (Z(0),), shots=10)
    with pytest.raises(ValueError, match="without resets"):
        QuimbMPS().expectations(Circuit(1, Reset(0)), None, None, (Z(0),))


def test_strings_open_equal_backends() -> None:
    backend = open_backend("quimb:permmps?max_bond=16&cutoff=1e-8")
    assert backend == QuimbMPS(method="permmps", max_bond=16, cutoff=1e-8)
    assert open_backend(backend.spec) == backend
    assert open_backend("quimb:mps") == open_backend("quimb") == QuimbMPS()


def test_quimb_and_pennylane_share_a_process() -> None:
    """PennyLane pins an autoray that confuses the namespaces of numpy and torch when asked for them by name."""
    pytest.importorskip("pennylane")
    code = """
import torch
from backends import open_backend
from circuits import Circuit, Op, Weight, Z
circuit = Circuit(4, (Op("ry", (0,), (Weight(0),)), Op("cx", (0, 3)), Op("cx", (3, 1)), Op("ry", (2,), (Weight(0),))))
weights = torch.tensor([0.4], requires_grad=True)

def pennylane():
    import pennylane as qml
    @qml.qnode(qml.device("default.qubit", wires=2), interface="torch")
    def run(x):
        qml.RY(x, 0)
        qml.CNOT([0, 1])
        return qml.expval(qml.PauliZ(1))
    value = run(weights[0])
    value.backward()
    return value.item()

def quimb():
    found = [open_backend(s).expectations(circuit, None, weights, (Z(1),)).values.item()
             for s in ("quimb:mps", "quimb:permmps", "quimb:exact?plan_dir=None")]
    assert max(found) - min(found) < 1e-6
    open_backend("quimb:mps").samples(circuit, None, weights, shots=3, seed=0)
    open_backend("quimb:mps").entropy(circuit, None, weights, wires=(0,))
    return found[0]

values = [step() for step in (pennylane, quimb, pennylane)]
assert max(values) - min(values) < 1e-6, values
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr

"""The interface: what every public method checks, accepts and answers, whatever the adapter."""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from backend_cases import CIRCUIT, STATEVECTOR, W2, X2, Bare

from backends import Backend, Capabilities, Estimate, Request
from circuits import GATES, Circuit, Input, Op, Reset, Weight, X, Y, Z


def test_results_derived_from_expectations_equal_the_simulators_own() -> None:
    bare = Bare()
    asks: list[Callable[[Backend], Estimate]] = [
        lambda b: b.expectations(CIRCUIT, X2, W2, (X(0), Y(1) @ Z(2)), after=(0, 2, 6)),
        lambda b: b.probabilities(CIRCUIT, X2, W2),
        lambda b: b.probabilities(CIRCUIT, X2, W2, wires=(2, 0)),
        lambda b: b.density(CIRCUIT, X2, W2, wires=(2, 1)),
        lambda b: b.samples(CIRCUIT, X2, W2, wires=(1, 0), shots=9, seed=4),
    ]
    for ask in asks:
        torch.testing.assert_close(ask(bare).values, ask(STATEVECTOR).values, rtol=0, atol=1e-12)


def test_compute_uncompute_equals_the_overlap_of_states() -> None:
    left = Circuit(3, tuple(op for op in CIRCUIT.ops if op.name != "s"))
    right = Circuit(3, (Op("h", (0,)), Op("rxx", (0, 2), (Input(0),)), Op("t", (2,))))
    other = torch.tensor([[0.9], [-0.6], [0.1]], dtype=torch.float64)
    for gram, rows in ((True, other), (False, other[:2])):
        asked: dict[str, Any] = {"weights_a": W2, "gram": gram}
        found, exact = (b.fidelity(left, X2, right, rows, **asked) for b in (Bare(), STATEVECTOR))
        assert found.values.shape == ((2, 3) if gram else (2,))
        assert found.infidelity.shape == (2,)
        torch.testing.assert_close(found.values, exact.values, rtol=0, atol=1e-12)
    # The inverse of s is sdg, which this backend does not run: refused, not passed on to the adapter.
    with pytest.raises(ValueError, match=r"does not run the gates \['sdg'\]"):
        Bare().fidelity(CIRCUIT, X2, CIRCUIT, X2, weights_a=W2, weights_b=W2)


def test_a_fidelity_of_one_circuit_is_symmetric_and_1_on_its_diagonal() -> None:
    gram = STATEVECTOR.fidelity(CIRCUIT, X2, None, X2, weights_a=W2, weights_b=W2, gram=True).values
    torch.testing.assert_close(gram, gram.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(gram.diagonal(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_shapes_of_all_results_and_their_errors(batch: int) -> None:
    x = torch.zeros(batch, 2)
    w = torch.zeros(2, requires_grad=True)
    cases = {
        (batch, 2): STATEVECTOR.expectations(CIRCUIT, x, w, (Z(0), Z(1))),
        (batch, 3, 1): STATEVECTOR.expectations(CIRCUIT, x, w, (Z(0),), after=(0, 1, 6)),
        (batch, 4): STATEVECTOR.probabilities(CIRCUIT, x, w, wires=(0, 1)),
        (batch, 8): STATEVECTOR.state(CIRCUIT, x, w),
        (batch, 4, 4): STATEVECTOR.density(CIRCUIT, x, w, wires=(0, 1)),
        (batch,): STATEVECTOR.entropy(CIRCUIT, x, w, wires=(0,)),
        (batch, 7, 3): STATEVECTOR.samples(CIRCUIT, x, w, shots=7, seed=0),
    }
    for shape, estimate in cases.items():
        assert tuple(estimate.values.shape) == tuple(estimate.stderr.shape) == shape
        assert tuple(estimate.truncation_error.shape) == shape
        assert tuple(estimate.infidelity.shape) == (batch,)
        assert not estimate.stderr.requires_grad
        assert float(estimate.stderr.sum()) == 0
    assert cases[batch, 4, 4].values.dtype == cases[batch, 8].values.dtype == torch.complex64
    assert cases[batch, 7, 3].values.dtype == torch.uint8


def test_an_empty_batch_never_reaches_the_adapter_and_leaves_zero_gradients() -> None:
    bare, weights = Bare(), torch.randn(2, requires_grad=True)
    bare.seen.clear()
    empty = torch.zeros(0, 2)
    values = bare.expectations(CIRCUIT, empty, weights, (Z(0),)).values
    both: dict[str, Any] = {"weights_a": weights, "weights_b": weights}
    for more in (
        bare.probabilities(CIRCUIT, empty, weights),
        bare.fidelity(Circuit(3, CIRCUIT.ops[:4] + CIRCUIT.ops[5:]), empty, None, empty, **both),
    ):
        assert more.values.numel() == 0
    values.sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.zeros(2))
    assert bare.seen == []


def test_arrays_lists_and_strided_tensors_are_the_same_angles() -> None:
    expected = STATEVECTOR.expectations(CIRCUIT, X2, W2, (Z(2), X(1))).values
    read_only = X2.numpy().copy()
    read_only.setflags(write=False)
    ways: list[tuple[Any, Any]] = [
        (X2.numpy(), W2.numpy()),
        (read_only, W2.numpy()),
        (X2.numpy()[::-1], W2.tolist()),
        (X2.T.contiguous().T, W2.repeat_interleave(2)[::2]),
        (X2[:, None].expand(2, 3, 2)[:, 1], tuple(W2.tolist())),
    ]
    for number, (inputs, weights) in enumerate(ways):
        values = STATEVECTOR.expectations(CIRCUIT, inputs, weights, (Z(2), X(1))).values
        assert values.dtype == torch.float64
        torch.testing.assert_close(values.flip(0) if number == 2 else values, expected, rtol=0, atol=1e-15)
    lists = STATEVECTOR.expectations(CIRCUIT, X2.tolist(), W2.tolist(), (Z(2), X(1))).values
    assert lists.dtype == torch.float32
    torch.testing.assert_close(lists.double(), expected, rtol=0, atol=1e-6)
    whole = STATEVECTOR.expectations(CIRCUIT, [[1, 0]], [0, 2], (Z(2),)).values
    torch.testing.assert_close(
        whole, STATEVECTOR.expectations(CIRCUIT, [[1.0, 0.0]], [0.0, 2.0], (Z(2),)).values, rtol=0, atol=0
    )


def test_float64_selects_double_precision_from_either_side() -> None:
    for inputs, weights in ((X2, W2.float()), (X2.float(), W2)):
        estimate = STATEVECTOR.expectations(CIRCUIT, inputs, weights, (Z(0),))
        assert estimate.values.dtype == torch.float64
        assert STATEVECTOR.state(CIRCUIT, inputs, weights).values.dtype == torch.complex128
    half = STATEVECTOR.expectations(CIRCUIT, X2.half(), W2.float(), (Z(0),))
    assert half.values.dtype == torch.float32


def test_a_circuit_without_inputs_answers_with_batch_1_or_the_batch_asked_for() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    once = STATEVECTOR.expectations(circuit, None, [0.5], (Z(0),)).values
    assert once.tolist() == [[pytest.approx(math.cos(0.5), abs=1e-6)]]
    several = STATEVECTOR.expectations(circuit, torch.zeros(3, 0), [0.5], (Z(0),)).values
    assert several.tolist() == once.tolist() * 3


def test_wires_come_in_any_container_and_keep_their_order() -> None:
    expected = STATEVECTOR.probabilities(CIRCUIT, X2, W2, wires=(2, 0)).values
    for wires in ([2, 0], range(2, -1, -2), np.array([2, 0]), torch.tensor([2, 0])):
        torch.testing.assert_close(STATEVECTOR.probabilities(CIRCUIT, X2, W2, wires=wires).values, expected)  # pyright: ignore[reportArgumentType] -- 1-D arrays stand for tuples
    one = STATEVECTOR.probabilities(CIRCUIT, X2, W2, wires=(1,)).values
    assert torch.equal(STATEVECTOR.probabilities(CIRCUIT, X2, W2, wires=1).values, one)  # pyright: ignore[reportArgumentType] -- one wire stands for a tuple of one


def test_capabilities_limit_what_is_run() -> None:
    bare = Bare()
    with pytest.raises(ValueError, match="at most 4 wires, got 5"):
        bare.expectations(Circuit(5), None, None, (Z(0),))
    with pytest.raises(ValueError, match="expects a circuit without resets"):
        bare.expectations(Circuit(1, Reset(0)), None, None, (Z(0),))
    with pytest.raises(ValueError, match=r"does not run the gates \['sdg'\]"):
        bare.expectations(Circuit(1, (Op("sdg", (0,)),)), None, None, (Z(0),))
    with pytest.raises(ValueError, match="holds no state; use density"):
        bare.state(CIRCUIT, X2, W2)
    with pytest.raises(ValueError, match="tomography expects at most 6 wires, got 7"):
        _Wide().density(Circuit(11), wires=range(7))
    with pytest.raises(ValueError, match="from expectations expect at most 10 wires, got 11"):
        _Wide().probabilities(Circuit(11))


@dataclass(frozen=True)
class _Wide(Bare):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exact=True, max_wires=20, gates=frozenset(GATES))


def test_adapters_get_shots_and_seed_and_each_prefix_its_own_seed() -> None:
    bare = Bare()
    bare.seen.clear()
    bare.expectations(CIRCUIT, X2, W2, (Z(0),), shots=5, seed=9)
    bare.expectations(CIRCUIT, X2, W2, (Z(0),), after=(1, 2), seed=9)
    assert bare.seen[0] == Request(5, 9)
    assert len({request.seed for request in bare.seen[1:]}) == 2


def test_backends_are_values_and_their_live_handles_are_left_out() -> None:
    bare = Bare(level=5, label="x")
    bare.handle.append(1)
    assert bare == Bare(level=5, label="x") != Bare()
    assert hash(bare) == hash(Bare(level=5, label="x"))
    assert bare.__getstate__() == {"level": 5, "label": "x"}
    for other in (pickle.loads(pickle.dumps(STATEVECTOR)), copy.deepcopy(STATEVECTOR)):
        assert other == STATEVECTOR
        assert hash(other) == hash(STATEVECTOR)
    assert copy.deepcopy(bare) == bare
    assert bare.with_options(level=6) == Bare(level=6, label="x")
    assert bare.spec == "bare?level=5&label=x"
    assert Bare(label="1+1&2").spec == "bare?label=1%2B1%262"


def test_estimates_fill_in_their_errors() -> None:
    estimate = Estimate(torch.ones(2, 3, dtype=torch.float64, requires_grad=True))
    assert estimate.stderr.dtype == torch.float64
    assert torch.equal(estimate.stderr, torch.zeros(2, 3, dtype=torch.float64))
    assert not estimate.stderr.requires_grad
    assert estimate.infidelity.shape == (2,)
    assert estimate.shots is None
    assert estimate.to(torch.float16).values.dtype == torch.float16
    assert Estimate(torch.ones(2, dtype=torch.complex64)).stderr.dtype == torch.float32

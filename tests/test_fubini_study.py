"""The Fubini-Study metric: against fidelities of dense matrices, blocks against the whole, shots within errors."""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from numpy.typing import NDArray

from backends import open_backend
from backends.fubini_study import block_metric, commute, full_metric, trainable_layers
from circuits import Circuit, Input, Op, Product, Reset, Weight
from circuits.library import hardware_efficient, reuploading

EXACT = open_backend("statevector")
ENTANGLING = Circuit(
    3,
    (
        Op("h", (0,)),
        Op("rxx", (0, 1), (Weight(0),)),
        Op("ry", (2,), (Input(0),)),
        Op("rzz", (1, 2), (Weight(1, scale=0.5, shift=0.3),)),
        Op("cx", (0, 2)),
        Op("rz", (0,), (Weight(2),)),
        Op("p", (1,), (Weight(3, scale=-2.0),)),
        Op("ryy", (0, 2), (Weight(4),)),
        Op("rx", (1,), (Weight(5),)),
    ),
)


def states(circuit: Circuit, inputs: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[Any]:
    """State vectors (b, N) by dense matrices."""
    return np.stack([oracles.unitary(circuit, row, weights)[:, 0] for row in inputs])


def metric_by_fidelities(circuit: Circuit, inputs: Any, weights: Any, step: float = 1e-3) -> NDArray[np.float64]:
    """``-(1/2) d_i d_j |<psi(w)|psi(w + d)>|^2`` at d = 0 by central differences of fidelities of dense states."""
    rest = states(circuit, inputs, weights).conj()
    size = len(weights)
    unit = np.eye(size) * step

    def fidelity(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs((rest * states(circuit, inputs, weights + shift)).sum(1)) ** 2

    g = np.zeros((size, size))
    for i in range(size):
        for j in range(i, size):
            mixed = sum(s * t * fidelity(s * unit[i] + t * unit[j]) for s in (1, -1) for t in (1, -1))
            g[i, j] = g[j, i] = -np.mean(mixed) / (8 * step**2)
    return g


def data(circuit: Circuit, batch: int = 2, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return oracles.random_data(np.random.default_rng(seed), circuit, batch)


@pytest.mark.parametrize(
    "circuit",
    [
        hardware_efficient(2, 2),
        reuploading(2, 2),
        ENTANGLING,
        Circuit(2, (Op("crz", (0, 1), (Weight(0),)), Op("ry", (0,), (Product(Weight(1), Input(0), 0.7, 0.2),)))),
        Circuit(1, (Op("ry", (0,), (Weight(0),)), Op("rz", (0,), (Product(Weight(0), Weight(0)),)))),
    ],
)
def test_the_whole_metric_is_that_of_fidelities(circuit: Circuit) -> None:
    inputs, weights = data(circuit)
    found = full_metric(EXACT, circuit, torch.tensor(inputs), torch.tensor(weights))
    assert found.values.numpy() == pytest.approx(metric_by_fidelities(circuit, inputs, weights), abs=1e-5)
    assert float(torch.linalg.eigvalsh(found.values)[0]) > -1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("circuit", [hardware_efficient(3, 2), reuploading(2, 3), ENTANGLING])
def test_blocks_are_those_of_the_whole_metric(circuit: Circuit, dtype: torch.dtype) -> None:
    """Each weight stands in one gate here, so that a layer's weights are a block; all else is 0."""
    inputs, weights = (torch.tensor(values, dtype=dtype) for values in data(circuit, 3))
    whole = full_metric(EXACT, circuit, inputs, weights).values
    blocks = block_metric(EXACT, circuit, inputs, weights)
    kept = block_mask(circuit).to(whole)
    assert blocks.values.dtype == dtype
    torch.testing.assert_close(blocks.values, whole * kept, rtol=0, atol=1e-6)
    assert float((whole * (1 - kept)).abs().max()) > 0.01  # what the blocks leave out
    assert not bool(blocks.stderr.any())


def block_mask(circuit: Circuit) -> torch.Tensor:
    """Where two weights, of one gate each, share a layer."""
    mask = torch.zeros((circuit.n_weights,) * 2, dtype=torch.bool)
    for layer in trainable_layers(circuit):
        slots = [circuit.slots[column] for column in layer.columns]
        own = [slot.index for slot in slots if isinstance(slot, Weight)]
        assert len(own) == len(slots)
        mask[np.ix_(own, own)] = True
    return mask


def test_a_quarter_of_the_fisher_information_of_known_states() -> None:
    """A spin turned by RY(w): information 1. At latitude w, RZ: sin(w)^2. n spins of a GHZ state, one RZ each: n^2."""
    turn = Circuit(1, (Op("ry", (0,), (Weight(0),)), Op("rz", (0,), (Weight(1),))))
    w = 0.8
    g = block_metric(EXACT, turn, None, torch.tensor([w, 0.3], dtype=torch.float64)).values
    assert (4 * g).numpy() == pytest.approx(np.diag([1.0, math.sin(w) ** 2]), abs=1e-12)
    n = 4
    ghz = (Op("h", (0,)), *(Op("cx", (0, wire)) for wire in range(1, n)))
    same = Circuit(n, (*ghz, *(Op("rz", (wire,), (Weight(0),)) for wire in range(n))))
    assert float(4 * block_metric(EXACT, same, None, torch.zeros(1)).values) == pytest.approx(n**2, abs=1e-5)
    apart = Circuit(n, tuple(Op("rx", (wire,), (Weight(0),)) for wire in range(n)))
    assert float(4 * block_metric(EXACT, apart, None, torch.zeros(1)).values) == pytest.approx(n, abs=1e-5)


def test_layers_are_as_large_as_commuting_gates_allow() -> None:
    layers = trainable_layers(hardware_efficient(3, 2))
    assert [len(layer.columns) for layer in layers] == [3] * 6
    assert [layer.columns for layer in layers[:3]] == [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
    assert [len(layer.prefix.ops) for layer in layers] == [0, 3, 6, 12, 15, 18]
    # A CZ passes RZ, so it can stand before all three; it does not pass RX.
    ops = (Op("rz", (0,), (Weight(0),)), Op("cz", (0, 1)), Op("rz", (0,), (Weight(1),)), Op("rx", (1,), (Weight(2),)))
    (layer,) = trainable_layers(Circuit(2, ops))
    assert ([op.name for op in layer.prefix.ops], layer.columns) == (["cz"], (0, 1, 2))
    ops = (Op("rx", (0,), (Weight(0),)), Op("cz", (0, 1)), Op("rx", (0,), (Weight(1),)), Op("rx", (1,), (Weight(2),)))
    assert [layer.columns for layer in trainable_layers(Circuit(2, ops))] == [(0,), (1, 2)]
    pair = Circuit(2, (Op("rxx", (0, 1), (Weight(0),)), Op("rzz", (0, 1), (Weight(1),))))
    assert len(trainable_layers(pair)) == 1
    assert not commute(Op("cx", (0, 1)), Op("cx", (1, 0)))


def test_shared_weights_in_one_layer_are_exact_and_in_several_lack_their_cross_terms() -> None:
    """Two RX with one weight: the variance of X_0 + X_1. RY(w), RZ(w): the sum of both blocks, not the whole metric."""
    ops = (Op("ry", (0,), (0.4,)), Op("cx", (0, 1)), Op("rx", (0,), (Weight(0),)), Op("rx", (1,), (Weight(0, 2.0),)))
    circuit, weights = Circuit(2, ops), torch.tensor([0.7], dtype=torch.float64)
    blocks = block_metric(EXACT, circuit, None, weights).values
    assert float(blocks) == pytest.approx(float(full_metric(EXACT, circuit, None, weights).values), abs=1e-12)
    crossed = Circuit(1, (Op("h", (0,)), Op("rz", (0,), (Weight(0),)), Op("rx", (0,), (Weight(0),))))
    g = block_metric(EXACT, crossed, None, weights).values
    assert float(g) == pytest.approx(0.25 + (1 - math.cos(0.7) ** 2) / 4, abs=1e-12)
    assert float(full_metric(EXACT, crossed, None, weights).values) == pytest.approx(
        metric_by_fidelities(crossed, np.zeros((1, 0)), np.array([0.7]))[0, 0], abs=1e-5
    )


def test_a_metric_is_the_mean_over_the_batch() -> None:
    inputs, weights = (torch.tensor(values) for values in data(ENTANGLING, 3))
    each = [block_metric(EXACT, ENTANGLING, row[None], weights).values for row in inputs]
    torch.testing.assert_close(block_metric(EXACT, ENTANGLING, inputs, weights).values, torch.stack(each).mean(0))


def test_shots_lie_within_their_errors() -> None:
    pytest.importorskip("qiskit_aer")
    circuit = reuploading(2, 1)
    inputs, weights = (torch.tensor(values) for values in data(circuit, 4, seed=3))
    truth = block_metric(EXACT, circuit, inputs, weights).values
    counted = open_backend("aer?shots=4000")
    z = []
    for seed in range(6):
        found = block_metric(counted, circuit, inputs, weights, seed=1000 * seed)
        kept = block_mask(circuit)
        assert not bool(found.values[~kept].any())
        assert bool((found.stderr[kept] > 0).all())
        assert found.shots is not None
        assert found.shots >= 3 * 4000
        z.append((found.values - truth)[kept] / found.stderr[kept])
    deviations = torch.stack(z)
    assert float(deviations.abs().max()) < 5
    assert 0.1 < float(deviations.square().mean().sqrt()) < 1.5  # a bound, and not a wild one


def test_a_truncated_chain_of_tensors_stays_within_its_bound() -> None:
    pytest.importorskip("quimb")
    circuit = hardware_efficient(4, 2)
    weights = torch.tensor(data(circuit)[1])
    truth = block_metric(EXACT, circuit, None, weights).values
    for spec in ("quimb:mps", "quimb:mps?max_bond=2"):
        found = block_metric(open_backend(spec), circuit, None, weights)
        assert bool(((found.values - truth).abs() <= found.truncation_error + 1e-6).all())
    assert float(found.truncation_error.max()) > 0


@pytest.mark.parametrize(
    ("circuit", "inputs", "message"),
    [
        (Circuit(2, (Op("rx", (0,), (Weight(0),)), *Reset((0,)))), None, "expects a unitary circuit, got a reset"),
        (Circuit(1, (Op("rx", (0,), (Input(0),)),)), torch.zeros(1, 1), "circuit with weights, got none"),
        (Circuit(1, (Op("rx", (0,), (Product(Input(0), Weight(0)),)),)), torch.zeros(0, 1), "at least one sample"),
        (Circuit(1, (Op("rx", (0,), (Product(Input(0), Weight(0)),)),)), torch.zeros(2, 3), r"inputs expect shape"),
    ],
)
def test_what_has_no_metric_is_refused(circuit: Circuit, inputs: Any, message: str) -> None:
    weights = torch.zeros(circuit.n_weights)
    with pytest.raises(ValueError, match=message):
        block_metric(EXACT, circuit, inputs, weights)


def test_a_backend_without_states_has_no_whole_metric() -> None:
    pytest.importorskip("qiskit_aer")
    with pytest.raises(ValueError, match="holds no state"):
        full_metric(open_backend("aer?shots=10"), hardware_efficient(1, 1), None, torch.zeros(3))

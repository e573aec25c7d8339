"""The kicked Ising chain: its unitary, its exact facts, and that every backend agrees on it."""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends import open_backend
from circuits import Circuit, Input, Op, Weight, Z
from circuits.gates import pauli_matrix
from circuits.library.floquet import kicked_ising, period_ends

Real = NDArray[np.float64]
ALTERNATING = torch.tensor([1.0, -1.0])


def one(letter: str, wire: int, n_wires: int) -> oracles.Complex:
    """A Pauli matrix on one wire, wire 0 most significant."""
    return pauli_matrix("".join(letter if k == wire else "I" for k in range(n_wires)))


def floquet_unitary(g: float, phi: Real, h: Real) -> oracles.Complex:
    """The formula, term by term, with dense exponentials."""
    n_wires = len(h)
    kick = sum(one("X", wire, n_wires) for wire in range(n_wires))
    ising = sum(phi[k] * one("Z", k, n_wires) @ one("Z", k + 1, n_wires) for k in range(n_wires - 1))
    field = sum(h[wire] * one("Z", wire, n_wires) for wire in range(n_wires))
    terms = torch.from_numpy(np.stack((-0.5j * field, -0.25j * ising, -0.5j * math.pi * g * kick)))
    fields, couplings, flips = torch.linalg.matrix_exp(terms).numpy()
    return fields @ couplings @ flips


def disorder(n_wires: int, batch: int = 1, seed: int = 0) -> tuple[Real, Real]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.5, -0.5, (batch, n_wires - 1)) * np.pi, rng.uniform(-np.pi, np.pi, (batch, n_wires))


@pytest.mark.parametrize("n_wires", [2, 3, 4])
def test_one_period_is_the_formula(n_wires: int) -> None:
    (phi,), (h,) = disorder(n_wires, seed=n_wires)
    exact = floquet_unitary(0.83, phi, h)
    bound = kicked_ising(n_wires, 1, 0.83, phi, tuple(h))
    np.testing.assert_allclose(oracles.unitary(bound), exact, atol=1e-12)
    inputs = np.concatenate(([0.83], phi, h))
    np.testing.assert_allclose(oracles.unitary(kicked_ising(n_wires, 1), inputs), exact, atol=1e-12)
    np.testing.assert_allclose(oracles.unitary(kicked_ising(n_wires, 3), inputs), exact @ exact @ exact, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(-2, 2), st.floats(-4, 4), st.floats(-4, 4))
def test_one_number_stands_for_all_places(g: float, phi: float, h: float) -> None:
    exact = floquet_unitary(g, np.full(2, phi), np.full(3, h))
    np.testing.assert_allclose(oracles.unitary(kicked_ising(3, 1, g, phi, h)), exact, atol=1e-12)


@pytest.mark.parametrize("initial", ["0000", "0101", "1110"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_full_flip_doubles_the_period_for_any_disorder(initial: str, dtype: torch.dtype) -> None:
    circuit = kicked_ising(4, 7, g=1.0, initial=initial)
    inputs = torch.from_numpy(np.hstack(disorder(4, batch=5))).to(dtype)
    found = along(circuit, inputs, initial)
    assert found.dtype == dtype
    expected = ALTERNATING.repeat(4).to(dtype)[None, :, None].expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-12 if dtype == torch.float64 else 5e-6, rtol=0)


@pytest.mark.parametrize("g", [0.0, 0.3, 0.5, 0.97, 1.2])
def test_first_period_sees_the_kick_alone(g: float) -> None:
    inputs = torch.from_numpy(np.hstack(disorder(3, batch=6)))
    found = along(kicked_ising(3, 1, g=g, initial="010"), inputs, "010")
    torch.testing.assert_close(
        found[:, 1], torch.full((6, 3), math.cos(math.pi * g), dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_without_interaction_or_field_spins_turn_freely() -> None:
    g = torch.linspace(0, 1.5, 7, dtype=torch.float64)
    found = along(kicked_ising(3, 5, phi=0.0, h=0.0), g[:, None], "000")
    expected = torch.cos(math.pi * g[:, None] * torch.arange(6))
    torch.testing.assert_close(found, expected[..., None].expand(-1, -1, 3), atol=1e-12, rtol=0)


def test_without_interaction_period_doubling_is_not_rigid() -> None:
    """The control of the fact above: interactions hold at g = 0.97 what free spins lose."""
    phi, h = disorder(4, batch=4)
    inputs = torch.from_numpy(np.hstack((phi, h)))
    free = torch.cos(torch.tensor(math.pi * 0.97 * 16)).item()
    held = along(kicked_ising(4, 16, g=0.97), inputs, "0000")[:, 16].mean()
    assert free == pytest.approx(0.0628, abs=1e-3)
    assert held > 0.7


def along(circuit: Circuit, inputs: torch.Tensor, initial: str) -> torch.Tensor:
    """s_i <Z_i(t)>, shape (b, t, n), in one pass along the circuit."""
    observables = tuple((1.0 - 2.0 * int(bit)) * Z(wire) for wire, bit in enumerate(initial))
    backend = open_backend("statevector")
    return backend.expectations(circuit, inputs, None, observables, after=period_ends(circuit)).values


@pytest.mark.parametrize("missing", [("g",), ("phi",), ("h",), ("g", "h"), ("phi", "h"), ("g", "phi", "h")])
def test_what_is_missing_becomes_inputs_in_order(missing: tuple[str, ...]) -> None:
    (phi,), (h,) = disorder(3)
    values: dict[str, Any] = {"g": 0.9, "phi": phi, "h": h}
    inputs = np.concatenate([np.atleast_1d(values[name]) for name in missing])
    bound = kicked_ising(3, 2, **values)
    open_ended = kicked_ising(3, 2, **{name: value for name, value in values.items() if name not in missing})
    assert open_ended.n_inputs == len(inputs)
    assert bound.n_inputs == 0
    np.testing.assert_allclose(oracles.unitary(open_ended, inputs), oracles.unitary(bound), atol=1e-12)


def test_tensors_lists_and_slots_are_values_too() -> None:
    (phi,), (h,) = disorder(3)
    bound = kicked_ising(3, 1, 0.9, tuple(phi), tuple(h))
    assert kicked_ising(3, 1, torch.tensor(0.9, dtype=torch.float64), torch.from_numpy(phi), list(h)) == bound
    assert kicked_ising(3, 1, np.float64(0.9), phi, h) == bound
    trained = kicked_ising(3, 2, g=Weight(0, shift=1.0), phi=[Weight(1), Weight(2)], h=Input(0))
    assert (trained.n_weights, trained.n_inputs) == (3, 1)
    assert trained.ops[0] == Op("rx", (0,), (Weight(0, scale=math.pi, shift=math.pi),))


@pytest.mark.parametrize(
    ("n_wires", "periods", "initial"), [(1, 2, None), (2, 0, "10"), (3, 4, "111"), (5, 3, "01010")]
)
def test_period_ends_count_ops(n_wires: int, periods: int, initial: str | None) -> None:
    circuit = kicked_ising(n_wires, periods, initial=initial)
    ends = period_ends(circuit)
    assert len(ends) == periods + 1
    assert ends[-1] == len(circuit.ops)
    for t, end in enumerate(ends):
        assert circuit.prefix(end) == kicked_ising(n_wires, t, initial=initial)


def test_depth_of_a_period_does_not_grow_with_the_chain() -> None:
    assert kicked_ising(4, 3).depth == kicked_ising(9, 3).depth == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_wires": 0}, "n_wires of at least 1, got 0"),
        ({"periods": -1}, "periods of at least 0, got -1"),
        ({"phi": [0.1]}, "expects 2 values of phi, got 1"),
        ({"h": (0.1, 0.2)}, "expects 3 values of h, got 2"),
        ({"initial": "01"}, "initial of 3 bits, got '01'"),
        ({"initial": "0a1"}, "initial of 3 bits, got '0a1'"),
        ({"g": math.nan}, "finite angle"),
    ],
)
def test_bad_values_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kicked_ising(**{"n_wires": 3, "periods": 1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"periods": 1.5}, "expects an integer periods"),
        ({"g": [0.9]}, "expects g as one number"),
        ({"phi": "12"}, "expects phi as a number or a sequence of 2"),
        ({"initial": (0, 1, 0)}, "initial as a string of bits"),
        ({"h": torch.zeros(3, requires_grad=True)}, "requires a gradient"),
        ({"h": [None, 0.0, 0.0]}, "a slot expects"),
    ],
)
def test_bad_types_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kicked_ising(**{"n_wires": 3, "periods": 1, **arguments})


@pytest.mark.parametrize(
    "circuit", [Circuit(2, (Op("h", (0,)),)), kicked_ising(2, 1).inverse(), Circuit(2, kicked_ising(2, 1).ops[:-1])]
)
def test_periods_of_another_circuit_are_not_guessed(circuit: Circuit) -> None:
    with pytest.raises(ValueError, match="expects a circuit made by kicked_ising"):
        period_ends(circuit)


EXACT = ("pennylane:default.qubit", "pennylane:lightning.qubit", "aer", "quimb:exact")


@pytest.mark.parametrize("spec", EXACT)
def test_exact_backends_agree(spec: str) -> None:
    circuit, inputs, observables, truth = problem()
    found = open_backend(spec).expectations(circuit, inputs, None, observables, after=period_ends(circuit))
    assert float((found.values - truth).abs().max()) < 1e-6


@pytest.mark.parametrize("max_bond", [2, 3, 16])
def test_matrix_product_states_agree_within_their_truncation_error(max_bond: int) -> None:
    circuit, inputs, observables, truth = problem()
    backend = open_backend(f"quimb:mps?max_bond={max_bond}")
    found = backend.expectations(circuit, inputs, None, observables, after=period_ends(circuit))
    error = (found.values - truth).abs()
    assert bool((error <= found.truncation_error + 1e-6).all())
    assert (float(found.infidelity.max()) > 1e-4) is (max_bond < 4)


def test_shots_agree_within_their_error_bars() -> None:
    circuit, inputs, observables, truth = problem()
    found = open_backend("aer?shots=2000").expectations(
        circuit, inputs, None, observables, after=period_ends(circuit), seed=3
    )
    z = (found.values - truth) / found.stderr
    assert float(z.abs().max()) < 4.5
    assert 0.7 < float(z[:, 1:].square().mean()) ** 0.5 < 1.2


def problem() -> tuple[Circuit, torch.Tensor, tuple[Any, ...], torch.Tensor]:
    """Two instances on 5 spins, 4 periods, and what dense matrices answer."""
    circuit = kicked_ising(5, 4, initial="01011")
    phi, h = disorder(5, batch=2, seed=7)
    inputs = np.hstack(([[0.95], [0.7]], phi, h))
    observables = (Z(0), Z(2), Z(4), Z(1) @ Z(3))
    truth = [
        oracles.expectations(circuit.prefix(end), inputs, oracles.NOTHING, observables) for end in period_ends(circuit)
    ]
    return circuit, torch.from_numpy(inputs), observables, torch.from_numpy(np.stack(truth, 1))

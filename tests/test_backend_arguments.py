"""What callers do wrong: each answer is one sentence, before anything runs."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from backend_cases import CIRCUIT, STATEVECTOR, W2, X2, Bare

from circuits import Circuit, Reset, Z

WRONG: dict[str, tuple[type[Exception], str, Callable[[Any], Any]]] = {
    "a list for a circuit": (
        TypeError,
        "a backend expects a Circuit, got list",
        lambda b: b.probabilities([], X2),
    ),
    "a circuit for an observable": (
        TypeError,
        "an observable expects a Pauli sum, got Circuit",
        lambda b: b.expectations(CIRCUIT, X2, W2, (CIRCUIT,)),
    ),
    "inputs of one axis": (
        ValueError,
        r"inputs expect shape \(batch, 2\), got \(2,\)",
        lambda b: b.expectations(CIRCUIT, X2[0], W2, (Z(0),)),
    ),
    "a surplus column": (
        ValueError,
        r"inputs expect shape \(batch, 2\), got \(2, 4\)",
        lambda b: b.expectations(CIRCUIT, torch.cat((X2, X2), 1), W2, (Z(0),)),
    ),
    "no weights": (
        ValueError,
        r"weights expect shape \(2,\), got None",
        lambda b: b.expectations(CIRCUIT, X2, None, (Z(0),)),
    ),
    "words for inputs": (
        TypeError,
        "inputs expect a tensor, array or list of numbers, got str",
        lambda b: b.expectations(CIRCUIT, "abc", W2, (Z(0),)),
    ),
    "objects for weights": (
        TypeError,
        "weights expect a tensor, array or list of numbers, got object",
        lambda b: b.expectations(CIRCUIT, X2, object(), (Z(0),)),
    ),
    "complex inputs": (
        TypeError,
        "angles expect real numbers in radians, got torch.complex128",
        lambda b: b.expectations(CIRCUIT, X2 * 1j, W2, (Z(0),)),
    ),
    "sparse inputs": (
        TypeError,
        r"inputs expect a dense tensor, got one of layout torch.sparse_coo; call to_dense\(\)",
        lambda b: b.expectations(CIRCUIT, X2.to_sparse(), W2, (Z(0),)),
    ),
    "a NaN": (
        ValueError,
        r"inputs expect finite angles in radians, got nan first at index \(1, 0\)",
        lambda b: b.expectations(CIRCUIT, torch.tensor([[0.0, 1.0], [math.nan, math.inf]]), W2, (Z(0),)),
    ),
    "an infinity": (
        ValueError,
        r"weights expect finite angles in radians, got -inf first at index \(1,\)",
        lambda b: b.expectations(CIRCUIT, X2, [0.0, -math.inf], (Z(0),)),
    ),
    "no observables": (
        ValueError,
        "at least one observable, got none",
        lambda b: b.expectations(CIRCUIT, X2, W2),
    ),
    "an observable beyond the wires": (
        ValueError,
        r"observable Z\(3\) expects wires below 3, got 3",
        lambda b: b.expectations(CIRCUIT, X2, W2, (Z(3),)),
    ),
    "a fraction for a wire": (
        TypeError,
        r"wires expect integers, got \(0\.5,\)",
        lambda b: b.probabilities(CIRCUIT, X2, W2, wires=(0.5,)),
    ),
    "repeated wires": (
        ValueError,
        r"wires expect distinct numbers from 0 to 2, got \(1, 1\)",
        lambda b: b.density(CIRCUIT, X2, W2, wires=(1, 1)),
    ),
    "no wires": (
        ValueError,
        "entropy expects the subsystem's wires, got none",
        lambda b: b.entropy(CIRCUIT, X2, W2),
    ),
    "an unknown entropy": (
        ValueError,
        "unknown entropy kind 'renyi': did you mean 'renyi2'",
        lambda b: b.entropy(CIRCUIT, X2, W2, wires=(0,), kind="renyi"),
    ),
    "falling times": (
        ValueError,
        r"non-decreasing op counts from 0 to 6, got \(3, 1\)",
        lambda b: b.expectations(CIRCUIT, X2, W2, (Z(0),), after=(3, 1)),
    ),
    "a fraction of shots": (
        ValueError,
        "shots expects a positive integer or None .* got 1.5",
        lambda b: b.samples(CIRCUIT, X2, W2, shots=1.5),
    ),
    "no shots anywhere": (
        ValueError,
        "samples expect a number of shots, got None",
        lambda b: b.samples(CIRCUIT, X2, W2),
    ),
    "a negative seed": (
        ValueError,
        "seed expects an integer from 0 .* got -1",
        lambda b: b.samples(CIRCUIT, X2, W2, shots=3, seed=-1),
    ),
    "too long a seed": (
        ValueError,
        r"seed expects an integer from 0 to 2\*\*63 - 1",
        lambda b: b.samples(CIRCUIT, X2, W2, shots=3, seed=2**63),
    ),
    "fidelity after a reset": (
        ValueError,
        "fidelity expects a unitary circuit, got a reset at op 0",
        lambda b: b.fidelity(Circuit(1, Reset(0))),
    ),
    "fidelity of unequal widths": (
        ValueError,
        "fidelity expects circuits of one width, got 2 and 3",
        lambda b: b.fidelity(Circuit(2), None, Circuit(3)),
    ),
    "fidelity of unequal batches": (
        ValueError,
        "fidelity expects equal batches, got 2 and 1; pass gram=True",
        lambda b: b.fidelity(CIRCUIT, X2, CIRCUIT, X2[:1], weights_a=W2, weights_b=W2),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_raise_one_sentence_before_anything_runs(name: str) -> None:
    error, sentence, call = WRONG[name]
    Bare.seen.clear()
    for backend in (STATEVECTOR, Bare()):
        with pytest.raises(error, match=sentence):
            call(backend)
    assert Bare.seen == []

"""The pennylane backend as a value: strings and copies."""

import copy
import pickle

import pytest

from backends import open_backend
from circuits import Circuit, Z

pytest.importorskip("pennylane", reason="the extra pennylane is not installed")

from backends.pennylane_device import PennyLane


def test_is_its_own_configuration() -> None:
    backend = PennyLane(device="lightning.qubit", shots=10)
    for twin in (copy.deepcopy(backend), pickle.loads(pickle.dumps(backend)), open_backend(backend.spec)):
        assert twin == backend
        assert hash(twin) == hash(backend)
        assert repr(twin) == "PennyLane(device='lightning.qubit', shots=10)"
        assert twin.expectations(Circuit(1), observables=(Z(0),), seed=0).values.item() == 1


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("pennylane", PennyLane()),
        ("pennylane:lightning.qubit", PennyLane(device="lightning.qubit")),
        ("pennylane?shots=1000", PennyLane(shots=1000)),
        ("pennylane:default.mixed?shots=3", PennyLane(device="default.mixed", shots=3)),
    ],
)
def test_strings(spec: str, expected: PennyLane) -> None:
    assert open_backend(spec) == expected
    assert expected.spec == spec

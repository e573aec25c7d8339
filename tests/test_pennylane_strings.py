"""The pennylane backend as a value: strings, copies, and what is said where PennyLane is missing."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("pennylane:lightning.qbit", "did you mean 'lightning.qubit'"),
        ("pennylane:default.gaussian", "holds no qubits"),
        ("pennylane:null.qubit", "computes nothing"),
        ("pennylane?shotz=3", "did you mean 'shots'"),
        ("pennylane?shots=0", "positive shots"),
    ],
)
def test_bad_strings(spec: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_backend(spec)


def test_missing_package_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['pennylane'] = None\n"
        "import backends.pennylane_device, circuits.interop.pennylane_tape\n"
        "from backends import open_backend\n"
        "try:\n"
        "    open_backend('pennylane')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "pip install 'hybridqlm[pennylane]'" in done.stdout

"""What is wrong in a backend's string, and what is not installed: one sentence, before anything runs."""

import sys

import pytest

from backends import open_backend

PACKAGES = {"aer": "qiskit_aer", "ibm": "qiskit_ibm_runtime", "pennylane": "pennylane"}
"""By kind, the package without which its strings cannot be read."""


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("aer:statevectr", "did you mean 'statevector'"),
        ("aer?shotz=3", "did you mean 'shots'"),
        ("aer?shots=0", "positive shots"),
        ("aer?shots=many", "expects int"),
        ("aer?max_bond=4", "expects max_bond with the method 'matrix_product_state', got 'automatic'"),
        ("aer:matrix_product_state?max_bond=0", "positive max_bond or None"),
        ("aer?precision=singl", "did you mean 'single'"),
        ("ibm:fake_manilla", r"^.{,80}got 'fake_manilla': did you mean 'fake_manila'\? .{,60} lists all \d+\.$"),
        ("ibm:torino", "expects a fake device, got 'torino'"),
        ("ibm:fake_manila?mode=bach", "did you mean 'batch'"),
        ("ibm:fake_manila?dynamical_decoupling=XY5", "did you mean 'XY4'"),
        ("ibm:fake_manila?generation=old", "'current'|'older'"),
        ("ibm:fake_manila?resilience_level=3", "0, 1 or 2, got 3"),
        ("ibm:fake_manila?zne=1", "two or more different noise factors"),
        ("ibm:fake_manila?zne=a,b", "joined by commas, got 'a,b'"),
        ("ibm:fake_manila?precision=2.0", r"a precision in \(0, 1\], got 2.0"),
        ("ibm:fake_manila?precision=0.1&shots=7", "shots or a precision, got 7 and 0.1"),
        ("ibm:fake_manila?generation=older&twirling=True", "'current' for error mitigation"),
        ("ibm:ibm_torino?allow_qpu_seconds=-1", "allow_qpu_seconds from 0, got -1"),
        ("ibm:somewhere", r"got 'somewhere': backends\.ibm\.devices\.fake_devices\(\) lists all"),
        ("ibm:fake_manila?shots=0", "positive shots"),
        ("ibm:fake_manila?shotz=5", "did you mean 'shots'"),
        ("pennylane:lightning.qbit", "did you mean 'lightning.qubit'"),
        ("pennylane:default.gaussian", "holds no qubits"),
        ("pennylane:null.qubit", "computes nothing"),
        ("pennylane?shotz=3", "did you mean 'shots'"),
        ("pennylane?shots=0", "positive shots"),
    ],
)
def test_bad_strings(spec: str, sentence: str) -> None:
    pytest.importorskip(PACKAGES[spec.partition(":")[0].partition("?")[0]])
    with pytest.raises(ValueError, match=sentence):
        open_backend(spec)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("aer", "qiskit_aer", "qiskit"),
        ("ibm:fake_manila", "qiskit_ibm_runtime", "qiskit"),
        ("pennylane", "pennylane", "pennylane"),
        ("quimb:exact", "cotengra", "tensornet"),
        ("quimb:mps", "quimb", "tensornet"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    spec: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"the package '{package}', which is missing; pip install 'hybridqlm\[{extra}"
    ):
        open_backend(spec)

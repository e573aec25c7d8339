"""The PennyLane device: PennyLane's own device suite, every gradient method, batches and shots, by PennyLane's name."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

qml: Any = pytest.importorskip("pennylane", reason="the extra pennylane is not installed")
autograd_numpy: Any = pytest.importorskip("pennylane.numpy")
plugin = pytest.importorskip("backends.statevector.pennylane_plugin")

WIRES = 3
FEATURES = np.linspace(-1, 2, 4 * WIRES).reshape(4, WIRES)
ANGLES = np.linspace(0.3, 2.1, 2 * WIRES * 3).reshape(2, WIRES, 3)


def qnode(device: str, method: str, interface: str, shots: int | None = None, **options: Any) -> Any:
    """An embedding, layers, an open control and a global phase, read through two observables."""

    def circuit(features: Any, angles: Any) -> Any:
        qml.AngleEmbedding(features, range(WIRES))
        qml.StronglyEntanglingLayers(angles, range(WIRES))
        qml.ctrl(qml.PhaseShift, 0, control_values=[0])(angles[0, 0, 0], 2)
        qml.GlobalPhase(0.3)
        return qml.expval(qml.X(0) @ qml.Z(2)), qml.expval(0.5 * qml.Z(1) - qml.Y(2))

    made = qml.QNode(circuit, qml.device(device, wires=WIRES, **options), diff_method=method, interface=interface)
    return qml.set_shots(made, shots) if shots else made


def test_pennylanes_device_suite() -> None:
    """All but the failures that the module explains; a failure that went away is to be struck off the list."""
    for needed in ("flaky", "pytest_mock"):
        pytest.importorskip(needed, reason="PennyLane's device suite needs it")
    suite = Path(qml.__file__).parent / "devices" / "tests"
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", str(suite), "--device=qlm.statevector"]
    command += ["--device-kwargs", f"wires={WIRES + 1}", "--tb=no", "--no-flaky-report", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    root = Path(__file__).resolve().parent.parent
    # Not in the project's folder, whose pytest settings turn the suite's own warnings into failures.
    environment["PYTHONPATH"] = str(root)
    done = subprocess.run(command, capture_output=True, text=True, cwd=suite, env=environment)
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S+?::(?:\w+::)?(\S+)", done.stdout, re.MULTILINE))
    assert failed == set(plugin.KNOWN_FAILURES), done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 350


@pytest.mark.parametrize("method", ["best", "backprop", "device", "adjoint", "parameter-shift"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_gradients(method: str, dtype: torch.dtype) -> None:
    found = []
    for device, how in (("qlm.statevector", method), ("default.qubit", "backprop")):
        features = torch.tensor(FEATURES[0], dtype=dtype, requires_grad=True)
        angles = torch.tensor(ANGLES, dtype=dtype, requires_grad=True)
        first, second = qnode(device, how, "torch")(features, angles)
        found.append((first, second, *torch.autograd.grad(first - 2 * second, (features, angles))))
    for ours, theirs in zip(*found, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, check_dtype=False)


@pytest.mark.parametrize("method", ["best", "backprop", "device"])
def test_batched_inputs_with_gradients(method: str) -> None:
    found = []
    for device, how in (("qlm.statevector", method), ("default.qubit", "backprop")):
        features, angles = (torch.tensor(data, requires_grad=True) for data in (FEATURES, ANGLES))
        first, second = qnode(device, how, "torch")(features, angles)
        assert first.shape == (4,)
        found.append((first, second, *torch.autograd.grad((first * second).sum(), (features, angles))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("method", ["best", "device", "parameter-shift"])
def test_autograd_gradients(method: str) -> None:
    found = []
    for device, how in (("qlm.statevector", method), ("default.qubit", "backprop")):
        circuit = qnode(device, how, "autograd")
        features, angles = (autograd_numpy.array(data, requires_grad=True) for data in (FEATURES[0], ANGLES))
        jacobian = qml.jacobian(lambda *data, circuit=circuit: autograd_numpy.stack(circuit(*data)))
        found.append(jacobian(features, angles))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_second_derivatives_by_backpropagation() -> None:
    circuit = qnode("qlm.statevector", "backprop", "torch")
    other = qnode("default.qubit", "backprop", "torch")
    features = torch.tensor(FEATURES[0])
    hessians = [
        torch.autograd.functional.hessian(lambda x, one=one: one(x, torch.tensor(ANGLES))[0], features)
        for one in (circuit, other)
    ]
    torch.testing.assert_close(hessians[0], hessians[1], atol=1e-10, rtol=0)


def test_coefficients_of_observables_are_differentiated_or_refused() -> None:
    def energy(angle: Any, field: Any) -> Any:
        qml.RX(angle, 0)
        return qml.expval(qml.Hamiltonian(torch.stack((field, 1 + 0 * field)), [qml.Z(0), qml.Y(0)]))

    device = qml.device("qlm.statevector", wires=1)
    angle, field = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.4, 0.7))
    best = qml.QNode(energy, device, interface="torch")(angle, field)
    slopes = torch.autograd.grad(best, (angle, field))
    expected = (-0.7 * np.sin(0.4) - np.cos(0.4), np.cos(0.4))
    assert [slope.item() for slope in slopes] == pytest.approx(expected)
    own = qml.QNode(energy, device, interface="torch", diff_method="device")(angle, field)
    with pytest.raises(qml.exceptions.DeviceError, match="trainable gates alone"):
        own.backward()


def test_states_hold_the_global_phase() -> None:
    def circuit() -> Any:
        qml.Hadamard("b")
        qml.CNOT(("b", "a"))
        qml.GlobalPhase(0.4)
        qml.ctrl(qml.GlobalPhase(0.9), "a", control_values=[0])
        qml.QubitUnitary(np.array([[0, 1j], [1, 0]]), "b")
        return qml.state(), qml.density_matrix("b"), qml.vn_entropy("b"), qml.probs("b")

    found = [
        qml.QNode(circuit, qml.device(name, wires=("a", "b", "c")))() for name in ("qlm.statevector", "default.qubit")
    ]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_shots_repeat_with_the_seed() -> None:
    draws = [
        qnode("qlm.statevector", "best", "numpy", shots=4000, seed=seed)(FEATURES[0], ANGLES) for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    exact = qnode("default.qubit", "best", "numpy")(FEATURES[0], ANGLES)
    assert abs(draws[0][0] - exact[0]) < 4.9 / 4000**0.5
    assert abs(draws[0][1] - exact[1]) < 4.9 * 1.5 / 4000**0.5


def test_mid_circuit_measurements_are_deferred() -> None:
    def circuit() -> Any:
        qml.RY(1.1, 0)
        outcome = qml.measure(0, reset=True)
        qml.cond(outcome, qml.RX)(0.7, 1)
        return qml.expval(qml.Z(0)), qml.expval(qml.Z(1)), qml.expval(outcome)

    ours, theirs = (qml.QNode(circuit, qml.device(name, wires=4))() for name in ("qlm.statevector", "default.qubit"))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_refusals() -> None:
    device = qml.device("qlm.statevector", wires=2)
    with pytest.raises(Exception, match=r"interface='torch' for backprop|does not support backprop"):
        qml.QNode(lambda x: (qml.RX(x, 0), qml.expval(qml.Z(0)))[1], device, diff_method="backprop")(
            autograd_numpy.array(0.1, requires_grad=True)
        )
    with pytest.raises(Exception, match="does not provide a decomposition"):
        qml.QNode(lambda: (qml.BlockEncode(np.eye(2) / 2, [0, 1]), qml.probs(0))[1], device)()
    with pytest.raises(ValueError, match="at most 26 wires"):
        qml.QNode(lambda: qml.probs(), qml.device("qlm.statevector", wires=27))()

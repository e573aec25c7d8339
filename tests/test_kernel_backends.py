"""Kernels on every backend: states where there are states, pairs of circuits elsewhere, one answer within its error.

Axis legend: b batch, l sequence, w angles, n pairs.
"""

import math

import pytest
import torch
from kernel_cases import Stateless, block, by_hand, kernel_by_hand, left_padded, stream
from torch import Tensor

from backends import open_backend
from circuits.library import kernel_feature_map
from qlm.blocks.base import Context
from qlm.blocks.kernel_parts import KernelLayer


@pytest.mark.parametrize("normalisation", ["kernel", "softmax"])
def test_pairs_equal_states_with_gradients_by_the_shift_rule(normalisation: str) -> None:
    found = []
    for backend in ("statevector", Stateless()):
        made = block(backend, window=3, normalisation=normalisation)
        hidden = stream().requires_grad_()
        output = made(hidden, Context(left_padded()))
        report = made.report
        assert report is not None
        pairs = backend != "statevector"
        assert report.form == ("pairs" if pairs else "window")
        # row 0: 1 + 2 + 5 x 3 pairs; row 1, of four tokens: 1 + 2 + 2 x 3
        assert report.executions == (18 + 9 if pairs else 2 * 11)
        cotangent = torch.linspace(-1, 1, output.hidden.numel(), dtype=torch.float64).reshape(output.hidden.shape)
        found.append(
            [output.hidden, *torch.autograd.grad((output.hidden * cotangent).sum(), [hidden, *made.parameters()])]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert all(float(gradient.abs().max()) > 1e-4 for gradient in found[1][1:])


def overlaps(spec: str, n_wires: int, n_pairs: int = 4) -> tuple[Tensor, Tensor, KernelLayer]:
    """Overlaps on a backend, and exactly; the last pair is a point with itself."""
    torch.manual_seed(0)
    layer, exact = (KernelLayer(kernel_feature_map(n_wires, 1), backend).double() for backend in (spec, "statevector"))
    layer.load_state_dict(exact.state_dict())
    x, y = math.pi * (2 * torch.rand(2, n_pairs, n_wires, dtype=torch.float64) - 1)
    y[-1] = x[-1]
    states = [torch.complex(*exact.states(points).chunk(2, -1)) for points in (x, y)]
    with torch.no_grad():
        return layer.overlaps(x, y), (states[0].conj() * states[1]).sum(-1).abs().square().detach(), layer


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("statevector", "torch"),
        ("pennylane:default.qubit", "pennylane"),
        ("pennylane:lightning.qubit", "pennylane"),
        ("aer", "qiskit_aer"),
        ("aer:matrix_product_state", "qiskit_aer"),
        ("quimb:exact", "quimb"),
        ("quimb:mps?max_bond=64", "quimb"),
    ],
)
def test_exact_backends_agree(spec: str, package: str) -> None:
    pytest.importorskip(package)
    found, exact, _ = overlaps(spec, 3)
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=0)
    assert float(exact[-1]) == pytest.approx(1, abs=1e-12)


def test_truncated_states_agree_within_their_error() -> None:
    pytest.importorskip("quimb")
    layer = KernelLayer(kernel_feature_map(4, 2)).double()
    x, y = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(2, 2, 4)
    weights = layer.weights.detach().double()
    backend, exact = (open_backend(spec) for spec in ("quimb:mps?max_bond=2", "statevector"))
    found, true = (
        chosen.fidelity(layer.circuit, x, inputs_b=y, weights_a=weights, weights_b=weights)
        for chosen in (backend, exact)
    )
    assert bool(((found.values - true.values).abs() <= found.truncation_error + 1e-9).all())
    assert float(found.truncation_error.max()) > 1e-3


def test_counted_shots_and_noise_agree_within_their_errors() -> None:
    pytest.importorskip("qiskit_aer")
    shots = 4000
    found, exact, layer = overlaps(f"aer?shots={shots}", 3)
    assert bool(((found - exact).abs() <= 5 * (exact * (1 - exact).clamp(min=0) / shots).sqrt() + 1e-12).all())
    assert layer.report is not None
    assert (layer.report.executions, layer.report.shots) == (4, shots)
    noisy, ideal, _ = overlaps("aer?noise=fake_manila", 3)
    assert 0.01 < float(ideal[-1] - noisy[-1]) < 0.3  # a noisy state is not quite itself
    assert float((noisy - ideal).abs().max()) < 0.3
    counted, _, _ = overlaps(f"aer?noise=fake_manila&shots={shots}", 3)
    assert bool(((counted - noisy).abs() <= 5 * (noisy * (1 - noisy) / shots).sqrt()).all())


def test_a_fake_device_runs_the_block() -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    exact, device = block(window=2), block("ibm:fake_manila?shots=2000", window=2)
    with torch.no_grad():
        kernel = kernel_by_hand(exact, stream(3, 1))[0]
        found = device(stream(3, 1), Context()).hidden - by_hand(exact, stream(3, 1))
    assert device.report is not None
    assert (device.report.executions, device.report.shots, device.report.form) == (5, 2000, "pairs")
    assert device.report.kernel_mean == pytest.approx(float((kernel[1, 0] + kernel[2, 1]) / 2), abs=0.1)
    assert float(found.abs().max()) < 0.3


def test_states_without_gradients_serve_evaluation_and_training_asks_for_a_window() -> None:
    pytest.importorskip("qiskit_aer")
    made = block("aer")
    with torch.no_grad():
        torch.testing.assert_close(made(stream(), Context()).hidden, by_hand(block(), stream()), atol=1e-8, rtol=0)
    with pytest.raises(ValueError, match=r"expects a window on backend 'aer'.*needs 38 circuits"):
        made(stream(), Context(left_padded()))


def test_all_pairs_are_refused_with_their_number_and_nothing_is_not() -> None:
    made = block(Stateless())
    with pytest.raises(ValueError, match=r"no states with gradients: got window=0, which needs 56 circuits"):
        made(stream(), Context())
    assert made(stream(0), Context()).hidden.shape == (2, 0, 8)

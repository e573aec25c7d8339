"""The router of a mixture of experts: Born's rule on every backend, and the gradient of a hard choice.

Axis legend: b batch, l sequence, d model width, n tokens, e experts, w wires.
"""

import math
from functools import cache

import numpy as np
import oracles
import pytest
import torch
from expert_blocks import block, report_of, routing
from torch import Tensor, nn

from circuits.library import angle_encoding, hardware_efficient, vqc_router
from qlm.blocks.base import Context
from qlm.blocks.vqc_experts import VQCExperts
from qlm.experts.router import CircuitRouter, SoftmaxRouter, renormalise
from qlm.probabilities import ProbabilityLayer

# The circuit


@pytest.mark.parametrize(("n_wires", "depth"), [(1, 1), (2, 3), (3, 0)])
def test_router_is_an_encoder_and_trainable_layers(n_wires: int, depth: int) -> None:
    circuit = vqc_router(n_wires, depth)
    assert circuit == angle_encoding(n_wires) + hardware_efficient(n_wires, depth)
    assert (circuit.n_inputs, circuit.n_weights) == (n_wires, 3 * n_wires * depth)
    rng = np.random.default_rng(0)
    inputs, weights = rng.uniform(-3, 3, (4, n_wires)), rng.uniform(-3, 3, circuit.n_weights)
    layer = ProbabilityLayer(circuit).double()
    with torch.no_grad():
        layer.weights.copy_(torch.tensor(weights))
        found = layer(torch.tensor(inputs))
    expected = [np.diag(oracles.density(circuit, row, weights)).real for row in inputs]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("n_experts", [8, 5, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_uniform_circuit_routes_uniformly(n_experts: int, dtype: torch.dtype) -> None:
    """RY(pi/2) on every wire, and rotations by 0: each basis state has probability 1/8, in any order of CNOTs."""
    router = CircuitRouter(vqc_router(3, 2), n_experts, "statevector").to(dtype)
    nn.init.zeros_(router.layer.weights)
    found = renormalise(router(torch.full((6, 3), math.pi / 2, dtype=dtype)))
    torch.testing.assert_close(found.g, torch.full((6, n_experts), 1 / n_experts, dtype=dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.leaked, torch.full((6,), 1 - n_experts / 8, dtype=dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["circuit", "twin", "separable", "frozen"])
@pytest.mark.parametrize("n_experts", [3, 4])
def test_probabilities_are_born_s_rule_renormalised(mode: str, n_experts: int) -> None:
    made, hidden = block(quantum=mode, n_experts=n_experts).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    g = routing(made, hidden)
    torch.testing.assert_close(g.sum(-1), torch.ones(10, dtype=torch.float64), atol=1e-12, rtol=0)
    made.eval()(hidden, Context())
    entropy = float(-(g * g.log()).sum(-1).mean().detach())
    assert report_of(made).routing_entropy == pytest.approx(entropy)
    if isinstance(made.router, SoftmaxRouter):
        assert report_of(made).leaked_mass < 1e-12
        return
    assert isinstance(made.router, CircuitRouter)
    layer, angles = made.router.layer, made.angles(hidden).detach().flatten(0, 1).numpy()
    weights = layer.weights.detach().numpy()
    assert (mode == "separable") == all(len(op.wires) == 1 for op in layer.circuit.ops)
    born = np.array([np.diag(oracles.density(layer.circuit, row, weights)).real for row in angles])[:, :n_experts]
    np.testing.assert_allclose(g.detach().numpy(), born / born.sum(1, keepdims=True), atol=1e-7)
    assert report_of(made).leaked_mass == pytest.approx(1 - born.sum(1).mean(), abs=1e-7)
    assert (report_of(made).leaked_mass > 0.01) == (n_experts == 3)


def test_a_circuit_that_never_reaches_the_experts_routes_uniformly() -> None:
    """Angles of pi on both wires: basis state 3, and three experts."""
    made = block(n_experts=3, circuit=angle_encoding(2).to_json(), top_k=2, shared=0).eval()
    nn.init.zeros_(made.encode.weight)
    nn.init.constant_(made.encode.bias, 20.0)  # tanh is 1: angles of pi
    hidden = torch.randn(1, 6, 8)
    made(hidden, Context())
    report = report_of(made)
    assert (report.lost_tokens, report.mean_k) == (6, 2)
    assert report.leaked_mass == pytest.approx(1)
    assert report.routing_entropy == pytest.approx(math.log(3))
    assert report.load == (0.5, 0.5, 0.0)


# Gradients


def soft_mixture(made: VQCExperts, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """``sum_i g_i(weights) E_i`` over the chosen experts (n, e), for circuit weights put in by hand."""
    assert isinstance(made.router, CircuitRouter)
    angles = made.angles(hidden).flatten(0, 1)
    chances = made.router.layer.backend.probabilities(made.router.layer.circuit, angles, weights).values
    g = renormalise(chances[:, : made.config.n_experts]).g * chosen
    outputs = torch.stack([one(made.norm(hidden).flatten(0, 1)) for one in made.experts], 1)
    return (g[..., None] * outputs).sum(1)


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 4), (3, 3), (4, 1), (4, 2)])
def test_router_s_gradient_is_the_soft_mixture_s_by_finite_differences(n_experts: int, top_k: int) -> None:
    """With every expert chosen that of the mixture itself; else of the mixture in which the others add nothing."""
    made = block(n_experts=n_experts, top_k=top_k, shared=0).double().eval()
    hidden, cotangent = torch.randn(1, 6, 8).double(), torch.randn(6, 8).double()
    out = made(hidden, Context()).hidden
    (out[0] * cotangent).sum().backward()
    assert isinstance(made.router, CircuitRouter)
    found = made.router.layer.weights.grad
    assert found is not None
    with torch.no_grad():
        start = made.router.layer.weights.double()
        g = routing(made, hidden)
        chosen = torch.zeros_like(g).scatter(1, g.argsort(dim=1, descending=True)[:, :top_k], 1.0)
        if top_k == n_experts:
            torch.testing.assert_close(out[0], hidden[0] + soft_mixture(made, hidden, start, chosen))
        step, slopes = 1e-5, []
        for k in range(len(start)):
            shift = step * torch.eye(len(start))[k].double()
            ahead, behind = (soft_mixture(made, hidden, start + sign * shift, chosen) for sign in (1, -1))
            slopes.append(float(((ahead - behind) * cotangent).sum()) / (2 * step))
    np.testing.assert_allclose(found.numpy(), slopes, atol=1e-7)
    assert np.abs(slopes).max() > 1e-2


# Backends


SHOTS = 4000


def stream(n_wires: int) -> Tensor:
    """Angles of two tokens."""
    return torch.linspace(-2.5, 2.5, 2 * n_wires, dtype=torch.float64).reshape(2, n_wires)


@cache
def routed_on(spec: str, n_experts: int, spread: float = 1.0) -> tuple[Tensor, CircuitRouter]:
    """g (2, e) on a backend, and the router."""
    torch.manual_seed(0)
    n_wires = (n_experts - 1).bit_length()
    router = CircuitRouter(vqc_router(n_wires, 2), n_experts, spec).double()
    nn.init.normal_(router.layer.weights, 0.0, spread)
    with torch.no_grad():
        return renormalise(router(stream(n_wires))).g, router


@pytest.mark.parametrize(
    ("spec", "package"),
    [("aer", "qiskit_aer"), ("pennylane:default.qubit", "pennylane"), ("quimb:exact", "quimb")],
)
@pytest.mark.parametrize("n_experts", [16, 11])
def test_exact_backends_route_alike(spec: str, package: str, n_experts: int) -> None:
    pytest.importorskip(package)
    torch.testing.assert_close(routed_on(spec, n_experts)[0], routed_on("statevector", n_experts)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_bond", [4, 6, 8])
def test_matrix_product_states_route_within_their_truncation_error(max_bond: int) -> None:
    """64 experts on 6 wires, whose middle bond is 8 where nothing is cut."""
    pytest.importorskip("quimb")
    found, router = routed_on(f"quimb:mps?max_bond={max_bond}", 64, 0.5)
    layer = router.layer
    bound = layer.backend.probabilities(layer.circuit, stream(6), layer.weights.detach().double()).truncation_error
    error = (found - routed_on("statevector", 64, 0.5)[0]).abs()
    assert bool((error <= bound + 1e-6).all())
    assert float(bound.max()) < 0.4
    assert (float(error.max()) > 1e-3) == (max_bond < 8)


def test_counts_route_within_their_error_bars() -> None:
    pytest.importorskip("qiskit_aer")
    torch.manual_seed(1)
    found, router = routed_on(f"aer?shots={SHOTS}", 4)
    exact = routed_on("statevector", 4)[0]
    torch.testing.assert_close(found * SHOTS, (found * SHOTS).round(), atol=1e-6, rtol=0)
    error = (exact * (1 - exact) / SHOTS).sqrt()
    assert bool(((found - exact).abs() < 5 * error).all())
    assert router.shots == SHOTS


def test_block_trains_from_counts() -> None:
    """Few shots leave basis states unseen; gradients come by parameter shift."""
    pytest.importorskip("qiskit_aer")
    made = block("aer?shots=20", n_experts=3, depth=1).train()
    made(torch.randn(1, 6, 8), Context()).hidden.square().sum().backward()
    report = report_of(made)
    assert (report.shots, report.executions) == (20, 6)
    assert 0 < report.leaked_mass < 1
    assert isinstance(made.router, CircuitRouter)
    assert made.router.layer.weights.grad is not None
    assert bool(made.router.layer.weights.grad.any())


def test_a_fake_device_routes_with_its_noise() -> None:
    """Within the error bars of what the device itself measures, and apart from the noiseless answer."""
    pytest.importorskip("qiskit_ibm_runtime")
    torch.manual_seed(0)
    found, router = routed_on("ibm:fake_manila?shots=4000", 4)
    layer = router.layer
    device = layer.backend.probabilities(layer.circuit, stream(2), layer.weights.detach().double(), shots=40000, seed=1)
    error = (device.values * (1 - device.values) * (1 / SHOTS + 1 / 40000)).sqrt()
    assert bool(((found - device.values).abs() < 5 * error).all())
    exact = routed_on("statevector", 4)[0]
    assert 0.02 < float((found - exact).abs().max()) < 0.1
    made = block("ibm:fake_manila?shots=500", n_experts=4, depth=1).eval()
    made(torch.randn(1, 3, 8), Context())
    assert (report_of(made).shots, report_of(made).executions) == (500, 3)

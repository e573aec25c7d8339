"""Quantum layers seen by torch.compile, torch.func, FLOP counters, copies and pickles.

Axis legend: b batch, i inputs, o observables.
"""

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from backends import open_backend
from backends.flops import backward_flops, forward_flops
from backends.operator import _LIVE, watched
from circuits import Circuit, Op, Reset, Weight, X, Z
from circuits.library import angle_encoding, hardware_efficient, reuploading
from qlm.probabilities import ProbabilityLayer
from qlm.quantum import QuantumLayer

LAYERS = {
    "expectations": lambda: QuantumLayer(reuploading(3, 2), (Z(0), X(1))),
    "probabilities": lambda: ProbabilityLayer(reuploading(3, 1), wires=(2, 0)),
    "aer": lambda: QuantumLayer(reuploading(3, 1), (Z(0),), "aer:statevector"),
    "no weights": lambda: QuantumLayer(angle_encoding(3), (Z(0), Z(2))),
    "no inputs": lambda: QuantumLayer(hardware_efficient(3, 1), (Z(0),)),
    "resets": lambda: QuantumLayer(
        angle_encoding(3) + Circuit(3, (*Reset(1), Op("ry", (1,), (Weight(0),)), Op("cx", (0, 1)))), (Z(1),)
    ),
}


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch._dynamo.reset()


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> QuantumLayer:
    torch.manual_seed(0)
    return LAYERS[request.param]()


def inputs_of(layer: QuantumLayer, batch: int = 5) -> Tensor:
    return torch.randn(batch, layer.circuit.n_inputs)


def run(layer: Callable[[Tensor], Tensor], inputs: Tensor, weights: Tensor) -> list[Tensor]:
    """Values and both gradients of a random combination of them."""
    leaf = inputs.clone().requires_grad_()
    values = layer(leaf)
    loss = (values * torch.linspace(-1, 2, values.numel()).reshape(values.shape)).sum()
    return [values, *torch.autograd.grad(loss, (leaf, weights), materialize_grads=True, allow_unused=True)]


def test_compiled_layers_equal_plain_ones(layer: QuantumLayer) -> None:
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for shape in ((5,), (2, 3)):
        inputs = torch.randn(*shape, layer.circuit.n_inputs)
        for found, expected in zip(
            run(compiled, inputs, layer.weights), run(layer, inputs, layer.weights), strict=True
        ):
            torch.testing.assert_close(found, expected)


def test_the_operator_keeps_every_promise_that_torch_checks(layer: QuantumLayer) -> None:
    evaluate = torch.ops.hybridqlm.evaluate.default
    plain, key = inputs_of(layer), layer._operator.key
    for inputs, weights in ((plain, layer.weights.detach()), (plain.clone().requires_grad_(), layer.weights)):
        opcheck(evaluate, (inputs, weights, key), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["expectations", "probabilities", "no weights"])
def test_maps_and_jacobians_equal_loops(kind: str) -> None:
    layer = LAYERS[kind]()
    inputs = inputs_of(layer)
    rows = torch.vmap(lambda row: layer(row[None])[0])(inputs)
    torch.testing.assert_close(rows, layer(inputs))
    stacked = torch.stack((inputs, -inputs))
    torch.testing.assert_close(torch.vmap(layer)(stacked), torch.stack([layer(part) for part in stacked]))
    jacobian = torch.vmap(torch.func.jacrev(lambda row: layer(row[None])[0]))(inputs)
    leaf = inputs.clone().requires_grad_()
    for o in range(jacobian.shape[1]):
        (slope,) = torch.autograd.grad(layer(leaf)[:, o].sum(), leaf)
        torch.testing.assert_close(jacobian[:, o], slope)


def test_gradients_of_single_samples_add_up() -> None:
    layer = LAYERS["expectations"]()
    inputs, weights = inputs_of(layer), layer.weights.detach()

    def loss(weights: Tensor, row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weights": weights}, (row[None],)).square().sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, inputs)
    (whole,) = torch.autograd.grad(layer(inputs).square().sum(), layer.weights)
    torch.testing.assert_close(each.sum(0), whole)


def test_second_derivatives_are_refused_under_torch_func_and_work_without() -> None:
    layer = LAYERS["expectations"]()
    with pytest.raises(NotImplementedError, match="expect first derivatives of circuits"):
        torch.func.jacrev(torch.func.jacrev(lambda row: layer(row[None]).sum()))(inputs_of(layer)[0])
    inputs = inputs_of(layer).requires_grad_()
    (first,) = torch.autograd.grad(layer(inputs).sum(), inputs, create_graph=True)
    assert torch.autograd.grad(first.sum(), inputs)[0].abs().sum() > 0


def test_flops_are_counted_by_the_written_formulas() -> None:
    layer = QuantumLayer(angle_encoding(2), (Z(0), Z(1)))
    inputs = torch.randn(7, 2, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(inputs).sum().backward()
    # a product state (12 of each amplitude), |psi|^2 and two signed sums (5); once more on the way back, then
    # the bra (4) and the slopes of two wires (12 each)
    assert counter.get_total_flops() == 7 * 4 * (17 + 12 + 24 + 4)
    assert counter.get_total_flops() == 7 * (forward_flops(layer.circuit, 2) + backward_flops(layer.circuit, 2))


@pytest.mark.parametrize("circuit", [hardware_efficient(18, 1), Circuit(2, (Op("h", (0,)), *Reset(1)))])
def test_flops_of_circuits_that_are_not_compiled_are_counted_gate_by_gate(circuit: Circuit) -> None:
    one_wire = sum(len(op.wires) == 1 and op.name != "reset" for op in circuit.ops)
    size = 2 * 4**2 if circuit.n_wires == 2 else 2**18
    assert forward_flops(circuit, 1) == size * (14 * one_wire + 6 * (len(circuit.ops) - one_wire) * circuit.is_unitary)


def test_equal_layers_share_an_operator_and_unused_ones_are_forgotten() -> None:
    layer, twin = (QuantumLayer(reuploading(2, 5), (Z(0),)) for _ in range(2))
    assert layer._operator is twin._operator
    assert copy.deepcopy(layer)._operator is layer._operator
    assert pickle.loads(pickle.dumps(layer))._operator is layer._operator
    key = layer._operator.key
    layer.backend = open_backend("aer:statevector")
    assert layer._operator.key != key
    del twin
    gc.collect()
    assert key not in _LIVE
    with pytest.raises(RuntimeError, match="expects the layer that it was traced with"):
        torch.ops.hybridqlm.evaluate(torch.zeros(1, 2), layer.weights, key)


def test_nothing_is_watched_in_plain_code() -> None:
    assert not watched()
    with FlopCounterMode(display=False):
        assert watched()
    seen = []
    torch.vmap(lambda row: (seen.append(watched()), row)[1])(torch.zeros(2))
    assert seen == [True]


def test_half_precision_and_autocast_go_through_a_graph() -> None:
    layer = LAYERS["expectations"]()
    inputs = inputs_of(layer).bfloat16()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert compiled(inputs).dtype == torch.bfloat16
    torch.testing.assert_close(compiled(inputs), layer(inputs))

"""Blocks and models inside torch.compile(fullgraph=True) give what they give outside, gradients too.

Axis legend: b batch, l sequence, d model width.
"""

from collections.abc import Callable

import pytest
import torch
from small_blocks import SMALL
from torch import Tensor, nn

from qlm.blocks.base import Block, Context
from qlm.config import QLMConfig
from qlm.modeling import QLMForCausalLM
from qlm.registry import BLOCKS, block_class, block_config


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch._dynamo.reset()


def make(kind: str) -> Block:
    torch.manual_seed(0)
    config = block_config({"kind": kind, **SMALL.get(kind, {})}, "circuit")
    return block_class(kind)(8, config).eval()  # pyright: ignore[reportCallIssue]


def slopes(run: Callable[[Tensor], Tensor], hidden: Tensor, module: nn.Module) -> list[Tensor]:
    """The result, and the gradients of a random combination of it."""
    leaf = hidden.clone().requires_grad_()
    result = run(leaf)
    loss = (result * torch.linspace(-1, 1, result.numel()).reshape(result.shape)).sum()
    wanted = [leaf, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    return [result, *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)]


@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")  # torch's own tracer
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "kind", [kind for kind in BLOCKS if block_class(kind).holds_circuit or kind == "tt_feed_forward"]
)
def test_blocks_with_circuits_are_whole_graphs(kind: str, padded: bool) -> None:
    block, hidden = make(kind), torch.randn(2, 5, 8)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool) if padded else None
    hardness = torch.rand(2, 5) if kind == "tt_feed_forward" else None

    def run(hidden: Tensor) -> Tensor:
        update = block(hidden, Context(mask=mask, hardness=hardness)).hidden - hidden
        return update if mask is None else update * mask[..., None]  # what stands at padding is nobody's

    graph = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, expected in zip(slopes(graph, hidden, block), slopes(run, hidden, block), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("quantum", ["circuit", "twin"])
def test_a_training_step_of_a_hybrid_model_is_one_graph(quantum: str) -> None:
    torch.manual_seed(0)
    entries = [
        {"kind": "harmonic"},
        {"kind": "quantum_router", "exploration": 0.0},
        {"kind": "tt_feed_forward", "nested": 0.0},
    ]
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=entries, quantum=quantum)).train()
    ids = torch.randint(0, 250, (2, 12))
    gradients = []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss = step(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_reports_are_left_alone_by_graphs() -> None:
    block, hidden = make("time_crystal"), torch.randn(1, 4, 8)
    block(hidden[:, :2], Context())
    report = block.report
    torch.compile(lambda hidden: block(hidden, Context()).hidden, fullgraph=True, backend="aot_eager")(hidden)
    assert block.report is report
    assert report.tokens == 2

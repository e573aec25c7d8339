"""The tensor-train feed-forward: each token at the rank of its hardness, and the gradient through that choice.

Axis legend: b batch, l sequence, d model width.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qlm.blocks.base import Context
from qlm.blocks.tt_feed_forward import TTFeedForward, TTFeedForwardConfig

RANKS = (1, 2, 3, 5)


def feed_forward(**changes: Any) -> TTFeedForward:
    torch.manual_seed(0)
    return TTFeedForward(16, TTFeedForwardConfig(**{"ranks": RANKS, **changes})).double().eval()


def masked_update(block: TTFeedForward, hidden: Tensor, ranks: Tensor) -> Tensor:
    """The update by masks on the bonds, which are the definition of a token's rank."""
    inner = functional.gelu(block.up.forward_masked(block.norm(hidden), ranks))
    return block.down.forward_masked(inner, ranks)


def tokens(batch: int = 2, length: int = 9) -> Tensor:
    return torch.randn(batch, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_rank_follows_hardness() -> None:
    block, hidden = feed_forward(), tokens(1, 9)
    hardness = torch.tensor([[0.0, 0.1, 0.17, 0.3, 0.49, 0.51, 0.83, 0.84, 1.0]], dtype=torch.float64)
    ranks = torch.tensor([[1, 1, 2, 2, 2, 3, 3, 5, 5]])
    output = block(hidden, Context(hardness=hardness))
    torch.testing.assert_close(output.hidden, hidden + masked_update(block, hidden, ranks), atol=1e-12, rtol=0)
    report = block.report
    assert report is not None
    assert report.mean_rank == pytest.approx(24 / 9)
    assert report.flops == block.up.flops(ranks) + block.down.flops(ranks)
    assert report.full_flops == block.up.plan(9).flops + block.down.plan(9).flops


def test_low_ranks_cost_fewer_flops() -> None:
    block, hidden = feed_forward(), tokens(4, 64)
    block(hidden, Context(hardness=torch.zeros(4, 64, dtype=torch.float64)))
    assert block.report is not None
    assert block.report.mean_rank == 1
    assert block.report.flops < block.report.full_flops


def test_without_a_router_all_tokens_are_at_full_rank() -> None:
    block, hidden = feed_forward(), tokens()
    output = block(hidden, Context())
    dense = functional.linear(
        functional.gelu(functional.linear(block.norm(hidden), block.up.weight(), block.up.bias)),
        block.down.weight(),
        block.down.bias,
    )
    torch.testing.assert_close(output.hidden, hidden + dense, atol=1e-12, rtol=0)
    assert block.report is not None
    assert block.report.mean_rank == 5


@pytest.mark.parametrize("training", [False, True])
def test_hardness_of_routed_tokens_gets_the_difference_to_the_next_rank(training: bool) -> None:
    """dL/dh_t = (R - 1) <dL/dy_t, y_t(next rank) - y_t(rank)> where routed and not at the top, else 0."""
    block, hidden = feed_forward(nested=0.0).train(training), tokens()
    hardness = torch.linspace(0, 1, 18, dtype=torch.float64).reshape(2, 9).requires_grad_()
    routed = torch.rand(2, 9, generator=torch.Generator().manual_seed(2)) < 0.6
    cotangent = torch.randn_like(hidden)
    output = block(hidden, Context(hardness=hardness, routed=routed))
    (output.hidden * cotangent).sum().backward()
    with torch.no_grad():
        level = (3 * hardness).round().long()
        table = torch.tensor(RANKS)
        low = masked_update(block, hidden, table[level])
        high = masked_update(block, hidden, table[(level + 1).clamp(max=3)])
        torch.testing.assert_close(output.hidden, hidden + low, atol=1e-12, rtol=0)
        expected = torch.where(routed, 3 * ((high - low) * cotangent).sum(-1), 0.0)
    assert hardness.grad is not None
    torch.testing.assert_close(hardness.grad, expected, atol=1e-11, rtol=0)
    assert int((expected != 0).sum()) > 5


def test_weights_learn_from_routed_and_unrouted_tokens_alike() -> None:
    """The straight-through term adds a gradient to the hardness and takes none from the cores."""
    block, hidden = feed_forward(), tokens()
    hardness = torch.linspace(0, 1, 18, dtype=torch.float64).reshape(2, 9)
    parameters = list(block.parameters())
    plain = torch.autograd.grad(block(hidden, Context(hardness=hardness)).hidden.square().sum(), parameters)
    context = Context(hardness=hardness.requires_grad_(), routed=torch.ones(2, 9, dtype=torch.bool))
    through = torch.autograd.grad(block(hidden, context).hidden.square().sum(), parameters)
    for one, other in zip(plain, through, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_nested_ranks_are_drawn_in_training_alone() -> None:
    block, hidden = feed_forward(nested=0.5), tokens(4, 250)
    hard = Context(hardness=torch.ones(4, 250, dtype=torch.float64))
    block.eval()(hidden, hard)
    assert block.report is not None
    assert block.report.mean_rank == 5
    block.train()(hidden, hard)
    # Half the tokens keep rank 5, the others are uniform on (1, 2, 3, 5): mean 2.75, variance 2.1875.
    mean, variance = 0.5 * 5 + 0.5 * 2.75, 0.5 * 2.1875 + 0.25 * (5 - 2.75) ** 2
    assert abs(block.report.mean_rank - mean) < 4 * (variance / 1000) ** 0.5


def test_no_routed_token_and_no_token_at_all() -> None:
    block = feed_forward().train()
    hardness = torch.rand(2, 9, dtype=torch.float64, requires_grad=True)
    nothing = Context(hardness=hardness, routed=torch.zeros(2, 9, dtype=torch.bool))
    block(tokens(), nothing).hidden.sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
    empty = block(torch.zeros(0, 4, 16, dtype=torch.float64), Context(hardness=torch.zeros(0, 4, dtype=torch.float64)))
    assert empty.hidden.shape == (0, 4, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": ()}, "1 to 4 ascending ranks"),
        ({"ranks": (2, 1)}, "1 to 4 ascending ranks"),
        ({"ranks": (1, 2, 3, 4, 5)}, "1 to 4 ascending ranks"),
        ({"ranks": (0, 2)}, "1 to 4 ascending ranks"),
        ({"nested": 1.5}, "nested in \\[0, 1\\]"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TTFeedForwardConfig(**changes)


def test_ranks_that_the_cores_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="lower the ranks"):
        TTFeedForward(4, TTFeedForwardConfig(ranks=(4, 64)))

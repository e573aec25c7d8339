"""The tensor-train feed-forward: each token at the rank of its hardness, and the gradient through that choice.

Axis legend: b batch, l sequence, d model width.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qlm import QLMConfig, QLMForCausalLM
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
        ({"budget": 0.5}, "budget of at least 4, its smallest rank, or 0 for none, got 0.5"),
        ({"budget": float("nan")}, "budget of at least 4, its smallest rank, or 0 for none, got nan"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TTFeedForwardConfig(**changes)


def test_ranks_that_the_cores_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="lower the ranks"):
        TTFeedForward(4, TTFeedForwardConfig(ranks=(4, 64)))


def hard(batch: int, length: int, low: float = 0.2, high: float = 1.0, seed: int = 0) -> Tensor:
    """Hardness uniform on [low, high]."""
    drawn = torch.rand(batch, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * drawn


@pytest.mark.parametrize("budget", [1.0, 1.7, 2.5, 3.9])
def test_the_mean_rank_comes_below_the_budget_and_uses_it(budget: float) -> None:
    """Without a budget the mean is 3.3: hardness uniform on [0.2, 1] rounds to levels 1, 2, 3 and a little 0."""
    block = feed_forward(budget=budget).train()
    for step in range(60):
        block(tokens(4, 64), Context(hardness=hard(4, 64, seed=step)))
    block.eval()
    block(tokens(8, 500), Context(hardness=hard(8, 500, seed=1000)))
    assert block.report is not None
    assert block.report.mean_rank <= budget
    free = feed_forward()
    free(tokens(8, 500), Context(hardness=hard(8, 500, seed=1000)))
    assert free.report is not None
    assert block.report.mean_rank > min(0.9 * budget, free.report.mean_rank - 1e-9) - 1e-9
    assert (block.report.offset == 0) is (free.report.mean_rank <= 0.95 * budget)


def test_the_budget_follows_harder_and_easier_text() -> None:
    block = feed_forward(budget=2.0, nested=0.0).train()
    means = []
    for low, high in ((0.5, 1.0), (0.0, 0.6), (0.5, 1.0)):
        for step in range(90):
            block(tokens(2, 64), Context(hardness=hard(2, 64, low, high, seed=step)))
        assert block.report is not None
        means.append((block.report.mean_rank, block.report.offset))
    assert all(1.6 < mean < 2.15 for mean, _ in means)  # 128 tokens: 5 % below the budget, give or take 0.1
    assert means[1][1] < means[0][1] - 0.5
    assert means[2][1] == pytest.approx(means[0][1], abs=0.1)


def test_tokens_of_one_hardness_stay_within_the_budget_too() -> None:
    """As an "off" router hands on: 1 everywhere. All of them take the largest rank that fits, and keep it."""
    block = feed_forward(budget=4.0, nested=0.0).train()
    ones = Context(hardness=torch.ones(2, 9, dtype=torch.float64))
    ranks = []
    for _ in range(10):
        block(tokens(), ones)
        assert block.report is not None
        ranks.append(block.report.mean_rank)
    assert ranks == [5.0] + [3.0] * 9
    block.eval()(tokens(), Context())
    assert block.report is not None
    assert block.report.mean_rank == 3.0  # no router at all: the same


def test_a_rank_depends_on_past_steps_and_its_own_token_alone() -> None:
    """In training, with a budget: other tokens of the batch, and later ones of the text, change nothing."""
    block = feed_forward(budget=2.0, nested=0.0).train()
    for step in range(30):
        block(tokens(), Context(hardness=hard(2, 9, seed=step)))
    hidden, hardness = tokens(), hard(2, 9, seed=77)
    other_hidden, other_hardness = hidden.clone(), hardness.clone()
    other_hidden[0, 5:], other_hardness[0, 5:] = 1.0, 0.0
    other_hidden[1], other_hardness[1] = -1.0, 1.0
    twin = copy.deepcopy(block)
    one = block(hidden, Context(hardness=hardness)).hidden
    other = twin(other_hidden, Context(hardness=other_hardness)).hidden
    torch.testing.assert_close(one[0, :5], other[0, :5], atol=1e-12, rtol=0)
    assert block.report is not None
    assert block.report.offset > 0
    assert block.budget is not None
    assert twin.budget is not None
    assert not torch.equal(block.budget.average, twin.budget.average)  # what they saw moves the steps to come


def test_evaluation_moves_no_budget_and_padding_does_not_count() -> None:
    block = feed_forward(budget=2.0).train()
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, :4] = False
    easy = hard(2, 9)
    easy[:, :4] = 0.0
    block(tokens(), Context(mask=mask, hardness=easy))
    alone = feed_forward(budget=2.0).train()
    alone(tokens(2, 5), Context(hardness=easy[:, 4:]))
    assert block.budget is not None
    assert alone.budget is not None
    assert torch.equal(block.budget.average, alone.budget.average)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block.eval()(tokens(), Context(hardness=hard(2, 9, 0.9, 1.0)))
    block.train()(tokens(0, 4), Context(hardness=hard(0, 4)))
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_the_budget_is_kept_in_a_checkpoint(tmp_path: Path) -> None:
    blocks = [{"kind": "quantum_router", "n_wires": 2, "depth": 1}, {"kind": "tt_feed_forward", "ranks": [1, 2, 3, 4]}]
    blocks[1]["budget"] = 1.5
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=blocks)).train()
    ids = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        model(ids)
    budget = model.model.layers[1].budget
    assert float(budget.offset) > 0  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue] -- a module
    model.save_pretrained(tmp_path)
    again = QLMForCausalLM.from_pretrained(tmp_path)
    for name in ("offset", "average"):
        assert torch.equal(getattr(again.model.layers[1].budget, name), getattr(budget, name))
    assert torch.equal(again(ids).logits, model.eval()(ids).logits)


def test_one_rank_is_a_fixed_rank_whatever_the_hardness() -> None:
    """So that a separable circuit, which has no entropy, is compared with an entangling one at equal ranks."""
    block, hidden = feed_forward(ranks=(3,)), tokens()
    outputs = [block(hidden, context).hidden for context in (Context(), Context(hardness=hard(2, 9)))]
    assert torch.equal(*outputs)
    assert block.report is not None
    assert (block.report.mean_rank, block.report.flops) == (3, block.report.full_flops)


def test_nested_training_makes_a_block_lose_less_at_low_rank() -> None:
    """The same block, data and steps, with and without nested ranks; then cut to rank 1: the loss that cutting adds."""

    def added(nested: float) -> float:
        torch.manual_seed(3)
        block = TTFeedForward(16, TTFeedForwardConfig(expansion=2, ranks=(1, 4), nested=nested))
        teacher = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 16))
        optimizer = torch.optim.Adam(block.parameters(), lr=0.01)
        hidden = torch.randn(4, 64, 16)
        target = hidden + teacher(block.norm(hidden)).detach()

        def loss(hardness: float) -> Tensor:
            output = block(hidden, Context(hardness=torch.full((4, 64), hardness)))
            return (output.hidden - target).square().mean()

        for _ in range(120):
            optimizer.zero_grad()
            loss(1.0).backward()
            optimizer.step()
        with torch.no_grad():
            block.eval()
            return float(loss(0.0) - loss(1.0))

    assert 0 < added(0.5) < 0.7 * added(0.0)

"""Per-token ranks: drawing them for training, keeping their mean in a budget, computing group by group, a gradient
through the choice."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def nested_ranks(
    n: int,
    choices: Sequence[int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw `n` bond ranks uniformly from `choices`: training under them keeps every prefix good (nested dropout).

    A network that sees only its full rank has no reason to keep its bonds ordered; one that is cut at a random
    rank in training learns to put what matters most first. Returns int64 `(n,)` on the generator's device.

    Raises ValueError unless `choices` are integers of at least 1. Source: Rippel, Gelbart, Adams, ICML 2014
    (there with geometric draws).

    >>> sorted(set(nested_ranks(100, (2, 4, 8), torch.Generator().manual_seed(0)).tolist()))
    [2, 4, 8]
    """
    if not choices or min(choices) < 1:
        raise ValueError(f"expected at least one rank, each at least 1, got {tuple(choices)}; e.g. (2, 4, 8)")
    device = generator.device if generator is not None else torch.device("cpu")
    picks = torch.randint(len(choices), (n,), generator=generator, device=device)
    return torch.tensor(list(choices), device=device)[picks]


class RankBudget(nn.Module):
    """An offset on tokens' levels that keeps the mean rank below ``budget``, learnt from past training steps alone.

    A token of level s (in [0, R - 1], before rounding) gets ``ranks[round(clamp(s - offset, 0, R - 1))]``. After each
    training step the histogram of its levels enters an exponential average over steps (half of it is older than 7), and
    the offset becomes the smallest one at which the mean rank under that average is at most 95 % of the budget; the
    reserve is for text that is a little harder than the past. So a token's rank depends on its own level and on earlier
    steps, never on other tokens of its batch or text. In evaluation the offset stands still. Both are buffers, hence in
    checkpoints.

    Raises ValueError for a budget below the smallest rank. Cost: O(tokens + bins) a step.

    >>> budget = RankBudget((2, 4, 8), budget=4.0)
    >>> levels = torch.linspace(0, 2, 100)
    >>> budget.observe(levels)
    >>> bool(torch.tensor([2.0, 4.0, 8.0])[(levels - budget.offset).clamp(0, 2).round().long()].mean() <= 4.0)
    True
    """

    offset: Tensor
    average: Tensor
    RATE = 0.1
    AIM = 0.95
    BINS_PER_LEVEL = 128

    def __init__(self, ranks: Sequence[int], budget: float) -> None:
        super().__init__()
        if not budget >= ranks[0]:
            raise ValueError(f"expected a mean rank of at least {ranks[0]}, the smallest rank, got {budget}; raise it")
        self.ranks, self.budget = tuple(ranks), float(budget)
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("average", torch.zeros(self.BINS_PER_LEVEL * (len(ranks) - 1) + 1))

    @torch.no_grad()
    def observe(self, levels: Tensor) -> None:
        """Take one training step's levels, of any shape, into the average and move the offset; nothing for no level."""
        if not levels.numel():
            return
        bins = (levels.flatten() * self.BINS_PER_LEVEL).round().long().clamp(0, len(self.average) - 1)
        share = torch.bincount(bins, minlength=len(self.average)).to(self.average) / len(bins)
        self.average.lerp_(share, self.RATE)
        self.offset.fill_(self._smallest_offset())

    def _smallest_offset(self) -> float:
        """Of mean ranks at all offsets, one bin apart, the first within the aim; the last offset leaves rank 1 of R."""
        n = len(self.average)
        places = torch.arange(n, device=self.average.device)
        shifted = (places[None, :] - places[:, None]).clamp(min=0) / self.BINS_PER_LEVEL  # (offsets, bins)
        ranks = torch.tensor(self.ranks, device=places.device, dtype=torch.float64)[shifted.round().long()]
        means = ranks @ self.average.double() / self.average.double().sum()
        within = means <= max(self.AIM * self.budget, self.ranks[0] * (1 + 1e-9))
        return int(within.int().argmax()) / self.BINS_PER_LEVEL


def apply_by_rank(
    function: Callable[[Tensor, int], Tensor], x: Tensor, ranks: Tensor, max_groups: int = 4
) -> Tensor | None:
    """Return ``function(tokens, rank)`` for every token at its own rank: tokens sorted by rank, one call per rank.

    ``x`` (n, features), ``ranks`` integers (n,); the result (n, ...) is in the order of ``x``, None for no tokens.
    Raises ValueError where there are more than ``max_groups`` distinct ranks, since each costs a call.

    >>> apply_by_rank(lambda tokens, rank: rank * tokens, torch.ones(3, 1), torch.tensor([2, 1, 2])).tolist()
    [[2.0], [1.0], [2.0]]
    """
    distinct, counts = ranks.unique(return_counts=True)
    if len(distinct) > max_groups:
        raise ValueError(
            f"expected at most {max_groups} distinct ranks, got {len(distinct)}: {distinct.tolist()}; "
            "round the ranks to fewer levels or raise max_groups"
        )
    if not len(distinct):
        return None
    if len(distinct) == 1:
        return function(x, int(distinct[0]))
    order = ranks.argsort(stable=True)
    groups = zip(x[order].split(counts.tolist()), distinct.tolist(), strict=True)
    y = torch.cat([function(tokens, rank) for tokens, rank in groups])
    return y[order.argsort()]


def rank_straight_through(y_low: Tensor, y_high: Tensor, soft: Tensor) -> Tensor:
    """The output at the chosen rank, with a gradient for the choice: `y_low + (soft - sg(soft)) sg(y_high - y_low)`.

    `sg` stops gradients. The value is `y_low`, unchanged; `y_low` keeps its own gradient; and `soft` (one number
    per token, in steps of rank) receives `<dL/dy, y_high - y_low>`, the finite difference between the outputs at
    the chosen rank and at the next one. It is biased, as every straight-through gradient is.

    Shapes: `y_low`, `y_high` `(..., features)`, `soft` `(...)`. Raises ValueError where they do not match.
    Source: Bengio, Leonard, Courville, arXiv:1308.3432 (2013).

    >>> soft = torch.zeros(3, requires_grad=True)
    >>> rank_straight_through(torch.zeros(3, 2), torch.ones(3, 2), soft).sum().backward()
    >>> soft.grad
    tensor([2., 2., 2.])
    """
    if y_low.shape != y_high.shape or soft.shape != y_low.shape[:-1]:
        raise ValueError(
            f"expected y_low and y_high of one shape (..., features) and soft (...), got {tuple(y_low.shape)}, "
            f"{tuple(y_high.shape)} and {tuple(soft.shape)}"
        )
    return y_low + (soft - soft.detach()).unsqueeze(-1) * (y_high - y_low).detach()


def check_rank(rank: int, held: int) -> None:
    """Raise TypeError unless `rank` is an integer, ValueError unless 1 <= `rank` <= `held`.

    >>> check_rank(3, held=4)
    """
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"expected a rank as an integer, got {rank!r}; pass 1 to {held}")
    if not 1 <= rank <= held:
        raise ValueError(
            f"expected a rank from 1 to the {held} that the cores hold, got {rank}; build the layer with a larger "
            "max_rank or ask for less"
        )


def check_ranks(ranks: Tensor, shape: torch.Size, held: int) -> None:
    """Raise unless `ranks` is an integer tensor of `shape` with all entries in 1..`held` (reads them: a sync).

    >>> check_ranks(torch.tensor([1, 4]), torch.Size([2]), held=4)
    """
    if not isinstance(ranks, Tensor):
        raise TypeError(f"expected ranks as a torch tensor, got {type(ranks).__name__}; pass torch.tensor of them")
    if ranks.is_floating_point() or ranks.is_complex() or ranks.dtype == torch.bool:
        raise TypeError(f"expected integer ranks, got {ranks.dtype}; round them and convert with .long()")
    if ranks.shape != shape:
        raise ValueError(f"expected one rank per token, shape {tuple(shape)}, got {tuple(ranks.shape)}")
    if ranks.numel():
        low, high = torch.stack(ranks.aminmax()).tolist()
        check_rank(low, held)
        check_rank(high, held)

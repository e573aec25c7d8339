"""A tensor-train feed-forward layer whose rank follows each token's hardness.

Axis legend: b batch, l sequence, d model width, r ranks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm.blocks.base import Block, BlockOutput, Context, real_tokens, writes_report
from qlm.fields import check_types
from tensornet import TTLinear
from tensornet.rank_schedule import RankBudget, apply_by_rank, nested_ranks, rank_straight_through


@dataclass(frozen=True)
class TTFeedForwardConfig:
    """``expansion``: inner width over d_model; ``ranks``: the bond ranks a token can get, ascending; ``nested``: share
    of tokens that get a random one of them while training, so that every prefix of a bond stays good; ``budget``: the
    mean rank to stay below, 0 for none (nested draws, which end with training, come on top)."""

    expansion: int = 4
    ranks: tuple[int, ...] = (4, 8, 12, 16)
    nested: float = 0.1
    budget: float = 0.0

    def __post_init__(self) -> None:
        check_types("tt_feed_forward", self)
        object.__setattr__(self, "ranks", tuple(int(rank) for rank in self.ranks))
        if not self.ranks or list(self.ranks) != sorted(set(self.ranks)) or self.ranks[0] < 1 or len(self.ranks) > 4:
            raise ValueError(f"tt_feed_forward expects 1 to 4 ascending ranks of at least 1, got {self.ranks}.")
        if not 0 <= self.nested <= 1:
            raise ValueError(f"tt_feed_forward expects nested in [0, 1], got {self.nested}; it is a share of tokens.")
        if self.budget != 0 and not self.budget >= min(self.ranks):
            raise ValueError(
                f"tt_feed_forward expects a budget of at least {min(self.ranks)}, its smallest rank, or 0 for none, "
                f"got {self.budget}."
            )


@dataclass(frozen=True)
class RankReport:
    """What the last call did: the mean rank over real (unpadded) tokens, its counted flops, and those at full rank.

    Flops are those of all tokens, since padding is computed too. ``offset``: by how many levels the budget lowered each
    token, 0 without one.
    """

    mean_rank: float
    flops: int
    full_flops: int
    offset: float = 0.0


class TTFeedForward(Block):
    """``h + W_2 gelu(W_1 norm(h))`` with both maps tensor trains cut to a token's rank ``r_t``.

    ``r_t = ranks[round((R - 1) hardness_t - offset)]``, R the number of ranks, clamped to the first and last; full
    rank, or the largest within the budget, where no router came before. The offset is 0 without a budget, else
    ``RankBudget``'s: it follows the mean rank of past training steps and stands still in evaluation. Tokens are grouped
    by rank, so a call costs one reconstruction or contraction per distinct rank. Routed tokens' hardness gets a
    straight-through gradient: the difference to the output at the next rank. With one rank alone it is fixed, whatever
    the hardness: so a separable circuit, whose entropy is 0, is compared with an entangling one.

    Source: Novikov et al. 2015 (arXiv:1509.06569); rank scheduling as in Q-TensorFormer; nested dropout of Rippel et
    al. 2014.

    >>> block = TTFeedForward(16, TTFeedForwardConfig(ranks=(1, 2)))
    >>> block(torch.zeros(1, 3, 16), Context()).hidden.shape
    torch.Size([1, 3, 16])
    """

    Config = TTFeedForwardConfig
    report: RankReport | None = None

    def __init__(self, d_model: int, config: TTFeedForwardConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.up = TTLinear(d_model, config.expansion * d_model, max_rank=config.ranks[-1])
        self.down = TTLinear(config.expansion * d_model, d_model, max_rank=config.ranks[-1])
        self.budget = RankBudget(config.ranks, config.budget) if config.budget else None
        held = min(self.up.max_rank, self.down.max_rank)
        if held < config.ranks[-1]:
            raise ValueError(
                f"tt_feed_forward expects ranks up to the {held} that its cores hold at d_model={d_model}, got "
                f"{config.ranks[-1]}; lower the ranks."
            )

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        normed = self.norm(hidden)
        ranks, soft = self._ranks(hidden, context)
        update = self._apply_at(normed, ranks)
        routed = context.routed
        if soft is not None and soft.requires_grad and routed is not None:
            update = self._with_rank_gradient(update, normed, ranks, soft, routed)
        self._write_report(ranks, real_tokens(hidden, context.mask))
        return BlockOutput(hidden + update)

    def _ranks(self, hidden: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """Ranks (b, l), and the unrounded level (b, l) that they come from."""
        table = torch.tensor(self.config.ranks, device=hidden.device)
        if context.hardness is None:
            allowed = [rank for rank in self.config.ranks if not self.budget or rank <= self.config.budget]
            return torch.full(hidden.shape[:2], allowed[-1], device=hidden.device), None
        soft = context.hardness * (len(table) - 1)
        if self.budget is not None:
            levels = soft
            soft = soft - self.budget.offset  # a new tensor: what this step observes moves the next one's
            if self.training:
                self.budget.observe(levels.detach()[real_tokens(hidden, context.mask)])
        ranks = table[soft.detach().round().long().clamp(0, len(table) - 1)]
        if self.training and self.config.nested > 0:
            drawn = nested_ranks(ranks.numel(), self.config.ranks).to(ranks).reshape(ranks.shape)
            ranks = torch.where(torch.rand(ranks.shape, device=ranks.device) < self.config.nested, drawn, ranks)
        return ranks, soft

    def _apply_at(self, normed: Tensor, ranks: Tensor) -> Tensor:
        """The update of tokens (..., d) at their ranks (...): both maps and what is between them, rank by rank.

        A compiled graph computes every rank for every token, since it cannot group them.
        """
        if torch.compiler.is_compiling():
            every = [(self._at_rank(normed, rank), (ranks == rank)[..., None]) for rank in self.config.ranks]
            return torch.stack([torch.where(here, update, 0) for update, here in every]).sum(0)
        update = apply_by_rank(self._at_rank, normed.reshape(-1, normed.shape[-1]), ranks.flatten())
        if update is None:  # no tokens: the weights are still touched, so that distributed training does not hang
            return self._at_rank(normed, None)
        return update.reshape(normed.shape)

    def _at_rank(self, tokens: Tensor, rank: int | None) -> Tensor:
        return self.down(functional.gelu(self.up(tokens, rank)), rank)

    def _with_rank_gradient(
        self, update: Tensor, normed: Tensor, ranks: Tensor, soft: Tensor, routed: Tensor
    ) -> Tensor:
        """The update, with the straight-through gradient of the routed tokens' soft level; the value is unchanged."""
        table = torch.tensor(self.config.ranks, device=ranks.device)
        if torch.compiler.is_compiling():
            with torch.no_grad():
                next_ranks = table[(torch.searchsorted(table, ranks) + 1).clamp(max=len(table) - 1)]
                y_high = self._apply_at(normed, next_ranks)
            return rank_straight_through(update, y_high, torch.where(routed, soft, soft.detach()))
        higher = table[(torch.searchsorted(table, ranks[routed]) + 1).clamp(max=len(table) - 1)]
        with torch.no_grad():
            y_high = self._apply_at(normed[routed], higher)
        graded = rank_straight_through(update[routed], y_high, soft[routed])
        return update.masked_scatter(routed[..., None].expand_as(update), graded)

    @writes_report
    def _write_report(self, ranks: Tensor, real: Tensor) -> None:
        counts = [(rank, int((ranks == rank).sum())) for rank in self.config.ranks]
        layers = (self.up, self.down)
        self.report = RankReport(
            mean_rank=float(ranks[real].sum()) / max(1, int(real.sum())),
            flops=sum(layer.plan(n, rank).flops for layer in layers for rank, n in counts if n),
            full_flops=sum(layer.plan(ranks.numel()).flops for layer in layers),
            offset=0.0 if self.budget is None else float(self.budget.offset),
        )

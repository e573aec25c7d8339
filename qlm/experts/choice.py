"""Which experts a token goes to and with what weight; packing tokens by expert; balance of the load.

Axis legend: n tokens, e experts, k places of a token, d model width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_MEMORY = 0.9
"""Share of the averaged load that a training step keeps."""
_REACH = 8.0
"""Largest step of a bias, in spreads of the probabilities: the averaged load answers about ten steps late, so that a
bias with a step of some forty spreads never rests, and one of a single spread lags behind a router that is trained."""


@dataclass(frozen=True)
class Choice:
    """The experts of each token: ``experts`` (n, k) in the order of choice, ``weights`` (n, k), and ``kept`` (n, k).

    A place that is not kept has weight 0 and is not computed.
    """

    experts: Tensor
    weights: Tensor
    kept: Tensor

    def load(self, n_experts: int) -> Tensor:
        """Tokens of each expert, (e,)."""
        return torch.bincount(self.experts[self.kept], minlength=n_experts)


def choose(g: Tensor, bias: Tensor, top_k: int, mass: float) -> Choice:
    """Let each token choose the experts of largest ``g + bias``: the fewest, up to ``top_k``, that hold ``mass`` of g.

    The bias (e,) decides about the order alone. Weights are ``g_i / sum_chosen g``, equal where that sum is 0. Their
    gradient is straight-through: that of the soft mixture ``sum_i g_i E_i(x)`` in which unchosen experts add nothing,
    so ``dw_i = dg_i``; with all experts chosen it is the mixture's own, and a single expert still tells the router
    whether it helped. Of equal scores the lower index is first. Cost: a sort per token.

    >>> choice = choose(torch.tensor([[0.5, 0.1, 0.4]]), torch.zeros(3), top_k=2, mass=0.8)
    >>> choice.experts, choice.weights, choice.kept
    (tensor([[0, 2]]), tensor([[0.5556, 0.4444]]), tensor([[True, True]]))
    """
    fixed = g.detach()
    experts = (fixed + bias).argsort(dim=-1, descending=True, stable=True)[:, :top_k]
    chances = fixed.gather(-1, experts)
    kept = chances.cumsum(-1) - chances < mass
    ones = kept.to(g.dtype)
    held = chances * ones
    total = held.sum(-1, keepdim=True)
    equal = ones / ones.sum(-1, keepdim=True)
    hard = torch.where(total > 0, held / total.masked_fill(total == 0, 1.0), equal)
    soft = g.gather(-1, experts)
    return Choice(experts, hard + (soft - soft.detach()) * ones, kept)


def apply_chosen(experts: Sequence[Callable[[Tensor], Tensor]], x: Tensor, choice: Choice) -> Tensor:
    """Return ``sum_i w_i E_i(x)`` (n, d) over each token's kept experts; only those are computed.

    Tokens (n, d) are packed by expert, each expert is called once on its own (also on none, which touches its
    parameters), and what comes back is scattered to the tokens. A compiled graph, which cannot pack, computes all.

    >>> choice = Choice(torch.tensor([[1, 0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]]))
    >>> apply_chosen([torch.neg, torch.exp], torch.zeros(1, 2), choice)
    tensor([[0.5000, 0.5000]])
    """
    if torch.compiler.is_compiling():
        weights = torch.zeros(len(x), len(experts), dtype=choice.weights.dtype, device=x.device)
        weights = weights.scatter_add(1, choice.experts, choice.weights * choice.kept)
        return sum((weights[:, k, None] * expert(x) for k, expert in enumerate(experts)), torch.zeros_like(x))
    token, place = choice.kept.nonzero(as_tuple=True)
    order = choice.experts[token, place].argsort(stable=True)
    token, place = token[order], place[order]
    parts = x[token].split(choice.load(len(experts)).tolist())
    outputs = torch.cat([expert(part) for expert, part in zip(experts, parts, strict=True)])
    weighted = choice.weights[token, place, None] * outputs
    return torch.zeros_like(x, dtype=weighted.dtype).index_add(0, token, weighted)


class LoadBalance(nn.Module):
    """A bias per expert that evens the load without an auxiliary loss: ``b_i += min(step, 8 s) (1/e - load_i)``.

    ``load_i``, which sums to 1, is an exponential average of the share of choices that fell on expert i; s is the
    largest standard deviation over tokens of an expert's g. Longer steps, where a router treats all tokens nearly
    alike, would move all of them at once, back and forth for ever. Bias and load are buffers: they are part of a
    checkpoint and move in training alone. In distributed training the first process' buffers are everybody's. Source:
    Wang et al. 2024 (arXiv:2408.15664), with the sign of the error replaced by the error, so that a balanced bias
    rests, and with the bound.

    >>> balance = LoadBalance(2, step=0.1)
    >>> balance.update(torch.tensor([10, 0]), torch.tensor([[0.9, 0.1], [0.6, 0.4]]))
    >>> balance.load, balance.bias
    (tensor([0.5500, 0.4500]), tensor([-0.0050,  0.0050]))
    """

    bias: Tensor
    load: Tensor

    def __init__(self, n_experts: int, step: float) -> None:
        super().__init__()
        self.step = step
        self.register_buffer("bias", torch.zeros(n_experts))
        self.register_buffer("load", torch.full((n_experts,), 1 / n_experts))

    @torch.no_grad()
    def update(self, counts: Tensor, g: Tensor) -> None:
        """Move average and bias by one step's tokens per expert (e,), chosen from g (n, e); no tokens move nothing."""
        total = counts.sum()
        if total > 0:
            self.load.lerp_((counts / total).to(self.load), 1 - _MEMORY)
            spread = g.detach().to(self.bias).std(0, correction=0).amax()
            self.bias.add_((_REACH * spread).clamp(max=self.step) * (1 / len(self.load) - self.load))

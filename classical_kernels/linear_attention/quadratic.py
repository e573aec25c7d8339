"""Causal attention in quadratic time and linear memory: a block of queries against all earlier keys at a time.

Axes: B batch, L sequence, P keys before the first query, T queries of a block, C numbers of a row, E of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classical_kernels.linear_attention.chunked import with_ones
from classical_kernels.linear_attention.features import Plain, Similarity
from classical_kernels.linear_attention.inputs import checked_inputs

_PLAIN = Plain()
_BLOCK = 128
"""Queries of a block; the keys of a block are all earlier ones."""


@dataclass(frozen=True)
class _Rule:
    """How a block of queries (B, T, C) weighs keys (B, S, C), the last T of which are its own tokens."""

    similarity: Similarity
    tau: float | None

    def weigh(self, q: Tensor, k: Tensor, bias: Tensor | None, real: Tensor | None) -> Tensor:
        """Weights (B, T, S): 0 for later keys and padding."""
        weights = self.similarity.inner(q, k)
        own = k.shape[1] - q.shape[1]
        if self.tau is None:
            if bias is not None:
                weights = weights + bias.unsqueeze(-1)
            weights = weights.tril_(own)
            return weights if real is None else weights * real.unsqueeze(1)
        seen = torch.ones_like(weights, dtype=torch.bool).tril(own)
        if real is not None:
            seen = seen & (real.unsqueeze(1) > 0)
        lowest = torch.finfo(weights.dtype).min  # not -inf: a query of padding may see no key at all
        return torch.softmax((weights / self.tau).masked_fill(~seen, lowest), -1) * seen


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    similarity: Similarity = _PLAIN,
    tau: float | None = None,
    block: int = _BLOCK,
) -> tuple[Tensor, Tensor]:
    """Causal attention by blocks of queries: `out, total = causal_attention(q, k, v)`.

    `out_t = sum_s w_ts v_s` and `total_t = sum_s w_ts` over the real tokens s up to t, with the weights `w_ts =
    sim(q_t, k_s) + bias_t`, which nothing divides; or with `tau`, `w_t = softmax(sim(q_t, .) / tau)`, whose total is 1
    (0 for a query that sees no token). The similarity is by default the product of the rows.

    Shapes: q (B, L, C), k (B, P + L, C), v (B, P + L, E): P earlier keys, then one of each query's own token; mask
    (B, P + L) bool, true at real tokens; bias (B, L), not with `tau`. out (B, L, E), total (B, L). float32 or float64;
    any device; B and L may be 0. Differentiable in q, k, v and bias: to any order up to `block` queries, once beyond,
    where the gradient computes each block's weights again, so that memory is O(B L (C + E + block)).

    Raises TypeError or ValueError for other operands. Cost: O(B L^2 (C + E)) time. The blocks' recomputation is that of
    Rabe & Staats 2021, arXiv:2112.05682.

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> out, total = causal_attention(x, x, torch.ones(1, 3, 1))
    >>> out.flatten().tolist(), total.tolist()
    ([1.0, 6.0, 18.0], [[1.0, 6.0, 18.0]])
    """
    real = checked_inputs(q, k, v, mask, bias, with_past=True)
    if tau is not None and (not tau > 0 or bias is not None):
        raise ValueError(f"causal attention expects tau > 0, without a bias, got tau={tau}; use one of the two.")
    rule, values = _Rule(similarity, tau), with_ones(v, real)
    if q.shape[1] <= block:
        sums = rule.weigh(q, k, bias, real) @ values
    else:
        sums = _Blocked.apply(q, k, values, bias, real, rule, block)
    return sums[..., :-1], sums[..., -1]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript] -- a tensor


def _blocks(length: int, past: int, block: int) -> list[tuple[slice, slice]]:
    """The queries of each block and the keys that they may read."""
    return [
        (slice(t, min(t + block, length)), slice(0, past + min(t + block, length))) for t in range(0, length, block)
    ]


def _at(tensor: Tensor | None, where: slice) -> Tensor | None:
    return None if tensor is None else tensor[:, where]


class _Blocked(torch.autograd.Function):
    """The sums (B, L, E + 1) block by block; only the operands are kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        values: Tensor,
        bias: Tensor | None,
        real: Tensor | None,
        rule: _Rule,
        block: int,
    ) -> Tensor:
        ctx.save_for_backward(q, k, values, bias, real)
        ctx.rule, ctx.block = rule, block
        parts = [
            rule.weigh(q[:, own], k[:, seen], _at(bias, own), _at(real, seen)) @ values[:, seen]
            for own, seen in _blocks(q.shape[1], k.shape[1] - q.shape[1], block)
        ]
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, values, bias, real = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "causal attention in blocks has first derivatives only, got a request for a second one: raise block to "
                "the length of the sequence."
            )
        into = [torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(values)]
        into += [] if bias is None else [torch.zeros_like(bias)]
        for own, seen in _blocks(q.shape[1], k.shape[1] - q.shape[1], ctx.block):
            pieces = [q[:, own], k[:, seen], values[:, seen]] + ([] if bias is None else [bias[:, own]])
            leaves = [piece.detach().requires_grad_() for piece in pieces]
            with torch.enable_grad():
                shift = leaves[3] if len(leaves) > 3 else None
                sums = ctx.rule.weigh(leaves[0], leaves[1], shift, _at(real, seen)) @ leaves[2]
            found = torch.autograd.grad(sums, leaves, gradients[0][:, own])
            for total, where, part in zip(into, (own, seen, seen, own), found, strict=False):
                total[:, where] += part
        return (*into, *[None] * (7 - len(into)))

"""Causal linear attention in chunks: quadratic inside a chunk, a state between chunks.

Axes: B batch, L sequence, G chunks of T tokens, C numbers of a row, E numbers of a value, F features.
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from classical_kernels.linear_attention.features import FeatureMap, Plain
from classical_kernels.linear_attention.inputs import checked_inputs, checked_state

_PLAIN = Plain()
_MIN_CHUNK, _MAX_CHUNK = 64, 512


def causal_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    feature_map: FeatureMap = _PLAIN,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal linear attention in time linear in the sequence: `out, total, last = causal_linear_attention(q, k, v)`.

    `out_t = sum_{s<=t} w_ts v_s` and `total_t = sum_{s<=t} w_ts` over real tokens s, with the weights `w_ts = <f(q_t),
    f(k_s)> + bias_t`, f the feature map (by default the rows are features themselves); nothing is divided. The state is
    the block matrix `[[sum f(k_s) v_s^T, sum f(k_s)], [sum v_s^T, number of tokens]]`, of constant size: what a call
    returns, the next one continues from.

    Shapes: q, k (B, L, C), v (B, L, E), mask (B, L) bool, true at real tokens, bias (B, L), state (B, F + 1, E + 1) or
    None for zeros; out (B, L, E), total (B, L). float32 or float64; any device; B and L may be 0. `chunk` None chooses
    one by F. Differentiable in q, k, v, bias and state to any order.

    Raises TypeError or ValueError for other operands. Cost: O(B L (F E + chunk (C + E))) time, and for the gradient
    O(B L (F + F E / chunk + chunk)) memory: no (B, L, F, E) is ever held. Katharopoulos et al. 2020, arXiv:2006.16236,
    equations 9 to 12; chunks as in Hua et al. 2022, arXiv:2202.10447, section 3.

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> out, total, last = causal_linear_attention(x, x, torch.ones(1, 3, 1))
    >>> out.flatten().tolist(), last.tolist()
    ([1.0, 6.0, 18.0], [[[6.0, 6.0], [3.0, 3.0]]])
    """
    real = checked_inputs(q, k, v, mask, bias)
    n_features = feature_map.features(k[:1, :1].new_zeros(1, q.shape[2])).shape[-1]
    if state is None:
        state = q.new_zeros(q.shape[0], n_features + 1, v.shape[-1] + 1)
    state = checked_state(state, q.shape[0], n_features, v.shape[-1])
    length = q.shape[1]
    if not length:
        return v * 1, v.new_zeros(v.shape[:2]), state
    size = min(length, chunk or chunk_for(n_features))
    missing = -length % size

    def cut(x: Tensor) -> Tensor:
        """(B, L, ...) as (B, G, T, ...), with zeros at the end."""
        padded = functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x
        return padded.unflatten(1, (-1, size))

    # The zeros at the end, like padding, write nothing: their row of (v, 1) is zero.
    chunks = cut(q), cut(k), cut(with_ones(v, real)), None if bias is None else cut(bias)
    sums, last = _attend(*chunks, state, feature_map)
    sums = sums.flatten(1, 2)[:, :length]
    return sums[..., :-1], sums[..., -1], last


def with_ones(v: Tensor, real: Tensor | None) -> Tensor:
    """Return `(v, 1)`, shape (B, L, E + 1), so that one product sums values and weights; rows of padding are zero.

    >>> with_ones(torch.full((1, 2, 1), 3.0), torch.tensor([[0.0, 1.0]])).tolist()
    [[[0.0, 0.0], [3.0, 1.0]]]
    """
    widened = torch.cat((v, torch.ones_like(v[..., :1])), -1)
    return widened if real is None else widened * real.unsqueeze(-1)


def final_state(k: Tensor, v: Tensor, mask: Tensor | None = None, feature_map: FeatureMap = _PLAIN) -> Tensor:
    """Return the state (B, F + 1, E + 1) that `causal_linear_attention` ends with, without attending.

    Raises what it raises. Cost: O(B L F E).

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> final_state(x, torch.ones(1, 3, 1)).tolist()
    [[[6.0, 6.0], [3.0, 3.0]]]
    """
    values = with_ones(v, checked_inputs(k, k, v, mask, None))
    return torch.cat((feature_map.features(k).mT @ values, values.sum(1, keepdim=True)), 1)


def chunk_for(n_features: int) -> int:
    """Return the chunk that costs least: where a state has more features, longer chunks write fewer states.

    >>> chunk_for(16), chunk_for(256), chunk_for(1024)
    (64, 64, 128)
    """
    return min(max(2 ** round(math.log2(4 * math.sqrt(max(1, n_features)))), _MIN_CHUNK), _MAX_CHUNK)


def _attend(
    q: Tensor, k: Tensor, values: Tensor, bias: Tensor | None, state: Tensor, feature_map: FeatureMap
) -> tuple[Tensor, Tensor]:
    """The sums (B, G, T, E + 1) of chunks (B, G, T, ...) and the state after them; `values` is (v, 1)."""
    weights = feature_map.inner(q, k)
    if bias is not None:
        weights = weights + bias.unsqueeze(-1)
    own = weights.tril_() @ values
    f_q, f_k = feature_map.features(q), feature_map.features(k).mT
    moments, plain, sums = state[:, :-1], state[:, -1], []
    # A fused product and sum for each chunk: stacking the states to one product costs more in copies than it saves.
    for one, read, written, value in zip(*(x.unbind(1) for x in (own, f_q, f_k, values)), strict=True):
        sums.append(torch.baddbmm(one, read, moments))
        moments = torch.baddbmm(moments, written, value)
    found = torch.stack(sums, 1)
    *before, plain = accumulate(values.sum(-2).unbind(1), initial=plain)
    if bias is not None:
        found = torch.addcmul(found, bias.unsqueeze(-1), torch.stack(before, 1).unsqueeze(-2))
    return found, torch.cat((moments, plain.unsqueeze(1)), 1)

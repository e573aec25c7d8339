"""Causal linear attention as the obvious loop: the oracle of every faster version.

Axes: B batch, L sequence, C numbers of a row, E numbers of a value, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.linear_attention.features import FeatureMap, Plain
from classical_kernels.linear_attention.inputs import checked_inputs, checked_state

_PLAIN = Plain()


def causal_linear_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    feature_map: FeatureMap = _PLAIN,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal linear attention, one step at a time, in plain PyTorch.

    `out_t = sum_{s<=t} (<f(q_t), f(k_s)> + bias_t) v_s` and `total_t`, the sum of those weights, over real tokens s.
    The state is `S_t = S_{t-1} + (f(k_t), 1) (v_t, 1)^T`, and `(out_t, total_t) = (f(q_t), bias_t) S_t`.

    Shapes, results and errors are those of `classical_kernels.causal_linear_attention`. Cost: L steps, O(L F E), the
    states all kept for the gradient.

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> out, total, state = causal_linear_attention_reference(x, x, torch.ones(1, 3, 1))
    >>> out.flatten().tolist(), state.tolist()
    ([1.0, 6.0, 18.0], [[[6.0, 6.0], [3.0, 3.0]]])
    """
    real = checked_inputs(q, k, v, mask, bias)
    f_q, f_k = feature_map.features(q), feature_map.features(k)
    if state is None:
        state = q.new_zeros(q.shape[0], f_q.shape[-1] + 1, v.shape[-1] + 1)
    state = checked_state(state, q.shape[0], f_q.shape[-1], v.shape[-1])
    outs, totals = [], []
    for t in range(q.shape[1]):
        one = torch.ones_like(f_k[:, t, :1])
        shift = torch.zeros_like(one) if bias is None else bias[:, t, None]
        written = torch.cat((f_k[:, t], one), -1)
        if real is not None:
            written = written * real[:, t, None]
        state = state + written[:, :, None] * torch.cat((v[:, t], torch.ones_like(v[:, t, :1])), -1)[:, None]
        read = (torch.cat((f_q[:, t], shift), -1)[:, None] @ state)[:, 0]
        outs.append(read[:, :-1])
        totals.append(read[:, -1])
    if not outs:
        return v * 1, v.new_zeros(v.shape[:2]), state
    return torch.stack(outs, 1), torch.stack(totals, 1), state

"""The recurrence with one decay a head as products of matrices: quadratic in a chunk, a state between chunks.

Axes: R batch, L sequence, H heads, G groups of heads, P channels of a head, N states; K chunks of T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from classical_kernels.duality.inputs import checked_inputs
from classical_kernels.duality.reference import advance

_LEAST_STEPS, _LEAST_STATE = 4, 1024  # measured, see `prefers_ssd`


def ssd(
    x: Tensor,
    log_a: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    chunk: int = 64,
    resets: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """State-space recurrence with one decay a head, in matrix products: `y, h_last = ssd(x, log_a, B, C)`.

    `h_t = exp(log_a_t) h_{t-1} + x_t B_t^T` with `h_{-1} = h0`, and `y_t = h_t C_t`: Mamba-2, where x is `delta u` and
    log_a is `delta A` with one A < 0 for each head. It equals the product of x with the matrix `(C_i . B_j) exp(sum of
    log_a over j < s <= i)`, i >= j, taken in chunks. Each exponent is a sum of its own, no difference of two: no decay
    is divided by another, and a log_a of -1e4, or minus infinity, does no harm. Where `resets` is true the state is
    zeroed before the step; where `mask` is false x, B and log_a count as 0 and the state passes through.

    Shapes: x, y (R, L, H, P), log_a (R, L, H), B, C (R, L, G, N) with G dividing H (head h reads group h G // H), h0,
    h_last (R, H, P, N), resets and mask (R, L) bool; R and L may be 0. float64, if all operands are; otherwise float32,
    and y is cast back to the dtype of x. Any device, differentiable to any order, `torch.compile(fullgraph=True)`;
    made of PyTorch's own operations, whose cost its counters know.

    The rule by shape, where both this and `selective_scan` apply (one A for all states of a head, one step for all its
    channels): `prefers_ssd`. Single tokens: `ssd_step`.

    Raises TypeError and ValueError for other operands. Cost: O(R L H (T (N + P) + P N)) time, and memory R L H T for
    the gradient. Source: Dao and Gu 2024, arXiv:2405.21060, section 6.

    >>> ones = torch.ones(1, 2, 1, 1)
    >>> y, h_last = ssd(ones, torch.full((1, 2, 1), 0.5).log(), ones, ones)
    >>> y.flatten().tolist(), h_last.item()
    ([1.0, 1.5], 1.5)
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}: 64 is usual.")
    inputs = checked_inputs(x, log_a, B, C, h0, resets, mask)
    length = x.shape[1]
    if not length:
        return (inputs.x * inputs.log_a.unsqueeze(-1)).to(x.dtype), inputs.h0.clone()
    size = min(length, chunk)
    missing = -length % size

    def cut(rows: Tensor) -> Tensor:
        """(R, L, H, ...) as (R, K, H, T, ...), with zeros at the end: they write nothing and decay nothing."""
        padded = functional.pad(rows, (0, 0) * (rows.dim() - 2) + (0, missing)) if missing else rows
        return padded.unflatten(1, (-1, size)).transpose(2, 3)

    starts = None
    if resets is not None:
        starts = cut(resets.unsqueeze(-1).to(torch.int64)).cumsum(-1)
    y, h_last = _attend(cut(inputs.x), cut(inputs.log_a), cut(inputs.B), cut(inputs.C), inputs.h0, starts)
    return y.transpose(2, 3).flatten(1, 2)[:, :length].to(x.dtype), h_last


def ssd_step(x: Tensor, log_a: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step of `ssd`, for generation token by token: `y, h = ssd_step(x, log_a, B, C, h)`.

    Shapes: x, y (R, H, P), log_a (R, H), B, C (R, G, N), h (R, H, P, N). Errors as there. Cost: O(R H P N).

    >>> one = torch.ones(1, 1, 1)
    >>> ssd_step(one, torch.zeros(1, 1), one, one, torch.ones(1, 1, 1, 1))[0].item()
    2.0
    """
    x, log_a, B, C = (one.unsqueeze(1) if isinstance(one, Tensor) and one.dim() else one for one in (x, log_a, B, C))
    inputs = checked_inputs(x, log_a, B, C, h, None, None)
    y, h = advance(inputs.x[:, 0], inputs.log_a[:, 0], inputs.B[:, 0], inputs.C[:, 0], inputs.h0)
    return y.to(x.dtype), h


def prefers_ssd(seq_len: int, head_width: int, n_states: int) -> bool:
    """Whether the matrix form is the faster one where `selective_scan` computes the same.

    It is from 4 steps and 1024 numbers in the state of a head on: products of matrices need that much to work on, and
    below the fused scan wins. Measured with gradients on a CPU by `python -m benchmarks.selective_scan`.

    >>> prefers_ssd(1024, 64, 16), prefers_ssd(1024, 16, 16), prefers_ssd(1, 64, 64)
    (True, False, False)
    """
    return seq_len >= _LEAST_STEPS and head_width * n_states >= _LEAST_STATE


def _attend(x: Tensor, log_a: Tensor, B: Tensor, C: Tensor, h0: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (R, K, H, T, P) and the last state, of x (R, K, H, T, P), log_a (R, K, H, T), B, C (R, K, G, T, N).

    `starts` (R, K, 1, T) numbers the documents within each chunk: what lies before a reset has another number.
    """
    size, per_group = x.shape[3], x.shape[2] // B.shape[2]
    own = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
    spans = log_a.unsqueeze(-1).masked_fill(~own.tril(-1), 0).cumsum(-2)  # row i, column j: over j < s <= i
    if starts is not None:
        own = own & (starts.unsqueeze(-1) == starts.unsqueeze(-2))
    weights = spans.masked_fill(~own, float("-inf")).exp()
    scores = (C @ B.mT).repeat_interleave(per_group, 2) * weights
    y = scores @ x
    B, C = (rows.repeat_interleave(per_group, 2) for rows in (B, C))
    to_end, from_start = spans[..., -1, :], log_a.cumsum(-1)
    if starts is not None:
        to_end = to_end.masked_fill(starts != starts[..., -1:], float("-inf"))
        from_start = from_start.masked_fill(starts > 0, float("-inf"))
    written = (x * to_end.exp().unsqueeze(-1)).mT @ B
    kept = from_start[..., -1].exp()[..., None, None]
    state, before = h0, []
    for k in range(x.shape[1]):
        before.append(state)
        state = kept[:, k] * state + written[:, k]
    read = C * from_start.exp().unsqueeze(-1)
    return y + read @ torch.stack(before, 1).mT, state

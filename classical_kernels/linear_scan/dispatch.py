"""The linear recurrence, run by the implementation that fits the device."""

from __future__ import annotations

import math

from torch import Tensor

from classical_kernels.linear_scan.cuda import scan_channels
from classical_kernels.linear_scan.inputs import checked_inputs
from classical_kernels.linear_scan.reference import scan_reference
from classical_kernels.packing import step_marks


def scan(
    a: Tensor,
    b: Tensor,
    h0: Tensor | None = None,
    reverse: bool = False,
    resets: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear recurrence over a sequence: `h, h_last = scan(a, b, h0)`.

    `h_t = a_t h_{t-1} + b_t`, elementwise over the channels, with `h_{-1} = h0` and `h_last = h_{seq-1}`. With
    `reverse` it runs from the end, `h_t = a_t h_{t+1} + b_t` with `h_{seq} = h0` and `h_last = h_0`. Where `resets` is
    true the state is zeroed before the step (the first token, in the direction of the scan, of each document packed in
    a row). Where `mask` is false the step is padding, on whichever side: the state passes through it, `h_t = h_{t-1}`,
    whatever a and b hold there.

    Shapes: a, b and h (batch, seq, *channels) with one channel axis or more; h0 and h_last (batch, *channels); h0 None
    means zeros; resets and mask (batch, seq), bool. No axis needs to be contiguous, and batch and seq may be 0 (with
    seq 0, `h_last` is h0). Feeding `h_last` to the next call continues the sequence: pieces of a sequence give what the
    whole gives, on the CPU bit for bit.

    Precision: float32, float64, complex64 and complex128 run as they are. bfloat16 and float16 are read and written as
    such, without a wider copy, while the state runs in float32: each h is rounded once, and `h_last` stays float32, so
    that a carried state is not rounded; h0 may then be either. (The gradient for a multiplies by the rounded h.) The
    same holds under `torch.autocast`, where a, b and h0 may also differ in dtype: h takes the wider dtype of a and b.

    Devices: on the CPU a compiled kernel (compiled at the first call for each dtype, then kept on disk), with
    gradients for a, b and h0 and support for `torch.compile(fullgraph=True)`; on CUDA the same by Triton kernels (the
    extra `triton`), step by step or by tiles of steps as `classical_kernels.linear_scan.cuda.plan` says; on every other
    device the Python loop `scan_reference`. A tile multiplies up to 64 successive values of a: where that product
    overflows, states may become NaN which step by step would not. Higher derivatives need `scan_reference` everywhere.
    `scan_step` is one step without the sequence.

    Raises TypeError for what is no tensor and for unequal or integer dtypes, ValueError for unequal shapes or devices,
    ImportError for CUDA tensors where Triton is missing, NotImplementedError when a gradient computed by a compiled
    kernel is differentiated again. Cost: O(batch seq channels), 3 memory accesses an element forward and 5 backward
    (`classical_kernels.costs.scan_cost`).

    >>> import torch
    >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
    >>> h, h_last = scan(a, b, torch.tensor([[4.0]]))
    >>> h.flatten().tolist(), h_last.item()
    ([3.0, 2.5, 2.25], 2.25)
    >>> scan(a, b, reverse=True)[0].flatten().tolist()
    [1.75, 1.5, 1.0]
    """
    if isinstance(a, Tensor) and a.device.type not in ("cpu", "cuda"):
        return scan_reference(a, b, h0, reverse, resets, mask)
    a, b, h0 = checked_inputs(a, b, h0)
    marks = step_marks(a, resets, mask)
    if a.shape[1] == 1 and resets is None and mask is None:  # a step of generation: cheaper than any call of a kernel
        h_last = _advance(a.select(1, 0), b.select(1, 0), h0)
        return h_last.unsqueeze(1).to(a.dtype, copy=True), h_last
    flat = (*a.shape[:2], math.prod(a.shape[2:]))
    h, h_last = scan_channels(a.reshape(flat), b.reshape(flat), h0.reshape(flat[0], flat[2]), marks, bool(reverse))
    return h.reshape(a.shape), h_last.reshape(h0.shape)


def scan_step(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """One step of the recurrence, for generation token by token: the state `a h + b`.

    Shapes: a, b, h and the result (batch, *channels); dtypes and errors as for `classical_kernels.scan`, so that with
    bfloat16 or float16 operands the state stays float32. Any device; differentiable to any order. Cost: two tensor
    operations.

    >>> import torch
    >>> scan_step(torch.full((1, 2), 0.5), torch.ones(1, 2), torch.full((1, 2), 4.0)).tolist()
    [[3.0, 3.0]]
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dim() and b.dim():
        a, b = a.unsqueeze(1), b.unsqueeze(1)
    a, b, h = checked_inputs(a, b, h)
    return _advance(a.select(1, 0), b.select(1, 0), h)


def _advance(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    if a.dtype != h.dtype:  # an idle .to() costs as much as the product
        a, b = a.to(h.dtype), b.to(h.dtype)
    return a * h + b

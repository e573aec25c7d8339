"""The linear recurrence, run by the implementation that fits the device."""

from __future__ import annotations

import math

from torch import Tensor

from classical_kernels.linear_scan.cpu import scan_channels
from classical_kernels.linear_scan.inputs import checked_inputs
from classical_kernels.linear_scan.reference import scan_reference


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Linear recurrence over a sequence: `h, h_last = scan(a, b, h0)`.

    `h_t = a_t h_{t-1} + b_t`, elementwise over the channels, with `h_{-1} = h0` and `h_last = h_{seq-1}`.

    Shapes: a, b and h (batch, seq, *channels) with one channel axis or more; h0 and h_last (batch, *channels); h0 None
    means zeros. No axis needs to be contiguous, and batch and seq may be 0 (with seq 0, `h_last` is h0). Feeding
    `h_last` to the next call continues the sequence: pieces of a sequence give, bit for bit, what the whole gives.

    Precision: float32, float64, complex64 and complex128 run as they are. bfloat16 and float16 are cast to float32, h
    is cast back, and `h_last` stays float32, so that a carried state is not rounded; h0 may then be either. The same
    holds under `torch.autocast`, where a, b and h0 may also differ in dtype: h takes the wider dtype of a and b.

    Devices: on the CPU a compiled kernel (compiled at the first call for each dtype, then kept on disk), with
    gradients for a, b and h0 and support for `torch.compile(fullgraph=True)`; on every other device the Python loop
    `scan_reference`. Higher derivatives need `scan_reference` everywhere.

    Raises TypeError for what is no tensor and for unequal or integer dtypes, ValueError for unequal shapes or devices,
    NotImplementedError when a gradient computed by the compiled kernel is differentiated again. Cost: O(batch seq
    channels), 3 memory accesses an element forward and 5 backward.

    >>> import torch
    >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
    >>> h, h_last = scan(a, b, torch.tensor([[4.0]]))
    >>> h.flatten().tolist(), h_last.item()
    ([3.0, 2.5, 2.25], 2.25)
    """
    if isinstance(a, Tensor) and a.device.type != "cpu":
        return scan_reference(a, b, h0)
    a, b, h0, dtype = checked_inputs(a, b, h0)
    if a.shape[1] == 1:  # one step of generation: the formula itself is faster than any call of a kernel
        h_last = a.select(1, 0) * h0 + b.select(1, 0)
        return h_last.unsqueeze(1).to(dtype, copy=True), h_last
    flat = (*a.shape[:2], math.prod(a.shape[2:]))
    h, h_last = scan_channels(a.reshape(flat), b.reshape(flat), h0.reshape(flat[0], flat[2]))
    return h.reshape(a.shape).to(dtype), h_last.reshape(h0.shape)

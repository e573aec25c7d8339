"""The linear recurrence compiled for the CPU, as a PyTorch operator with gradients.

Axes: B batch, L sequence, N channels (all state axes flattened).

Both kernels walk the sequence in order and let SIMD run over the channels, with the running state in a scratch row.
They read and write each element once: 3 memory accesses forward (a, b, h), 5 backward (a, h, grad_h, grad_a, grad_b).
No fast-math: products and sums round as in the plain loop, so results do not depend on the number of threads, and NaN
and infinity propagate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx

from classical_kernels.threads import run_blocks, thread_count

_MIN_CHANNELS = 64  # narrower blocks waste memory bandwidth
_CACHE_LINE = 16  # float32 elements


# Slices of flat arrays keep the index arithmetic out of the inner loops; with three signed indices the loops do not
# vectorise. On a change of the decorator's options, delete the on-disk cache: it looks at the source alone.
@numba.njit(cache=True, nogil=True)
def forward_blocks(a, b, h0, h, h_last, seq_len, n_channels, width, first, last):
    """Run blocks `first` to `last` of `width` channels; every array is flat."""
    per_row = (n_channels + width - 1) // width
    for block in range(first, last):
        row = block // per_row
        low = (block % per_row) * width
        n = min(width, n_channels - low)
        edge = row * n_channels + low
        state = h0[edge : edge + n].copy()
        for t in range(seq_len):
            at = (row * seq_len + t) * n_channels + low
            a_t, b_t, h_t = a[at : at + n], b[at : at + n], h[at : at + n]
            for d in range(n):
                value = a_t[d] * state[d] + b_t[d]
                state[d] = value
                h_t[d] = value
        h_last[edge : edge + n] = state


@numba.njit(cache=True, nogil=True)
def backward_blocks(a, h0, h, grad_h, grad_last, grad_a, grad_b, grad_h0, seq_len, n_channels, width, first, last):
    """Adjoint of `forward_blocks`, from the end: p_t = grad_h_t + s, s = p_t conj(a_t), starting with s = grad_last.

    grad_b_t = p_t, grad_a_t = p_t conj(h_{t-1}), grad_h0 = the s of the first step; conj as PyTorch defines gradients.
    """
    per_row = (n_channels + width - 1) // width
    for block in range(first, last):
        row = block // per_row
        low = (block % per_row) * width
        n = min(width, n_channels - low)
        edge = row * n_channels + low
        state = grad_last[edge : edge + n].copy()
        before = h0[edge : edge + n]
        for t in range(seq_len - 1, -1, -1):
            at = (row * seq_len + t) * n_channels + low
            a_t, g_t = a[at : at + n], grad_h[at : at + n]
            ga_t, gb_t = grad_a[at : at + n], grad_b[at : at + n]
            for d in range(n):
                p = g_t[d] + state[d]
                gb_t[d] = p
                state[d] = p * np.conj(a_t[d])
            # A loop of its own: one loop over all six arrays does not vectorise.
            h_before = h[at - n_channels : at - n_channels + n] if t > 0 else before
            for d in range(n):
                ga_t[d] = gb_t[d] * np.conj(h_before[d])
        grad_h0[edge : edge + n] = state


@torch.library.custom_op("classical_kernels::scan", mutates_args=(), device_types="cpu")
def scan_channels(a: Tensor, b: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """All states and the last one of `h_t = a_t h_{t-1} + b_t`, computed by the compiled kernel.

    Shapes: a, b, h (B, L, N); h0, h_last (B, N); one floating or complex dtype, CPU, unchecked: call
    `classical_kernels.scan`, which checks.

    >>> h, h_last = scan_channels(torch.ones(1, 3, 2), torch.ones(1, 3, 2), torch.zeros(1, 2))
    >>> h[0, :, 0].tolist(), h_last.tolist()
    ([1.0, 2.0, 3.0], [[3.0, 3.0]])
    """
    h, h_last = _like(b), _like(h0)
    _run(forward_blocks, b.shape, a, b, h0, h, h_last)
    return h, h_last


@scan_channels.register_fake
def _(a: Tensor, b: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (the operator's signature)
    return _like(b), _like(h0)


@torch.library.custom_op("classical_kernels::scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    a: Tensor, h0: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_a, grad_b, grad_h0 = _like(a), _like(a), _like(h0)
    _run(backward_blocks, a.shape, a, h0, h, grad_h, grad_last, grad_a, grad_b, grad_h0)
    return grad_a, grad_b, grad_h0


@_scan_backward.register_fake
def _(
    a: Tensor,
    h0: Tensor,
    h: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_h: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_last: Tensor,  # noqa: ARG001 (the operator's signature)
) -> tuple[Tensor, Tensor, Tensor]:
    return _like(a), _like(a), _like(h0)


def _save(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    a, _, h0 = inputs
    ctx.save_for_backward(a, h0, output[0])


def _differentiate(ctx: BackwardCFunction, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, h0, h = iter(ctx.saved_tensors)  # PyTorch's stubs say one tensor
    return _scan_backward(a, h0, h, grad_h, grad_last)


def _refuse(ctx: BackwardCFunction, *grads: Tensor) -> None:
    raise NotImplementedError(
        "the compiled scan has first derivatives only, got a request for a second one: "
        "use classical_kernels.scan_reference, which has all."
    )


scan_channels.register_autograd(_differentiate, setup_context=_save)
_scan_backward.register_autograd(_refuse)


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _run(kernel: Callable[..., None], shape: torch.Size, *operands: Tensor) -> None:
    """Call `kernel` on the flattened operands; the outputs among them are contiguous and thus written in place."""
    batch, seq_len, n_channels = shape
    n_threads = thread_count(shape.numel())
    # Split over the batch, and over channels only where the batch does not divide evenly among the threads.
    per_row = max(1, min(n_threads // math.gcd(batch, n_threads), n_channels // _MIN_CHANNELS))
    width = max(1, math.ceil(n_channels / (per_row * _CACHE_LINE)) * _CACHE_LINE)
    arrays = [operand.contiguous().view(-1).numpy() for operand in operands]
    run_blocks(
        lambda first, last: kernel(*arrays, seq_len, n_channels, width, first, last),
        batch * math.ceil(n_channels / width),
        n_threads,
    )

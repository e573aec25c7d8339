"""The causal convolution, run by the implementation that fits the device."""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.convolution.cuda import convolve
from classical_kernels.convolution.inputs import checked_inputs
from classical_kernels.convolution.reference import causal_convolution_reference, last_inputs, steps_since


def causal_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None, resets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Causal convolution, one filter a channel: `y, state = causal_convolution(x, weight, bias, state)`.

    `y_t = bias + sum_k weight_k x_{t - taps + 1 + k}`: the last tap is the present, as in `torch.nn.Conv1d`. Inputs
    before the first are those of `state`, or zeros. The state returned is the last `taps - 1` inputs: feeding it to the
    next call continues the sequence, one token at a time included. Where `resets` is true a document begins: no tap
    reaches before it. Padding has to be zero, on the left then equal to no tokens at all.

    Shapes: x, y (batch, seq, channels), weight (channels, taps), bias (channels), state (batch, taps - 1, channels),
    resets (batch, seq) bool. No axis needs to be contiguous; batch, seq and channels may be 0. float64, if all operands
    are; otherwise all are cast to float32 and y is cast back to the dtype of x; the state stays float32.

    On the CPU a compiled kernel, with first derivatives for all four operands and support for
    `torch.compile(fullgraph=True)`; on CUDA the same by Triton kernels (the extra `triton`); on every other device
    `causal_convolution_reference`. Raises TypeError and ValueError for other operands, ImportError for CUDA tensors
    where Triton is missing, NotImplementedError when a compiled gradient is differentiated again. Cost: O(batch seq
    channels taps), see `classical_kernels.costs.causal_convolution_cost`.

    >>> y, state = causal_convolution(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[10.0, 1.0]]))
    >>> y.flatten().tolist(), state.flatten().tolist()
    ([1.0, 12.0, 23.0], [3.0])
    """
    if isinstance(x, Tensor) and x.device.type not in ("cpu", "cuda"):
        return causal_convolution_reference(x, weight, bias, state, resets)
    inputs = checked_inputs(x, weight, bias, state, resets)
    taps = weight.shape[1]
    since = (
        torch.empty(0, dtype=torch.int64, device=x.device)
        if resets is None or not resets.shape[1]
        else steps_since(resets)
    )
    given = (inputs.x, inputs.weight.mT, inputs.bias, inputs.state)
    y = convolve(*(operand.contiguous() for operand in given), since)  # copied once, not forward and again backward
    short = inputs.x[:, max(0, x.shape[1] - (taps - 1)) :]
    return y.to(x.dtype), last_inputs(torch.cat((inputs.state, short), 1), taps, resets)


def causal_convolution_step(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One step of the convolution, for generation token by token: `y, state = causal_convolution_step(x, ...)`.

    Shapes: x and y (batch, channels), the others, dtypes and errors as for `classical_kernels.causal_convolution`. Any
    device; differentiable to any order. Cost: four tensor operations, O(batch channels taps).

    >>> y, state = causal_convolution_step(torch.ones(1, 1), torch.tensor([[10.0, 1.0]]), None, torch.ones(1, 1, 1))
    >>> y.item(), state.item()
    (11.0, 1.0)
    """
    inputs = checked_inputs(x.unsqueeze(1), weight, bias, state, None)
    window = torch.cat((inputs.state, inputs.x), 1)
    y = inputs.bias + (window * inputs.weight.mT).sum(1)
    return y.to(x.dtype), window[:, 1:].clone()

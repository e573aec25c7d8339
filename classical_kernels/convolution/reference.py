"""The causal convolution as the obvious sum: the oracle of the compiled one."""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.convolution.inputs import checked_inputs


def causal_convolution_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None, resets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The convolution of `classical_kernels.causal_convolution`, tap by tap; its arguments, results and errors.

    Any device, differentiable to any order. Cost: two tensor operations a tap.

    >>> causal_convolution_reference(torch.ones(1, 3, 1), torch.ones(1, 2))[0].flatten().tolist()
    [1.0, 2.0, 2.0]
    """
    inputs = checked_inputs(x, weight, bias, state, resets)
    padded = torch.cat((inputs.state, inputs.x), 1)
    length, taps = x.shape[1], weight.shape[1]
    y = inputs.bias.expand_as(inputs.x)
    for k in range(taps):
        tap = padded[:, k : k + length]
        if resets is not None:  # nothing from before the document's first token
            tap = tap.masked_fill((steps_since(resets) < taps - 1 - k).unsqueeze(-1), 0)
        y = y + inputs.weight[:, k] * tap
    return y.to(x.dtype), last_inputs(padded, taps, resets)


def steps_since(resets: Tensor) -> Tensor:
    """How many steps lie between each step and the last reset up to it; where there was none, more than any filter.

    >>> steps_since(torch.tensor([[False, True, False, False, True]])).tolist()
    [[1073741824, 0, 1, 2, 0]]
    """
    t = torch.arange(resets.shape[1], device=resets.device)
    started = torch.where(resets, t, torch.full_like(t, -1)).cummax(1).values
    return torch.where(started < 0, torch.full_like(started, 2**30), t - started)


def last_inputs(padded: Tensor, taps: int, resets: Tensor | None) -> Tensor:
    """The last `taps - 1` inputs of (batch, taps - 1 + seq, channels), zero where a reset has cut them off.

    >>> last_inputs(torch.arange(4.0).view(1, 4, 1), 3, torch.tensor([[False, True]])).flatten().tolist()
    [0.0, 3.0]
    """
    last = padded[:, padded.shape[1] - (taps - 1) :]
    if resets is None or not resets.shape[1]:
        return last.clone()  # a view would keep the whole sequence alive
    age = torch.arange(taps - 2, -1, -1, device=padded.device)
    return last.masked_fill((age > steps_since(resets)[:, -1:]).unsqueeze(-1), 0)

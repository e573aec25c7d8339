"""The steps of one token as tensor operations: the oracle of the compiled ones. Any device, any derivative.

Axes: b batch, d channels, c taps, k levels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def normalise_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight x / sqrt(mean(x^2) + eps)`, the mean over the last axis.

    >>> normalise_reference(torch.full((1, 1, 4), 2.0), torch.ones(4), 0.0).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return weight * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def convolve_reference(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`silu(bias + sum_c weight_c input_c)` and the new state, for shapes as `convolve` takes them.

    >>> y, state = convolve_reference(*(torch.zeros(s) for s in ((1, 1, 2), (2, 1, 4), (2,), (1, 3, 2))))
    >>> y.shape, state.shape
    (torch.Size([1, 1, 2]), torch.Size([1, 3, 2]))
    """
    window = torch.cat((state, x), 1)
    return functional.silu(bias + (window * weight[:, 0].mT).sum(1, keepdim=True)), window[:, 1:]


def advance_reference(logits: Tensor, value_gate: Tensor, prediction: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The gated sum of the levels, and the levels, after a step, for shapes as `advance_levels` takes them.

    >>> y, levels = advance_reference(*(torch.zeros(s) for s in ((1, 1, 6), (1, 1, 4), (2, 2), (1, 3, 2))))
    >>> y.shape, levels.shape
    (torch.Size([1, 1, 2]), torch.Size([1, 3, 2]))
    """
    signal, gate = value_gate[:, 0].chunk(2, -1)
    decays, after = torch.sigmoid(logits[:, 0]).chunk(levels.shape[1], -1), []
    for level, decay in enumerate(decays):
        if level and len(prediction):
            signal = signal - torch.sigmoid(prediction[level - 1]) * levels[:, level]
        signal = decay * levels[:, level] + (1 - decay) * signal
        after.append(signal)
    return (sum(after[1:], after[0]) * functional.silu(gate)).unsqueeze(1), torch.stack(after, 1)

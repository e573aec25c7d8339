"""The short causal convolution in front of a recurrence.

Axis legend: b batch, l sequence, d channels, c taps.
"""

from torch import Tensor, nn
from torch.nn import functional

from classical_kernels import causal_convolution, causal_convolution_step
from classical_kernels.token_steps.cpu import convolve


class CausalConvolution(nn.Conv1d):
    """``y_t = silu(sum_j w_j x_{t-c+1+j} + bias)``, per channel: (b, l, d) to (b, l, d), with a state across parts.

    The state is the last c - 1 inputs (b, c - 1, d), None for zeros, and holds no more memory. Cost: O(l d c).

    >>> import torch
    >>> convolution = CausalConvolution(2, 4)
    >>> y, state = convolution(torch.zeros(1, 3, 2), None)
    >>> y.shape, state.shape
    (torch.Size([1, 3, 2]), torch.Size([1, 3, 2]))
    """

    def __init__(self, n_channels: int, taps: int) -> None:
        super().__init__(n_channels, n_channels, taps, groups=n_channels)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride] -- a convolution with a state
        if x.shape[1] == 1:  # a step of generation
            stepped = None if state is None or self.bias is None else convolve(x, self.weight, self.bias, state)
            if stepped is not None:
                return stepped
            y, state = causal_convolution_step(x[:, 0], self.weight[:, 0], self.bias, state)
            return functional.silu(y).unsqueeze(1), state
        y, state = causal_convolution(x, self.weight[:, 0], self.bias, state)
        return functional.silu(y), state

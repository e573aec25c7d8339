"""The norm in front of a recurrence.

Axis legend: b batch, l sequence, d channels.
"""

from torch import Tensor, nn

from classical_kernels.token_steps.cpu import normalise


class RMSNorm(nn.RMSNorm):
    """PyTorch's ``y = weight x / sqrt(mean(x^2) + eps)``; for one token, without gradients, one compiled call.

    >>> import torch
    >>> RMSNorm(2, eps=1e-6)(torch.full((1, 3, 2), 5.0)).shape
    torch.Size([1, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        normed = None
        if x.ndim == 3 and x.shape[1] == 1 and self.eps is not None and self.weight is not None:
            normed = normalise(x, self.weight, self.eps)
        return super().forward(x) if normed is None else normed

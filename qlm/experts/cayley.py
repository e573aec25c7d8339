"""Orthogonal maps by the Cayley transform, and experts of two of them.

Axis legend: ... any leading axes, m tokens, d width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm.experts.base import Expert, ExpertShape

_GAIN = 0.3
"""Fresh size of a Cayley expert's update over that of its input: about what two fresh dense maps give."""


def cayley(skew: Tensor) -> Tensor:
    """Return ``U = (I - A)(I + A)^{-1}``, orthogonal with determinant 1, for skew-symmetric A (..., d, d).

    ``I + A`` is never singular, since A's eigenvalues are imaginary. Computed by one solve, no inverse: the two
    factors commute, so ``(I + A) U = I - A``; in float64, since ``I + A`` is ill-conditioned for large A, and rounded
    back. No eigenvalue of U is -1; A = 0 gives the identity.

    Cost: ``8/3 d^3`` flops. Source: Helfrich, Willmott, Ye, ICML 2018 (arXiv:1707.09520), equation 2.

    >>> cayley(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    eye, double = torch.eye(skew.shape[-1], dtype=torch.float64, device=skew.device), skew.double()
    return torch.linalg.solve(eye + double, eye - double).to(skew.dtype)


class CayleyLinear(nn.Module):
    """``y = U x + b`` with U orthogonal: (..., d) to (..., d).

    Without the bias norms of vectors and of gradients are kept exactly. ``angles`` are the ``d (d - 1) / 2`` entries of
    A above its diagonal, fresh ones N(0, 1/d), which spreads the eigenvalues of U over the circle. Cost: ``8/3 d^3``
    flops for U, then a dense product; nothing for no tokens.

    >>> CayleyLinear(4).angles.shape
    torch.Size([6])
    """

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.width = width
        self.angles = nn.Parameter(torch.randn(width * (width - 1) // 2) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def matrix(self) -> Tensor:
        """U, (d, d)."""
        rows, columns = torch.triu_indices(self.width, self.width, 1, device=self.angles.device)
        zeros = self.angles.new_zeros(self.width, self.width)
        upper = zeros.index_put((rows, columns), self.angles)
        return cayley(upper - upper.T)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x + self.angles.sum() + (0.0 if self.bias is None else self.bias)  # touched, not solved for
        return functional.linear(x, self.matrix(), self.bias)

    def flops(self, n_tokens: int) -> int:
        """Counted flops of the solve and the product; 0 for no tokens."""
        return 8 * self.width**3 // 3 + 2 * n_tokens * self.width**2 if n_tokens else 0


class CayleyExpert(Expert):
    """``U_2 (gain gelu(U_1 x + b_1)) + b_2`` with both maps orthogonal and a learned scalar gain.

    Raises ValueError for an expansion other than 1: an orthogonal map is square. Cost: two ``CayleyLinear``.

    >>> CayleyExpert(ExpertShape(6)).flops(1)
    1296
    """

    def __init__(self, shape: ExpertShape) -> None:
        super().__init__()
        if shape.expansion != 1:
            raise ValueError(
                f"cayley experts expect expansion 1, got {shape.expansion}: an orthogonal map is square; leave it at 1."
            )
        self.up, self.down = CayleyLinear(shape.d_model), CayleyLinear(shape.d_model)
        self.gain = nn.Parameter(torch.tensor(_GAIN))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.gain * functional.gelu(self.up(x)))

    def flops(self, n_tokens: int) -> int:
        return self.up.flops(n_tokens) + self.down.flops(n_tokens)

"""Logarithms of probabilities that can be 0."""

import torch
from torch import Tensor


def log_or_minus_infinity(chances: Tensor) -> Tensor:
    """``log p``, and -inf with gradient 0 where p is 0 (or, by the rounding of a sum, below).

    ``p = |a|^2`` has slope 0 at a = 0: there is no direction to learn in, and ``0 / 0`` would make the gradient NaN.

    >>> log_or_minus_infinity(torch.tensor([1.0, 0.0]))
    tensor([0., -inf])
    """
    none = chances <= 0
    return chances.masked_fill(none, 1.0).log().masked_fill(none, -torch.inf)


def squared_modulus(amplitudes: Tensor) -> Tensor:
    """``|a|^2`` of real or complex amplitudes, with slope 0 at 0.

    >>> squared_modulus(torch.tensor([3 + 4j]))
    tensor([25.])
    """
    if not amplitudes.is_complex():
        return amplitudes.square()
    return amplitudes.real.square() + amplitudes.imag.square()

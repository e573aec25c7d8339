"""The precision of quantum parts and of probabilities, also under autocast."""

import torch
from torch import Tensor


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32, or float64 where they are: log-probabilities in half precision do not sum to one.

    >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))

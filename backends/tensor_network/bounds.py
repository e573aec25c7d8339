"""What truncation may have done to a result: bounds from the angle between the exact and the kept state.

Each truncation turns the state by an angle, ``sin^2`` of which is the weight it discards. Angles between states obey
the triangle inequality, so their sum bounds the angle to the exact state; ``distance`` is the sine of that sum (at most
1), which for pure states bounds the trace distance ``T = sqrt(1 - F)``. The product of the kept weights *estimates* F
well where errors are independent (Zhou, Stoudenmire, Waintal 2020, Phys. Rev. X 10, 041038) but bounds nothing: errors
that add up in phase, as those of many small steps of one rotation do, are larger.

Axis legend: b batch.
"""

import math

import torch
from torch import Tensor


def von_neumann(distance: Tensor, dimension: int) -> Tensor:
    """Return the Fannes-Audenaert bound ``T ln(d - 1) + H(T)`` in nats, shape (b,), at most ``ln d``.

    Audenaert 2007, J. Phys. A 40, 8127, theorem 1; it grows up to T = 1 - 1/d.

    >>> [round(bound, 4) for bound in von_neumann(torch.tensor([0.0, 0.01, 1.0]), 2).tolist()]
    [0.0, 0.056, 0.6931]
    """
    spread = distance.clamp(max=1 - 1 / dimension)
    binary = torch.special.entr(spread) + torch.special.entr(1 - spread)
    return (spread * math.log(max(dimension - 1, 1)) + binary).clamp(max=math.log(dimension))


def renyi2(distance: Tensor, purity: Tensor, dimension: int) -> Tensor:
    """Return a bound on the error of ``-log Tr rho^2`` in nats, shape (b,): the purity moves by at most 2T.

    ``Tr rho^2 - Tr sigma^2 = Tr (rho - sigma)(rho + sigma)``, where ``rho - sigma`` has trace norm 2T and trace 0.

    >>> renyi2(torch.tensor([0.0]), torch.tensor([0.5]), 2).tolist()
    [0.0]
    """
    lowest = (purity - 2 * distance).clamp(min=1 / dimension).minimum(purity)
    highest = (purity + 2 * distance).clamp(max=1.0).maximum(purity)
    return torch.maximum(torch.log(purity / lowest), torch.log(highest / purity))

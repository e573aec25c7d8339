"""Small dense linear algebra shared by backends: reduced density matrices and entropies.

Axis legend: b batch, n wires, k wires kept; matrices (b, 2**k, 2**k), wire order as asked, first most significant.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from backends.von_neumann import VonNeumann


def reduced_density(states: Tensor, wires: Sequence[int]) -> Tensor:
    """Return ``Tr_rest |psi><psi|``, shape (b, 2**k, 2**k), of states (b, 2**n). Cost b 2**(n+k).

    >>> bell = torch.tensor([[1.0, 0, 0, 1]], dtype=torch.complex64) / 2**0.5
    >>> reduced_density(bell, (0,)).real.round(decimals=4).tolist()
    [[[0.5, 0.0], [0.0, 0.5]]]
    """
    split = bipartition(states, wires)
    return split @ split.mH


def bipartition(states: Tensor, wires: Sequence[int]) -> Tensor:
    """Return states (b, 2**n) as matrices (b, 2**k, 2**(n-k)): rows are the kept wires in the order asked."""
    batch, size = states.shape
    n_wires = size.bit_length() - 1
    rest = [wire for wire in range(n_wires) if wire not in wires]
    axes = [0, *(wire + 1 for wire in (*wires, *rest))]
    return states.reshape(batch, *[2] * n_wires).permute(axes).reshape(batch, 2 ** len(wires), 2 ** len(rest))


def partial_trace(densities: Tensor, wires: Sequence[int]) -> Tensor:
    """Return the reduced matrices (b, 2**k, 2**k) of density matrices (b, 2**n, 2**n). Cost b 4**n."""
    batch, size, _ = densities.shape
    n_wires = size.bit_length() - 1
    rest = [wire for wire in range(n_wires) if wire not in wires]
    order = (*wires, *rest)
    axes = [0, *(wire + 1 for wire in order), *(wire + 1 + n_wires for wire in order)]
    kept, traced = 2 ** len(wires), 2 ** len(rest)
    split = densities.reshape(batch, *[2] * (2 * n_wires)).permute(axes).reshape(batch, kept, traced, kept, traced)
    return split.diagonal(dim1=2, dim2=4).sum(-1)


def entropy(density: Tensor, kind: str) -> Tensor:
    """Return the entropy in nats, shape (b,), of density matrices (b, d, d).

    "von_neumann": ``-sum_i p_i log p_i`` over eigenvalues; those below d times the dtype's epsilon count as 0 and get
    no gradient. Twice differentiable at degenerate spectra too. At a product state, whose second derivative diverges
    like ``log x`` where x entangles it, the finite part alone comes back. "renyi2": ``-log Tr rho^2``. Cost b d**3.

    >>> entropy(torch.eye(2, dtype=torch.complex64)[None] / 2, "von_neumann").item() - math.log(2) < 1e-6
    True
    """
    if kind == "renyi2":
        value = -torch.log(purity(density))
        most = math.log(density.shape[-1])
        # Rounding alone leaves the range, so the derivatives stay; adding 0 turns -0 into 0.
        return value + (value.detach().clamp(0.0, most) - value.detach()) + 0.0
    return VonNeumann.apply(density)  # pyright: ignore[reportReturnType] -- one tensor


def purity(density: Tensor) -> Tensor:
    """Return ``Tr rho^2``, shape (b,), of density matrices (b, d, d).

    >>> purity(torch.eye(4, dtype=torch.complex64)[None] / 4).item()
    0.25
    """
    # Not abs().square(): where an entry is 0 that has a wrong second derivative.
    return (density.real.square() + density.imag.square()).sum((-2, -1))


_SUMMED = 2**16
"""Terms of Page's sum up to which it is summed."""


def page_entropy(small: int, large: int) -> float:
    """Return the mean von Neumann entropy (nats) of Haar-random pure states cut into dimensions m <= n.

    ``sum_{k=n+1}^{mn} 1/k - (m-1)/(2n)``. Source: Page 1993, Phys. Rev. Lett. 71, 1291; proven by Foong and Kanno 1994.

    >>> round(page_entropy(4, 4) / math.log(2), 4)
    1.3307
    """
    m, n = sorted((small, large))
    if m * n <= _SUMMED:
        harmonic = math.fsum(1 / k for k in range(n + 1, m * n + 1))
    else:  # Euler and Maclaurin, to 1 / (120 n**4), where n is at least 256
        harmonic = math.log(m) + (1 / (m * n) - 1 / n) / 2 - (1 / (m * n) ** 2 - 1 / n**2) / 12
    return harmonic - (m - 1) / (2 * n)

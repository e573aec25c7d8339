"""Disorder ensembles of the kicked Ising chain, as batches of circuit inputs.

Axis legend: d disorder instances, n spins, k values of g. Angles are in radians.
"""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from circuits._check import integer


@dataclass(frozen=True, slots=True)
class Disorder:
    """Couplings phi (d, n - 1) and fields h (d, n) of some instances.

    >>> Disorder(torch.zeros(5, 3), torch.zeros(5, 4)).n_wires
    4
    """

    phi: Tensor
    h: Tensor

    @property
    def n_wires(self) -> int:
        """Number of spins."""
        return self.h.shape[1]

    def inputs(self, g: float | Tensor) -> Tensor:
        """Return inputs of ``kicked_ising``: (d, 2n) for a number g, (k d, 2n) for values (k,), instances innermost."""
        values = torch.as_tensor(g, dtype=self.h.dtype).reshape(-1, 1, 1)
        couplings = torch.cat((self.phi, self.h), 1).expand(len(values), -1, -1)
        return torch.cat((values.expand(-1, len(self.h), -1), couplings), 2).flatten(0, 1)


def check_kick(owner: str, g: object) -> None:
    """Raise TypeError where g is no number, or several.

    >>> check_kick("autocorrelators", 0.97)
    """
    if not isinstance(g, Real) and not (isinstance(g, Tensor) and g.ndim == 0 and not g.is_complex()):
        raise TypeError(f"{owner} expects g as one number, got {g!r}; for several values use phase_diagram.")


def draw_disorder(
    n_wires: int, instances: int, seed: int = 0, phi: float | None = None, dtype: torch.dtype = torch.float32
) -> Disorder:
    """Draw h_i uniform in [-pi, pi] and phi_i uniform in [-1.5 pi, -0.5 pi], or ``phi`` for all i where it is given.

    The latter is the prethermal control at phi = -0.4: near g = 1 two kicks undo the fields (a spin echo), so that
    disorder in h alone does not localise. The same seed gives the same fields in both cases. Mi et al. 2022, Nature
    601, 531. Raises ValueError for fewer than 2 spins or no instance.

    >>> draw_disorder(4, 10).inputs(0.97).shape
    torch.Size([10, 8])
    """
    n_wires = integer("draw_disorder", "n_wires", n_wires, 2)
    instances = integer("draw_disorder", "instances", instances, 1)
    generator = torch.Generator().manual_seed(seed)
    fields = math.pi * (2 * torch.rand((instances, n_wires), generator=generator, dtype=torch.float64) - 1)
    couplings = -math.pi * (0.5 + torch.rand((instances, n_wires - 1), generator=generator, dtype=torch.float64))
    if phi is not None:
        couplings = torch.full_like(couplings, phi)
    return Disorder(couplings.to(dtype), fields.to(dtype))

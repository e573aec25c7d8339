"""The phases of gates that programs leave out: they run ``p`` as ``rz``, which differs by a phase of the whole state.

Axis legend: B samples, a angles of the circuit, N amplitudes.
"""

from functools import lru_cache

import torch
from torch import Tensor

from circuits import GATES, Circuit


@lru_cache(maxsize=1024)
def _factors(circuit: Circuit) -> tuple[float, ...]:
    """The phase of each angle's gate per radian."""
    return tuple(GATES[op.name].phase for op in circuit.ops if op.slots)


def with_phases(states: Tensor, circuit: Circuit, angles: Tensor) -> Tensor:
    """Return states (B, N) times ``exp(i sum_k phase_k angle_k)``, at angles (B, a); negative angles take it back.

    >>> from circuits import Op
    >>> with_phases(torch.ones(1, 2), Circuit(1, (Op("rx", (0,), (0.3,)),)), torch.tensor([[0.3]]))
    tensor([[1., 1.]])
    """
    factors = _factors(circuit)
    if not any(factors):
        return states
    total = (angles * torch.tensor(factors, dtype=angles.dtype)).sum(1, keepdim=True)
    return states * torch.polar(torch.ones_like(total), total)

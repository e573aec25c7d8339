"""A circuit and the least possible adapter, for the tests of the interface."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from backends import Backend, Capabilities, Estimate, Request, open_backend
from circuits import GATES, Circuit, Input, Op, PauliSum, Weight

STATEVECTOR = open_backend("statevector")
CIRCUIT = Circuit(
    3,
    (
        Op("ry", (0,), (Input(0),)),
        Op("rx", (1,), (Weight(0, scale=2.0),)),
        Op("cx", (0, 2)),
        Op("rz", (2,), (Input(1),)),
        Op("s", (1,)),
        Op("ryy", (1, 2), (Weight(1),)),
    ),
)
X2 = torch.tensor([[0.3, -1.1], [2.2, 0.4]], dtype=torch.float64)
W2 = torch.tensor([0.7, -0.2], dtype=torch.float64)


@dataclass(frozen=True)
class Bare(Backend):
    """The least an adapter can be: expectations and samples; every other result is derived from them."""

    kind: ClassVar[str] = "bare"

    level: int = 3
    label: str = "a&b=c"
    handle: list[int] = field(default_factory=list, init=False, compare=False, repr=False)
    seen: ClassVar[list[Request]] = []

    @property
    def capabilities(self) -> Capabilities:
        gates = frozenset(GATES) - {"sdg"}
        return Capabilities(exact=True, batch=True, autograd=True, reset=False, max_wires=4, gates=gates)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        self.seen.append(request)
        return STATEVECTOR._expectations(circuit, angles, observables, Request())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        return STATEVECTOR._samples(circuit, angles, wires, shots, seed)

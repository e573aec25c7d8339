"""Circuits, data and a recording backend for the tests of gradients."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import Backend, Capabilities, Estimate, Request, expectations_with_gradient, open_backend
from circuits import GATES, Circuit, Input, Op, PauliSum, Product, Reset, Weight, X, Y, Z
from circuits.ir import lifted

STATEVECTOR = open_backend("statevector")
OBSERVABLES = (Z(0), X(1) @ Y(2), 0.5 * Z(2) - X(0))
SLOTS = Circuit(
    3,
    (
        Op("h", (2,)),
        Op("ry", (0,), (Input(0, scale=1.7, shift=0.3),)),
        Op("rx", (1,), (Weight(0),)),
        Op("cx", (0, 1)),
        Op("rzz", (1, 2), (Product(Input(0), Weight(1), scale=-0.6, shift=0.2),)),
        Op("p", (1,), (Product(Input(1), Input(0)),)),
        Op("rx", (2,), (Weight(0, scale=-0.5),)),
        Op("crz", (2, 0), (Weight(1),)),
        Op("ryy", (0, 2), (Product(Weight(0), Weight(1)),)),
        Op("ry", (1,), (0.4,)),
    ),
)
"""Shared, scaled, shifted and product slots, a composite gate, numbers."""


@dataclass(frozen=True)
class Recorder(Backend):
    """The state-vector simulator without its graph, keeping the angles of each call."""

    kind: ClassVar[str] = "recorder"

    noise: float = 0.0
    calls: list[Any] = field(default_factory=list, compare=False, repr=False)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            shots=self.noise > 0, exact=self.noise == 0, max_wires=8, reset=True, gates=frozenset(GATES)
        )

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        self.calls.append((angles, request))
        values = STATEVECTOR._expectations(lifted(circuit), angles.detach(), observables, Request()).values.detach()
        if not self.noise:
            return Estimate(values)
        generator = torch.Generator().manual_seed(request.seed or 0)
        noise = self.noise * torch.randn(values.shape, generator=generator, dtype=values.dtype)
        return Estimate(values + noise, torch.full_like(values, self.noise), request.shots or 100)

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        raise NotImplementedError


def random_case(seed: int, resets: bool = False) -> tuple[Circuit, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    head, tail = (random_circuit(rng, 3, 7, resets=resets).ops for _ in range(2))
    between = (*(Reset(1) if resets else ()), Op("ry", (1,), (Input(0),)), Op("rx", (0,), (Weight(0),)))
    circuit = Circuit(3, (*head, *between, *tail))
    inputs, weights = random_data(rng, circuit, 3)
    return circuit, torch.tensor(inputs, requires_grad=True), torch.tensor(weights, requires_grad=True)


def gradients(backend: Backend, circuit: Circuit, inputs: Tensor, weights: Tensor, **options: Any) -> list[Tensor]:
    """Of a weighted sum of all values, so that no cotangent is 1."""
    values = expectations_with_gradient(backend, circuit, inputs, weights, OBSERVABLES, **options).values
    cotangent = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).reshape(values.shape)
    given = [tensor for tensor in (inputs, weights) if tensor.requires_grad]
    return list(torch.autograd.grad((values * cotangent).sum(), given, materialize_grads=True))

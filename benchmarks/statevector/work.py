"""The workload W, and what is asked of everyone who runs it.

W: RY(x) on each wire, three layers of (RX RY RZ on each wire, a ring of CNOTs), all <Z_i>; the gradient of a random
combination for inputs and weights.

Axis legend: b batch, n wires, w weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from backends import open_backend
from circuits import Circuit, PauliSum, Z
from circuits.library import angle_encoding, hardware_efficient

SIZES = ((4, 1024), (4, 8192), (8, 512), (12, 64), (16, 4))
LAYERS = 3
Result = tuple[Tensor, ...]
"""Values, gradient of inputs (b, n) and of weights (w,)."""
Step = Callable[[], Result]
BOUNDS = (1e-5, 1e-4, 1e-4)
"""How far two single-precision results may differ, relative to their norms, before no time is told."""


class Work:
    """A circuit with random data in single precision, and how a result is differentiated."""

    def __init__(self, circuit: Circuit, batch: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.circuit, self.batch, self.n_wires = circuit, batch, circuit.n_wires
        self.inputs = (6 * torch.rand(batch, circuit.n_inputs, generator=generator) - 3).requires_grad_()
        self.weights = (6 * torch.rand(circuit.n_weights, generator=generator) - 3).requires_grad_()
        self._generator = generator
        self._cotangent: Tensor | None = None

    def finish(self, values: Tensor) -> Result:
        """The values with both gradients, of the same random combination for all who are measured."""
        if self._cotangent is None:
            self._cotangent = torch.randn(values.shape, generator=self._generator, dtype=self.inputs.dtype)
        leaves = [leaf for leaf in (self.inputs, self.weights) if leaf.numel()]
        return values.detach(), *torch.autograd.grad(values, leaves, self._cotangent, materialize_grads=True)

    def double(self) -> "Work":
        """The same question in double precision."""
        twin = Work(self.circuit, self.batch)
        twin.inputs, twin.weights = (leaf.detach().double().requires_grad_() for leaf in (self.inputs, self.weights))
        twin._cotangent = None if self._cotangent is None else self._cotangent.double()
        return twin


def workload(n_wires: int, batch: int) -> Work:
    """W at one size."""
    return Work(angle_encoding(n_wires) + hardware_efficient(n_wires, LAYERS), batch)


def every_z(n_wires: int) -> tuple[PauliSum, ...]:
    return tuple(Z(wire) for wire in range(n_wires))


def ours(work: Work) -> Step:
    """Our backend, through its public method."""
    backend, observables = open_backend("statevector"), every_z(work.n_wires)
    return lambda: work.finish(backend.expectations(work.circuit, work.inputs, work.weights, observables).values)


def check(found: Result, other: Result, name: str, bounds: tuple[float, ...] = BOUNDS) -> None:
    """Raise AssertionError unless both computed the same."""
    errors = [float((one - two).norm() / two.norm().clamp(min=1e-3)) for one, two in zip(found, other, strict=True)]
    for what, error, bound in zip(("values", "inputs", "weights"), errors, bounds, strict=False):
        if not error < bound:
            raise AssertionError(f"{name}: {what} differ by {error:.1e} of their norm, more than {bound:.0e}")

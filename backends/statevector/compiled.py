"""The compiled executor: programs run on CPU tensors, with gradients by the adjoint method.

Axis legend: B samples, o observables, t times, l lane angles, a angles of the circuit, s shared ones, N amplitudes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from backends import linalg
from backends.statevector import executor
from backends.statevector.batch import MAX_WIRES, Batch
from backends.statevector.gate_phases import with_phases
from backends.statevector.lowering import lower, lower_along, lower_observed
from backends.statevector.program import Program
from backends.statevector.reading import ENTROPIES, MAX_ENTROPY_WIRES, NO_READING, Reading, lower_reading
from backends.statevector.readouts import DENSITY, PROBABILITIES
from backends.statevector.structure import structure
from backends.statevector.words import Words, words_of
from circuits import Circuit, PauliSum
from circuits.slots import Gather, gather


def runs(circuit: Circuit, angles: Tensor) -> bool:
    """Whether this executor runs the circuit: unitary, on a CPU, of at most 16 wires."""
    return circuit.is_unitary and circuit.n_wires <= MAX_WIRES and angles.device.type == "cpu"


def expectations(circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (B, o), at angles (B, a) of the whole circuit."""
    task = _observing(circuit, observables)
    return _run(task, *task.parts(angles))


def expectations_of(circuit: Circuit, inputs: Tensor, weights: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return the same at inputs (B, i) and weights (w,): angles that samples share are never spread over them."""
    task = _observing(circuit, observables)
    return _run(task, task.lanes(inputs, weights), task.shared(inputs[:1], weights))


def expectations_along(
    circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], times: tuple[int, ...]
) -> Tensor:
    """Return ``<O_j>`` after each of the given numbers of ops, shape (B, t, o), in one pass."""
    task = _along(circuit, observables, times)
    return _run(task, *task.parts(angles)).unflatten(1, (len(times), -1))


def states(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the states (B, N), complex, at angles (B, a) of the whole circuit."""
    task = _preparing(circuit)
    made = torch.view_as_complex(_run(task, *task.parts(angles)))
    return with_phases(made, circuit, angles)


def probabilities(circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> Tensor:
    """Return the probabilities (B, 2**k) of the wires' basis states, at angles (B, a) of the whole circuit."""
    task = _reading(circuit, PROBABILITIES, wires)
    return _run(task, *task.parts(angles))


def density(circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> Tensor:
    """Return the wires' density matrix (B, 2**k, 2**k), complex, at angles (B, a) of the whole circuit."""
    task, size = _reading(circuit, DENSITY, wires), 2 ** len(wires)
    return torch.view_as_complex(_run(task, *task.parts(angles)).unflatten(1, (size, size, 2)))


def entropy(circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str) -> Tensor:
    """Return the entropy (B,) of at most half the wires, nats, at angles (B, a) of the whole circuit."""
    if len(wires) > MAX_ENTROPY_WIRES:
        return linalg.entropy(density(circuit, angles, wires), kind)
    task = _reading(circuit, ENTROPIES[kind], wires)
    return _run(task, *task.parts(angles)).squeeze(1)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked, without numbers: a program, and words to measure or, without them, the state (B, N, 2)."""

    circuit: Circuit
    program: Program
    words: Words | None
    in_torch: Callable[[Tensor], Tensor]
    """The same from the whole circuit's angles (B, a), for derivatives that are differentiated again."""
    reading: Reading = NO_READING
    """What is read instead of both, if anything."""

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of the angles that are of lanes and shared, and of every angle among the two, side by side."""
        given, shared, lanes = structure(self.circuit)
        order = [angle.which + (0 if angle.lane else len(lanes)) for angle in given.angles]
        return torch.tensor(lanes, dtype=torch.int64), torch.tensor(shared, dtype=torch.int64), torch.tensor(order)

    @cached_property
    def lanes(self) -> Gather:
        """What makes the angles of lanes (B, l) of inputs and weights."""
        return gather(tuple(self.circuit.slots[column] for column in structure(self.circuit)[2]))

    @cached_property
    def shared(self) -> Gather:
        """What makes the shared angles (1, s) of one row of inputs, none of which it reads, and weights."""
        return gather(tuple(self.circuit.slots[column] for column in structure(self.circuit)[1]))

    def parts(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """The angles of lanes (B, l) and the shared ones (1, s) among all of them."""
        lanes, shared, _ = self._columns
        return angles.index_select(1, lanes), angles[:1].index_select(1, shared)

    def whole(self, lanes: Tensor, shared: Tensor) -> Tensor:
        """The whole circuit's angles (B, a) from those of lanes and the shared ones."""
        return torch.cat((lanes, shared.expand(len(lanes), -1)), 1).index_select(1, self._columns[2])


@lru_cache(maxsize=256)
def _observing(circuit: Circuit, observables: tuple[PauliSum, ...]) -> _Task:
    cone = frozenset(wire for observable in observables for wire in observable.wires)
    diagonal = all(observable.is_diagonal for observable in observables)
    program = lower_observed(structure(circuit)[0], cone, diagonal)

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect(circuit, executor.run(circuit, angles), observables)

    return _Task(circuit, program, words_of(observables, circuit.n_wires, program.sweep), in_torch)


@lru_cache(maxsize=256)
def _along(circuit: Circuit, observables: tuple[PauliSum, ...], times: tuple[int, ...]) -> _Task:
    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect_along(circuit, angles, observables, times).flatten(1)

    program = lower_along(structure(circuit)[0], times)
    return _Task(circuit, program, words_of(observables, circuit.n_wires), in_torch)


@lru_cache(maxsize=256)
def _preparing(circuit: Circuit) -> _Task:

    def in_torch(angles: Tensor) -> Tensor:
        return torch.view_as_real(with_phases(executor.run(circuit, angles).T.contiguous(), circuit, -angles))

    return _Task(circuit, lower(structure(circuit)[0]), None, in_torch)


@lru_cache(maxsize=256)
def _reading(circuit: Circuit, kind: int, wires: tuple[int, ...]) -> _Task:
    def in_torch(angles: Tensor) -> Tensor:
        vectors = executor.run(circuit, angles)
        if kind == PROBABILITIES:
            return executor.marginals(executor.chances(vectors, circuit.n_wires, False).T, wires)
        found = linalg.reduced_density(vectors.T, wires)
        if kind == DENSITY:
            return torch.view_as_real(found).flatten(1)
        name = next(name for name, number in ENTROPIES.items() if number == kind)
        return linalg.entropy(found, name).unsqueeze(1)

    program, reading = lower_reading(structure(circuit)[0], kind, wires)
    return _Task(circuit, program, None, in_torch, reading)


def _run(task: _Task, lanes: Tensor, shared: Tensor) -> Tensor:
    return _Run.apply(lanes, shared, task)  # pyright: ignore[reportReturnType]


class _Run(torch.autograd.Function):
    """A program on a batch: from the angles of lanes (B, l) and the shared ones (1, s)."""

    @staticmethod
    def forward(ctx: Any, lanes: Tensor, shared: Tensor, task: _Task) -> Tensor:
        ctx.save_for_backward(lanes, shared)
        ctx.task, ctx.batch = task, Batch(task.program, lanes.detach().numpy(), shared.detach().numpy())
        if task.reading is not NO_READING:
            return torch.from_numpy(ctx.batch.read(task.reading))
        return torch.from_numpy(ctx.batch.states() if task.words is None else ctx.batch.expectations(task.words))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        lanes, shared = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated: let torch write it down
            made = ctx.task.in_torch(ctx.task.whole(lanes, shared))
            if not made.requires_grad:  # nothing that is asked for depends on an angle
                return torch.zeros_like(lanes), torch.zeros_like(shared), None
            inputs = [tensor for tensor in (lanes, shared) if tensor.requires_grad]
            found = iter(torch.autograd.grad(made, inputs, cotangents[0], create_graph=True, allow_unused=True))
            return *(next(found) if tensor.requires_grad else None for tensor in (lanes, shared)), None  # pyright: ignore[reportReturnType]
        of_lanes, of_shared = ctx.batch.slopes(cotangents[0].numpy(), ctx.task.words, ctx.task.reading)
        return torch.from_numpy(of_lanes), torch.from_numpy(of_shared), None

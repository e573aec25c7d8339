"""The compiled executor: programs run on CPU tensors, with gradients by the adjoint method.

Axis legend: B samples, o observables, t times, l lane angles, a angles of the circuit, s shared ones, N amplitudes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backends import linalg
from backends.statevector import executor
from backends.statevector.batch import MAX_WIRES, Array, Batch
from backends.statevector.gate_phases import with_phases
from backends.statevector.keeping import bytes_of, keep
from backends.statevector.lowering import lower, lower_along, lower_observed
from backends.statevector.program import Program
from backends.statevector.reading import ENTROPIES, MAX_ENTROPY_WIRES, NO_READING, Reading, lower_reading
from backends.statevector.readouts import DENSITY, PROBABILITIES
from backends.statevector.structure import structure
from backends.statevector.words import Words, words_of
from backends.transforms import refuse_forward_mode, transformed
from circuits import Circuit, Input, PauliSum
from circuits.slots import Gather, Slot, added, gather


def runs(circuit: Circuit, angles: Tensor) -> bool:
    """Whether this executor runs the circuit: unitary, on a CPU, of at most 16 wires, and not under torch.func."""
    fits = circuit.is_unitary and circuit.n_wires <= MAX_WIRES
    return fits and angles.device.type == "cpu" and not transformed()


def expectations(circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (B, o), at angles (B, a) of the whole circuit."""
    return _run(_observing(circuit, observables), angles)


def expectations_of(circuit: Circuit, inputs: Tensor, weights: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return the same at inputs (B, i) and weights (w,): angles that samples share are never spread over them."""
    task = _observing(circuit, observables)
    return _apply(inputs, weights, task, task.from_data)


def expectations_along(
    circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], times: tuple[int, ...]
) -> Tensor:
    """Return ``<O_j>`` after each of the given numbers of ops, shape (B, t, o), in one pass."""
    return _run(_along(circuit, observables, times), angles).unflatten(1, (len(times), -1))


def states(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the states (B, N), complex, at angles (B, a) of the whole circuit."""
    return with_phases(torch.view_as_complex(_run(_preparing(circuit), angles)), circuit, angles)


def probabilities(circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> Tensor:
    """Return the probabilities (B, 2**k) of the wires' basis states, at angles (B, a) of the whole circuit."""
    return _run(_reading(circuit, PROBABILITIES, wires), angles)


def density(circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> Tensor:
    """Return the wires' density matrix (B, 2**k, 2**k), complex, at angles (B, a) of the whole circuit."""
    size = 2 ** len(wires)
    return torch.view_as_complex(_run(_reading(circuit, DENSITY, wires), angles).unflatten(1, (size, size, 2)))


def entropy(circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str) -> Tensor:
    """Return the entropy (B,) of at most half the wires, nats, at angles (B, a) of the whole circuit."""
    if len(wires) > MAX_ENTROPY_WIRES:
        return linalg.entropy(density(circuit, angles, wires), kind)
    return _run(_reading(circuit, ENTROPIES[kind], wires), angles).squeeze(1)


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
    def from_data(self) -> "_Feed":
        """Of inputs (B, i) and weights (w,)."""
        return self._feed(self.circuit.slots, self.circuit.angles)

    @cached_property
    def from_angles(self) -> "_Feed":
        """Of the whole circuit's angles (B, a), which stand for inputs, and no weights."""
        return self._feed([Input(k) for k in range(len(self.circuit.slots))], lambda angles, _: angles)

    def _feed(self, slots: Sequence[Slot], angles: Callable[[Tensor, Tensor], Tensor]) -> "_Feed":
        _, shared, lanes = structure(self.circuit)
        return _Feed(gather(tuple(slots[k] for k in lanes)), gather(tuple(slots[k] for k in shared)), angles)


class _Feed(NamedTuple):
    """Where a program's angles come from: two arrays, of samples (B, i) and shared (w,)."""

    lanes: Gather
    """Makes the angles of lanes (B, l)."""
    shared: Gather
    """Makes the shared angles (1, s); of samples it reads the first."""
    angles: Callable[[Tensor, Tensor], Tensor]
    """Makes the whole circuit's angles (B, a)."""

    def pull(
        self, inputs: Array, weights: Array, of_lanes: Array, of_shared: Array
    ) -> tuple[Array | None, Array | None]:
        """The slopes of both arrays from those of the program's angles; None for what none of them reads."""
        of_inputs, of_weights = self.lanes.pull(inputs, weights, of_lanes)
        of_first, of_common = self.shared.pull(inputs[:1], weights, of_shared)
        if of_first is not None:
            of_inputs = np.zeros_like(inputs) if of_inputs is None else of_inputs
            of_inputs[:1] += of_first
        return of_inputs, added(of_weights, of_common)


def _weight(task: _Task) -> int:
    """Bytes of what a task holds."""
    words = 0 if task.words is None else task.words.masks.nbytes + task.words.table.nbytes
    return bytes_of(task.program) + task.reading.order.nbytes + words


@keep(_weight, count=256)
def _observing(circuit: Circuit, observables: tuple[PauliSum, ...]) -> _Task:
    cone = frozenset(wire for observable in observables for wire in observable.wires)
    diagonal = all(observable.is_diagonal for observable in observables)
    program = lower_observed(structure(circuit)[0], cone, diagonal)

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect(circuit, executor.run(circuit, angles), observables)

    return _Task(circuit, program, words_of(observables, circuit.n_wires, program.sweep), in_torch)


@keep(_weight, count=256)
def _along(circuit: Circuit, observables: tuple[PauliSum, ...], times: tuple[int, ...]) -> _Task:
    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect_along(circuit, angles, observables, times).flatten(1)

    program = lower_along(structure(circuit)[0], times)
    return _Task(circuit, program, words_of(observables, circuit.n_wires), in_torch)


@keep(_weight, count=256)
def _preparing(circuit: Circuit) -> _Task:

    def in_torch(angles: Tensor) -> Tensor:
        return torch.view_as_real(with_phases(executor.run(circuit, angles).T.contiguous(), circuit, -angles))

    return _Task(circuit, lower(structure(circuit)[0]), None, in_torch)


@keep(_weight, count=256)
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


def _run(task: _Task, angles: Tensor) -> Tensor:
    return _apply(angles, angles.new_zeros(0), task, task.from_angles)


def _apply(inputs: Tensor, weights: Tensor, task: _Task, feed: _Feed) -> Tensor:
    if not weights.numel():  # a module's empty parameter trains nothing
        weights = weights.detach()
    # within forward no gradient is ever enabled, so this must be asked here
    return _Run.apply(inputs, weights, task, feed, torch.is_grad_enabled())  # pyright: ignore[reportReturnType]


class _Run(torch.autograd.Function):
    """A program on a batch: from inputs (B, i) and weights (w,) through a feed.

    One node of the graph, with the feed and its transpose inside: each node costs as much as a small batch.
    """

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Tensor, task: _Task, feed: _Feed, recorded: bool) -> Tensor:
        x, w = _numbers(inputs), _numbers(weights)
        batch = Batch(task.program, feed.lanes(x, w), feed.shared(x[:1], w))
        kept = batch.room(recorded and any(ctx.needs_input_grad))
        if task.reading is not NO_READING:
            values = batch.read(task.reading, kept)
        else:
            values = batch.states(kept) if task.words is None else batch.expectations(task.words, kept)
        ctx.task, ctx.feed, ctx.batch = task, feed, batch
        ctx.save_for_backward(inputs, weights, torch.from_numpy(kept))  # so that torch frees the states with the graph
        return torch.from_numpy(values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the gradient will be differentiated: let torch write it down
            return *_in_torch(ctx, cotangents[0]), None, None, None
        inputs, weights, kept = (_numbers(tensor) for tensor in ctx.saved_tensors)
        slopes = ctx.batch.slopes(_numbers(cotangents[0]), ctx.task.words, ctx.task.reading, kept)
        found = ctx.feed.pull(inputs, weights, *slopes)
        return *(None if part is None else torch.from_numpy(part) for part in found), None, None, None


def _numbers(tensor: Tensor) -> Array:
    """A tensor's numbers in its own memory, or a copy of what torch keeps as the negative of them."""
    return tensor.detach().resolve_neg().numpy()


def _in_torch(ctx: Any, cotangent: Tensor) -> list[Tensor | None]:
    """The gradients of inputs and weights, themselves differentiable."""
    leaves = ctx.saved_tensors[:2]
    made = ctx.task.in_torch(ctx.feed.angles(*leaves))
    if not made.requires_grad:  # nothing that is asked for depends on an angle
        return [torch.zeros_like(leaf) for leaf in leaves]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(made, wanted, cotangent, create_graph=True, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]

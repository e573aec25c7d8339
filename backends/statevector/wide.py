"""Single large circuits on a CPU: 14 to 26 wires, one state at a time, in place, several gates per pass over memory.

The counterpart of ``compiled``, whose permutations as tables and lanes of samples outgrow the caches here. A batch is a
loop over its samples. Memory: one state for expectations, on the way back the state and the bra, and states asked for
as complex numbers are a copy.

Axis legend: B samples, o observables, t times, a angles of the circuit, N amplitudes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.statevector import executor
from backends.statevector.gate_phases import with_phases
from backends.statevector.structure import structure
from backends.statevector.wide_fusing import numbers_of
from backends.statevector.wide_lowering import ROW_BITS, WideProgram, lower_observed, lower_states
from backends.statevector.wide_state import WideState
from backends.statevector.words import Words, words_of
from backends.transforms import refuse_forward_mode, transformed
from circuits import Circuit, PauliSum

MAX_WIRES = {torch.float32: 26, torch.float64: 25}
"""State and bra then take 1 GiB each in single precision."""
MIN_WIRES = 14
"""Below, ``compiled`` runs whole batches at once, and is quicker from two samples on. Measured."""


def runs(circuit: Circuit, angles: Tensor) -> bool:
    """Whether this executor runs the circuit: unitary, on a CPU, of 14 to 26 wires, and not under torch.func."""
    fits = circuit.is_unitary and circuit.n_wires >= MIN_WIRES
    return fits and angles.device.type == "cpu" and not transformed()


def check(circuit: Circuit, angles: Tensor) -> None:
    """Raise ValueError where the state is too large: above 26 wires in single precision, 25 in double."""
    most = MAX_WIRES[angles.dtype]
    if circuit.n_wires > most:
        size = (angles.dtype.itemsize * 2 << circuit.n_wires) / 2**30
        raise ValueError(
            f"backend 'statevector' expects at most {most} wires in {angles.dtype}, got {circuit.n_wires}: the state "
            f"takes {size:g} GiB, a gradient twice that; use float32, fewer wires or 'quimb:mps'."
        )


def expectations(
    circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], row_bits: int = ROW_BITS
) -> Tensor:
    """Return ``<O_j>``, shape (B, o), at angles (B, a) of the whole circuit.

    ``row_bits``: of a chunk, beside the four of a row. Raises ValueError above 26 wires (25 in double precision). Cost
    O(B ops N), in about ops / 20 passes over memory.

    >>> from circuits import Op, Z
    >>> circuit = Circuit(17, (Op("x", (0,)), Op("cx", (0, 16))))
    >>> expectations(circuit, torch.zeros(1, 0), (Z(0), Z(16), Z(1))).tolist()
    [[-1.0, -1.0, 1.0]]
    """

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect(circuit, executor.run(circuit, angles), observables)[:, None]

    return _observed(circuit, angles, observables, (len(circuit.ops),), row_bits, in_torch)[:, 0]


def expectations_along(
    circuit: Circuit,
    angles: Tensor,
    observables: tuple[PauliSum, ...],
    times: tuple[int, ...],
    row_bits: int = ROW_BITS,
) -> Tensor:
    """Return ``<O_j>`` after each of the given numbers of ops, shape (B, t, o), in one go."""

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect_along(circuit, angles, observables, times)

    return _observed(circuit, angles, observables, times, row_bits, in_torch)


def states(circuit: Circuit, angles: Tensor, row_bits: int = ROW_BITS) -> Tensor:
    """Return the states (B, N), complex, at angles (B, a) of the whole circuit."""
    check(circuit, angles)
    program = lower_states(circuit.n_wires, structure(circuit)[0].ops, row_bits)

    def in_torch(angles: Tensor) -> Tensor:
        return torch.view_as_real(with_phases(executor.run(circuit, angles).T.contiguous(), circuit, -angles))

    made = torch.view_as_complex(_apply(angles, _Task(program, (), in_torch)))
    return with_phases(made, circuit, angles)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked: a program, and the words of each of its stretches or, without any, the state (B, N, 2)."""

    program: WideProgram
    words: tuple[Words, ...]
    in_torch: Callable[[Tensor], Tensor]
    """The same by the torch executor, for derivatives that are differentiated again."""


def _observed(
    circuit: Circuit,
    angles: Tensor,
    observables: tuple[PauliSum, ...],
    times: tuple[int, ...],
    row_bits: int,
    in_torch: Callable[[Tensor], Tensor],
) -> Tensor:
    check(circuit, angles)
    cone = frozenset(wire for observable in observables for wire in observable.wires)
    program = lower_observed(circuit.n_wires, structure(circuit)[0].ops, times, cone, row_bits)
    words = tuple(words_of(observables, circuit.n_wires, sweep) for sweep in program.sweeps)
    return _apply(angles, _Task(program, words, in_torch))


def _apply(angles: Tensor, task: _Task) -> Tensor:
    return _Run.apply(angles, task)  # pyright: ignore[reportReturnType] -- torch leaves apply untyped


class _Run(torch.autograd.Function):
    """A program at angles (B, a): values (B, t, o), or states (B, N, 2)."""

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(ctx: Any, angles: Tensor, task: _Task) -> Tensor:
        ctx.save_for_backward(angles)
        kind = np.dtype(np.float64 if angles.dtype == torch.float64 else np.float32)
        ctx.numbers = [
            numbers_of(task.program, sample, kind) for sample in angles.detach().double().resolve_neg().numpy()
        ]
        ctx.task, ctx.state = task, None
        rows = []
        for numbers in ctx.numbers:
            state = WideState(task.program, numbers)
            values = state.forward(task.words)
            found = [value @ words.table for value, words in zip(values, task.words, strict=True)]
            rows.append(np.stack(found) if task.words else state.write())
            if len(angles) == 1 and ctx.needs_input_grad[0]:
                ctx.state = state  # the way back starts here; of more samples it would keep them all
        return torch.from_numpy(np.stack(rows) if len(rows) > 1 else rows[0][None]).to(angles.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, None]:
        (angles,) = ctx.saved_tensors
        task: _Task = ctx.task
        if torch.is_grad_enabled():  # the gradient will be differentiated: let torch write it down
            made = task.in_torch(angles)
            if not made.requires_grad:  # nothing that is asked for depends on an angle
                return torch.zeros_like(angles), None
            return torch.autograd.grad(made, angles, cotangents[0], create_graph=True)[0], None
        rows = []
        for numbers, cotangent in zip(ctx.numbers, cotangents[0].detach().resolve_neg(), strict=True):
            state, ctx.state = ctx.state, None  # uncomputed on the way: of no use for another gradient
            if state is None:
                state = WideState(task.program, numbers)
                state.forward()
            rows.append(_slopes(state, task.words, cotangent))
        return torch.from_numpy(np.stack(rows)).to(angles.dtype), None


def _slopes(state: WideState, words: Sequence[Words], cotangent: Tensor) -> NDArray[np.float64]:
    """The gradient (a,) of one sample for the cotangent of its values (t, o) or of its state (N, 2)."""
    if not words:
        return state.slopes_of_state(cotangent.numpy())
    weights = cotangent.double().numpy()
    rows = [(found.table @ row).astype(state.kind) for found, row in zip(words, weights, strict=True)]
    return state.slopes_of_values(words, rows)

"""The compiled executor: programs run on CPU tensors, with gradients by the adjoint method.

Axis legend: B samples, o observables, w words, l lane angles, a angles of the circuit, s shared ones; b blocks of V
lanes, N amplitudes, m matrices.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.statevector import executor, interpreter
from backends.statevector.fusing import Fused
from backends.statevector.lowering import Program, lower, lower_along, lower_observed
from backends.statevector.structure import Structure, structure
from backends.statevector.words import Words, words_of
from circuits import GATES, Circuit, PauliSum
from classical_kernels.threads import run_blocks, thread_count

_LOG = logging.getLogger(__name__)
MAX_WIRES = 16
"""Above, permutations as tables would outgrow the caches."""
_LANES = (128, 128, 128, 128, 128, 128, 64, 32, 32, 32, 16, 16, 16, 16, 8, 8, 4)
"""Samples of a block by number of wires: measured; wide enough for the arithmetic, small enough for the cache."""


def runs(circuit: Circuit, angles: Tensor) -> bool:
    """Whether this executor runs the circuit: unitary, on a CPU, of at most 16 wires."""
    return circuit.is_unitary and circuit.n_wires <= MAX_WIRES and angles.device.type == "cpu"


def expectations(circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (B, o), at angles (B, a) of the whole circuit."""
    given, shared, lanes = structure(circuit)
    cone = frozenset(wire for observable in observables for wire in observable.wires)
    program = lower_observed(given, cone)
    words = words_of(observables, circuit.n_wires, program.sweep)

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect(circuit, executor.run(circuit, angles), observables)[:, None]

    return _apply(_Task(program, words, given, in_torch), angles, shared, lanes)[:, 0]


def expectations_along(
    circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], times: tuple[int, ...]
) -> Tensor:
    """Return ``<O_j>`` after each of the given numbers of ops, shape (B, t, o), in one pass."""
    given, shared, lanes = structure(circuit)
    words = words_of(observables, circuit.n_wires)

    def in_torch(angles: Tensor) -> Tensor:
        return executor.expect_along(circuit, angles, observables, times)

    return _apply(_Task(lower_along(given, times), words, given, in_torch), angles, shared, lanes)


def states(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the states (B, N), complex, at angles (B, a) of the whole circuit."""
    given, shared, lanes = structure(circuit)
    phases = _phases(circuit)

    def in_torch(angles: Tensor) -> Tensor:
        made = executor.run(circuit, angles).T
        return torch.view_as_real(made * _turn(-angles, phases) if any(phases) else made)

    made = torch.view_as_complex(_apply(_Task(lower(given), None, given, in_torch), angles, shared, lanes))
    return made * _turn(angles, phases) if any(phases) else made


@lru_cache(maxsize=1024)
def _phases(circuit: Circuit) -> tuple[float, ...]:
    """The phase factor of each angle: programs run ``p`` as ``rz``."""
    return tuple(GATES[op.name].phase for op in circuit.ops if op.slots)


def _turn(angles: Tensor, phases: tuple[float, ...]) -> Tensor:
    """``exp(i sum_k phase_k angle_k)``, shape (B, 1)."""
    total = (angles * torch.tensor(phases, dtype=angles.dtype)).sum(1, keepdim=True)
    return torch.polar(torch.ones_like(total), total)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is asked: a program, and words to measure or, without them, the state (B, N, 2)."""

    program: Program
    words: Words | None
    structure: Structure
    in_torch: Callable[[Tensor], Tensor]
    """The same from the whole circuit's angles (B, a), for derivatives that are differentiated again."""

    def expanded(self, lanes: Tensor, shared: Tensor) -> Tensor:
        """The whole circuit's angles (B, a) from those of lanes (B, l) and the shared ones (s,)."""
        both = torch.cat((lanes, shared.expand(len(lanes), -1)), 1)
        return both.index_select(1, _columns(self.structure.angles, lanes.shape[1]))


@lru_cache(maxsize=256)
def _columns(angles: tuple[Any, ...], n_lanes: int) -> Tensor:
    return torch.tensor([angle.which + (0 if angle.lane else n_lanes) for angle in angles], dtype=torch.int64)


def _apply(task: _Task, angles: Tensor, shared: tuple[int, ...], lanes: tuple[int, ...]) -> Tensor:
    columns = torch.tensor(lanes, dtype=torch.int64), torch.tensor(shared, dtype=torch.int64)
    return _Run.apply(angles.index_select(1, columns[0]), angles[0].index_select(0, columns[1]), task)  # pyright: ignore[reportReturnType]


class _Run(torch.autograd.Function):
    """A program on a batch."""

    @staticmethod
    def forward(ctx: Any, lanes: Tensor, shared: Tensor, task: _Task) -> Tensor:
        numbers = _Numbers(task.program, lanes, shared)
        ctx.save_for_backward(lanes, shared)
        ctx.task, ctx.numbers = task, numbers
        return numbers.expectations(task.words) if task.words is not None else numbers.states()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        lanes, shared = ctx.saved_tensors
        task, numbers = ctx.task, ctx.numbers
        if torch.is_grad_enabled():  # the gradient will be differentiated: let torch write it down
            made = task.in_torch(task.expanded(lanes, shared))
            if not made.requires_grad:  # nothing that is asked for depends on an angle
                return torch.zeros_like(lanes), torch.zeros_like(shared), None
            inputs = [tensor for tensor in (lanes, shared) if tensor.requires_grad]
            found = iter(torch.autograd.grad(made, inputs, cotangents[0], create_graph=True, allow_unused=True))
            return *(next(found) if tensor.requires_grad else None for tensor in (lanes, shared)), None  # pyright: ignore[reportReturnType]
        slopes = numbers.slopes(cotangents[0], task.words)
        return *slopes, None


class _Numbers:
    """A program's numbers for one batch, laid out for the interpreter."""

    def __init__(self, program: Program, lanes: Tensor, shared: Tensor) -> None:
        self.program = program
        self.dtype = lanes.dtype
        kind = np.dtype(np.float64 if lanes.dtype == torch.float64 else np.float32)
        self.batch, self.n_lane_angles = lanes.shape
        self.lanes = min(_LANES[program.n_wires], 1 << max(0, self.batch - 1).bit_length())
        self.n_blocks = -(-self.batch // self.lanes)
        half = self._blocks(lanes.detach() / 2).numpy()
        self.lane_cos, self.lane_sin = np.cos(half), np.sin(half)  # torch's own would hang in a forked child
        angles = shared.detach().double().numpy()
        self.fused = Fused(program, angles, kind)
        self.angles = np.stack((np.cos(angles / 2), np.sin(angles / 2))).astype(kind)
        self.threads = thread_count(self.batch * (len(program.code) + program.n_wires) << program.n_wires)

    def _blocks(self, rows: Tensor) -> Tensor:
        """Rows (B, c) as blocks (b, c, V), zeros where the last one is filled up."""
        missing = self.n_blocks * self.lanes - self.batch
        if missing:
            rows = torch.cat((rows, rows.new_zeros(missing, rows.shape[1])))
        return rows.unflatten(0, (self.n_blocks, self.lanes)).transpose(1, 2).contiguous()

    def _rows(self, blocks: NDArray[Any]) -> Tensor:
        """Blocks (b, c, V) as rows (B, c)."""
        return torch.from_numpy(blocks).transpose(1, 2).flatten(0, 1)[: self.batch]

    def _run(
        self,
        words: Words | None,
        values: NDArray[Any] | None = None,
        states: NDArray[Any] | None = None,
        slopes: tuple[NDArray[Any], ...] | None = None,
    ) -> None:
        """Spread the blocks over threads; what is not asked for is passed as an empty array of the same kind."""
        kind, program, fused = self.angles.dtype, self.program, self.fused
        masks = np.empty((0, 3), np.int64) if words is None else words.masks
        shared = (
            (program.code, program.start, (program.sources, program.targets, program.signs)),
            (
                (fused.matrices, fused.inverses, fused.turned, fused.turned_inverses, fused.lane_axes),
                self.angles,
            ),
            self.lane_cos,
            self.lane_sin,
            (masks, 0 if words is None else words.n_diagonal),
            np.empty((self.n_blocks, 0, 0), kind) if values is None else values,
            np.empty((0, 0, 2), kind) if states is None else states,
            _no_slopes(kind) if slopes is None else slopes,
            self.lanes,
            slopes is not None,
        )
        _announce()
        run_blocks(lambda first, last: interpreter.run(first, last, *shared), self.n_blocks, self.threads)

    def expectations(self, words: Words) -> Tensor:
        n_times = self.program.n_times
        values = np.empty((self.n_blocks, n_times * len(words.masks), self.lanes), self.angles.dtype)
        self._run(words, values)
        rows = self._rows(values).unflatten(1, (n_times, -1))
        return rows.contiguous() if words.is_identity else rows @ torch.as_tensor(words.table, dtype=self.dtype)

    def states(self) -> Tensor:
        made = np.empty((self.batch, 2**self.program.n_wires, 2), self.angles.dtype)
        self._run(None, states=made)
        return torch.from_numpy(made)

    def slopes(self, cotangent: Tensor, words: Words | None) -> tuple[Tensor, Tensor]:
        """The gradients of the angles of lanes (B, l) and of the shared ones (s,)."""
        kind = self.angles.dtype
        of_matrices = np.zeros((self.n_blocks, len(self.fused.matrices), 3), kind)
        of_lanes = np.zeros((self.n_blocks, self.n_lane_angles, self.lanes), kind)
        of_words = np.zeros((self.n_blocks, self.angles.shape[1]), kind)
        found = of_matrices, of_lanes, of_words
        if words is None:
            self._run(None, states=cotangent.contiguous().numpy(), slopes=found)
        else:
            if not words.is_identity:
                cotangent = cotangent @ torch.as_tensor(words.table.T, dtype=self.dtype)
            self._run(words, self._blocks(cotangent.flatten(1)).numpy(), slopes=found)
        shared = of_words.sum(0, dtype=np.float64)
        self._add_matrices(of_matrices.sum(0, dtype=np.float64), shared)
        return self._rows(of_lanes).contiguous(), torch.from_numpy(shared).to(self.dtype)

    def _add_matrices(self, slopes: NDArray[np.float64], shared: NDArray[np.float64]) -> None:
        """Add each fused gate's slope, along its generator's axis, to its angle's."""
        factors, bounds = self.program.factors, self.program.bounds
        number = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        along = (self.fused.axes * slopes[number]).sum(1)
        rotations = factors[:, 0] > 0
        np.add.at(shared, factors[rotations, 1], along[rotations])


@lru_cache(maxsize=2)
def _no_slopes(kind: np.dtype) -> tuple[NDArray[Any], ...]:
    return np.empty((0, 0, 3), kind), np.empty((0, 0, 0), kind), np.empty((0, 0), kind)


@lru_cache(maxsize=1)
def _announce() -> None:
    """Say, before the first call, that it takes long where nothing was compiled yet."""
    folder = interpreter.run.stats.cache_path
    module = interpreter.__name__.rpartition(".")[2]
    if folder is None or not any(Path(folder).glob(f"{module}.run-*.nbi")):
        _LOG.warning("compiling the state-vector kernels for this machine, once; this takes half a minute")

"""The executor for up to 6 wires (N <= 64), where the number of calls to torch matters and not the arithmetic.

Consecutive steps that no input enters become one matrix: a stack of its rotations, built at once and multiplied as a
tree. Axis legend: N amplitudes, b batch, a angles, g factors of one run; vectors are (N, b).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from backends.statevector.keeping import plain
from backends.statevector.reference import apply_step
from backends.statevector.steps import Fixed, Rotation, Step, steps
from circuits import Circuit

MAX_AMPLITUDES = 64


@dataclass(frozen=True, eq=False)
class Constant:
    """A run without angles: its matrix (N, N)."""

    matrix: Tensor


@dataclass(frozen=True, eq=False)
class Shared:
    """A run of rotations that all samples share: factors ``turn (cos(t/2) still + sin(t/2) moving)``, (g, N, N).

    The constant steps between rotations are multiplied into the factors.
    """

    columns: tuple[int, ...]
    phases: tuple[float, ...]
    still: Tensor
    moving: Tensor


@dataclass(frozen=True, eq=False)
class Single:
    """One rotation with an angle per sample: ``turn (cos(t/2) + sin(t/2) moving)``."""

    column: int
    phase: float
    moving: Tensor


Run = Constant | Shared | Single


def _matrix(step: Step, size: int) -> Tensor:
    """A step without angle as a matrix (N, N)."""
    return apply_step(step, torch.eye(size, dtype=torch.complex128), torch.zeros(1, 0))


def _moving(step: Rotation, size: int) -> Tensor:
    """``-i sign P``."""
    rows = tuple((entry,) for entry in step.word)
    return -1j * step.sign * _matrix(Fixed(step.frame, rows, rows), size)


@lru_cache(maxsize=128)
@plain
def _runs(circuit: Circuit, first: int, last: int, density: bool) -> tuple[Run, ...]:
    """The runs of ops ``first`` to ``last - 1``."""
    size = (4 if density else 2) ** circuit.n_wires
    chosen = [step for op in steps(circuit, density)[first:last] for step in op]
    return tuple(_collect(chosen, size))


def _collect(chosen: list[Step], size: int) -> Iterator[Run]:
    def key(item: tuple[int, Step]) -> int:
        number, step = item
        return number if isinstance(step, Rotation) and not step.shared else -1

    for number, group in groupby(enumerate(chosen), key):
        step = chosen[number]
        if number >= 0 and isinstance(step, Rotation):
            yield Single(step.column, step.phase, _moving(step, size))
        else:
            yield _run([step for _, step in group], size)


def _run(run: list[Step], size: int) -> Run:
    identity = torch.eye(size, dtype=torch.complex128)
    before, factors = identity, []
    for step in run:
        if isinstance(step, Rotation):
            factors.append((step.column, step.phase, before, _moving(step, size) @ before))
            before = identity
        else:
            before = _matrix(step, size) @ before
    if not factors:
        return Constant(before)
    column, phase, still, moving = factors[-1]
    factors[-1] = column, phase, before @ still, before @ moving
    columns, phases, stills, movings = zip(*factors, strict=True)
    return Shared(columns, phases, torch.stack(stills), torch.stack(movings))


@lru_cache(maxsize=512)
@plain
def _constant(run: Constant | Single, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (run.matrix if isinstance(run, Constant) else run.moving).to(device, dtype)


@lru_cache(maxsize=512)
@plain
def _constants(run: Shared, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Columns, phases, factors, and the identities that pad their number to a power of two."""
    columns = torch.tensor(run.columns, dtype=torch.int64, device=device)
    phases = torch.tensor(run.phases, dtype=dtype.to_real(), device=device)
    missing = (1 << (len(columns) - 1).bit_length()) - len(columns)
    padding = torch.eye(run.still.shape[-1], dtype=dtype, device=device).repeat(missing, 1, 1)
    return columns, phases, run.still.to(device, dtype), run.moving.to(device, dtype), padding


def advance(circuit: Circuit, first: int, last: int, vectors: Tensor, angles: Tensor, density: bool) -> Tensor:
    """Apply ops ``first`` to ``last - 1`` to vectors (N, b); ``angles`` (b, a) of the whole circuit."""
    half = angles.T / 2
    samples: list[tuple[Tensor, Tensor]] | None = None
    for run in _runs(circuit, first, last, density):
        if isinstance(run, Constant):
            vectors = _constant(run, vectors.dtype, vectors.device) @ vectors
        elif isinstance(run, Shared):
            vectors = _product(run, half[:, 0], vectors.dtype) @ vectors
        else:
            if samples is None:  # unbound once: taking rows one by one costs a zero matrix each in the gradient
                samples = list(zip(torch.cos(half).unbind(0), torch.sin(half).unbind(0), strict=True))
            cos, sin = samples[run.column]
            vectors = cos * vectors + sin * (_constant(run, vectors.dtype, vectors.device) @ vectors)
            if run.phase:
                vectors = torch.polar(torch.ones_like(cos), 2 * run.phase * half[run.column]) * vectors
    return vectors


def _product(run: Shared, half: Tensor, dtype: torch.dtype) -> Tensor:
    """``M_g ... M_1``, shape (N, N), from half angles (a,): by pairs, as a tree."""
    columns, phases, still, moving, padding = _constants(run, dtype, half.device)
    turns = half.index_select(0, columns)
    stack = torch.cos(turns)[:, None, None] * still + torch.sin(turns)[:, None, None] * moving
    if any(run.phases):
        stack = torch.polar(torch.ones_like(turns), 2 * phases * turns)[:, None, None] * stack
    if len(padding):
        stack = torch.cat((stack, padding))
    while len(stack) > 1:
        earlier, later = stack.unflatten(0, (-1, 2)).unbind(1)
        stack = later @ earlier
    return stack[0]

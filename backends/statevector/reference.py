"""The obvious executor, in torch: any device, complex64 or complex128, differentiable as often as torch can.

Axis legend: N amplitudes, b batch; vectors are (N, b). A run of steps that no input enters is applied to the identity
first, so that it costs N columns instead of b (``_MAX_DENSE`` bounds N).
"""

from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from backends.statevector.program import Discard, Fixed, Monomial, Rotation, Step, steps
from circuits import Circuit

_MAX_DENSE = 64


class _Permute(torch.autograd.Function):
    """Rows taken by a permutation; the gradient is a gather too, where autograd's own would be a slow scatter."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue] -- set by torch
        return _Permute.apply(gradients[0], inverse, index), None, None  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=4096)
def _constants(monomial_id: "_ById", dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    monomial = monomial_id.value
    phase = torch.from_numpy(monomial.phase).to(device, dtype)[:, None]
    if monomial.index is None:
        return phase, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert monomial.inverse is not None
    return phase, torch.from_numpy(monomial.index).to(device), torch.from_numpy(monomial.inverse).to(device)


class _ById:
    """A monomial as a cache key: programs are cached, so identity is enough and hashing arrays is spared."""

    __slots__ = ("value",)

    def __init__(self, value: Monomial) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.value is other.value


def _apply_monomial(monomial: Monomial, vectors: Tensor) -> Tensor:
    phase, index, inverse = _constants(_ById(monomial), vectors.dtype, vectors.device)
    if monomial.index is None:
        return phase * vectors
    moved: Tensor = _Permute.apply(vectors, index, inverse)  # pyright: ignore[reportAssignmentType]
    return phase * moved


def _rotate(step: Rotation, vectors: Tensor, angles: Tensor) -> Tensor:
    angle = angles[:1, step.column] if step.shared else angles[:, step.column]
    cos, sin = torch.cos(angle / 2), torch.sin(angle / 2)
    turned = cos * vectors - (1j * step.sign) * sin * _apply_monomial(step.word, vectors)
    return turned if step.phase == 0 else torch.polar(torch.ones_like(angle), step.phase * angle) * turned


def _discard(step: Discard, vectors: Tensor) -> Tensor:
    """Sum of the (0, 0) and (1, 1) blocks of the wire, put in the (0, 0) block."""
    states = torch.arange(len(vectors), device=vectors.device)
    row, column = (states // step.stride) % 2, (states // step.column_stride) % 2
    empty = ((row == 0) & (column == 0))[:, None]
    partner = vectors.index_select(0, states ^ (step.stride | step.column_stride))
    return torch.where(empty, vectors + partner, torch.zeros_like(vectors))


def _apply(step: Step, vectors: Tensor, angles: Tensor) -> Tensor:
    if isinstance(step, Rotation):
        return _rotate(step, vectors, angles)
    if isinstance(step, Discard):
        return _discard(step, vectors)
    terms = [_apply_monomial(term, vectors) for term in step.terms]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)


def _is_shared(step: Step) -> bool:
    return isinstance(step, Fixed) or (isinstance(step, Rotation) and step.shared)


def advance(circuit: Circuit, first: int, last: int, vectors: Tensor, angles: Tensor, density: bool) -> Tensor:
    """Apply ops ``first`` to ``last - 1`` to vectors (N, b); ``angles`` (b, a) of the whole circuit."""
    chosen = [step for op_steps in steps(circuit, density)[first:last] for step in op_steps]
    dense = len(vectors) <= min(_MAX_DENSE, vectors.shape[1])
    for shared, run in groupby(chosen, _is_shared):
        if not (shared and dense):
            for step in run:
                vectors = _apply(step, vectors, angles)
            continue
        matrix = torch.eye(len(vectors), dtype=vectors.dtype, device=vectors.device)
        for step in run:
            matrix = _apply(step, matrix, angles)
        vectors = matrix @ vectors
    return vectors


def start(circuit: Circuit, angles: Tensor, density: bool) -> Tensor:
    """Return |0...0> (or its density matrix) as vectors (N, b) in the angles' complex precision."""
    size = 4**circuit.n_wires if density else 2**circuit.n_wires
    vectors = torch.zeros((size, len(angles)), dtype=angles.dtype.to_complex(), device=angles.device)
    vectors[0] = 1
    return vectors

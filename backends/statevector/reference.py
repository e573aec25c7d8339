"""The executor in torch: any device, complex64 or complex128, differentiable as often as torch can.

A gate is unitary, so its gradient is the inverse gate: fixed gates save nothing, rotations save their output alone.
Axis legend: N amplitudes, b batch; vectors are (N, b).
"""

from typing import Any

import torch
from torch import Tensor

from backends.statevector.steps import Discard, Fixed, Frame, Rotation, Step, steps
from backends.transforms import refuse_forward_mode
from circuits import Circuit


def _blocks(frame: Frame, vectors: Tensor) -> Tensor:
    return vectors.reshape(*frame.shape, vectors.shape[-1])


class _ApplyFixed(torch.autograd.Function):
    """A gate without angle: out[r] = sum_c entry[r, c] in[c], block by block."""

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(vectors: Tensor, step: Fixed) -> Tensor:
        source = _blocks(step.frame, vectors)
        out = torch.empty_like(source, memory_format=torch.contiguous_format)
        for where, ((first, entry), *others) in zip(step.frame.at, step.rows, strict=True):
            torch.mul(source[step.frame.at[first]], entry, out=out[where])
            for column, further in others:
                out[where].add_(source[step.frame.at[column]], alpha=further)
        return out.reshape(vectors.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Fixed], output: Tensor) -> None:
        ctx.step = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return apply_fixed(ctx.step.inverse(), gradients[0]), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        vectors, step = arguments
        lanes = _last(vectors, in_dims[0], info.batch_size)
        return apply_fixed(step, lanes.flatten(1)).unflatten(1, lanes.shape[1:]), 2


def apply_fixed(step: Fixed, vectors: Tensor) -> Tensor:
    """Return the gate's action on vectors (N, b)."""
    return _ApplyFixed.apply(vectors, step)  # pyright: ignore[reportReturnType] -- torch leaves apply untyped


class _Rotate(torch.autograd.Function):
    """out[r] = phase (cos(t/2) in[r] - i sign sin(t/2) P[r, c] in[c]), c the one column of row r of the word P."""

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(vectors: Tensor, angle: Tensor, step: Rotation) -> Tensor:
        source = _blocks(step.frame, vectors)
        out = torch.empty_like(source, memory_format=torch.contiguous_format)
        cos, sin = torch.cos(angle / 2), torch.sin(angle / 2) * (-1j * step.sign)
        if step.phase:
            turn = torch.polar(torch.ones_like(angle), step.phase * angle)
            cos, sin = turn * cos, turn * sin
        factors = {entry: sin * entry for _, entry in step.word}
        cos = cos.to(sin.dtype)
        for row, (column, entry) in enumerate(step.word):
            where = step.frame.at[row]
            if column == row:
                torch.mul(source[where], cos + factors[entry], out=out[where])
            else:
                torch.mul(source[where], cos, out=out[where])
                out[where].addcmul_(source[step.frame.at[column]], factors[entry])
        return out.reshape(vectors.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Rotation], output: Tensor) -> None:
        ctx.save_for_backward(output, inputs[1])
        ctx.step = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        out, angle = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        back = _rotate(ctx.step, gradients[0], -angle) if wanted[0] else None
        return back, _slope(ctx.step, gradients[0], out, angle) if wanted[1] else None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        vectors, angle, step = arguments
        pair = zip((vectors, angle), in_dims, strict=False)
        lanes, turns = (_last(tensor, dim, info.batch_size) for tensor, dim in pair)
        turns = turns.expand(lanes.shape[1:])
        return _rotate(step, lanes.flatten(1), turns.flatten()).unflatten(1, lanes.shape[1:]), 2


def _last(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The mapped axis behind the others."""
    return tensor[..., None].expand(*tensor.shape, size) if dim is None else tensor.movedim(dim, -1)


def _slope(step: Rotation, gradient: Tensor, out: Tensor, angle: Tensor) -> Tensor:
    """``Re <gradient| (i phase - i sign P / 2) |out>`` per sample, summed where one angle served all samples."""
    left, right = _blocks(step.frame, gradient), _blocks(step.frame, out)
    total = torch.zeros_like(angle)
    for row, (column, entry) in enumerate(step.word):
        bra = left[step.frame.at[row]].conj()
        total = total + _real_overlap(bra, right[step.frame.at[column]], -0.5j * step.sign * entry, angle)
        if step.phase:
            total = total + _real_overlap(bra, right[step.frame.at[row]], 1j * step.phase, angle)
    return total


def _real_overlap(bra: Tensor, ket: Tensor, factor: complex, angle: Tensor) -> Tensor:
    overlap = (bra * ket).sum(tuple(range(ket.ndim - 1)))
    scaled = (overlap * factor).real
    return scaled if len(scaled) == len(angle) else scaled.sum(0, keepdim=True)


def _rotate(step: Rotation, vectors: Tensor, angle: Tensor) -> Tensor:
    return _Rotate.apply(vectors, angle, step)  # pyright: ignore[reportReturnType] -- torch leaves apply untyped


def _discard(step: Discard, vectors: Tensor) -> Tensor:
    """Sum of the (0, 0) and (1, 1) blocks of the wire, put in the (0, 0) block."""
    source = _blocks(step.frame, vectors)
    first, *_, last = step.frame.at
    out = torch.zeros_like(source)
    out[first] = source[first] + source[last]
    return out.reshape(vectors.shape)


def apply_step(step: Step, vectors: Tensor, angles: Tensor) -> Tensor:
    """Return one step's action on vectors (N, b); ``angles`` (b, a) of the whole circuit."""
    if isinstance(step, Rotation):
        return _rotate(step, vectors, angles[:1, step.column] if step.shared else angles[:, step.column])
    return _discard(step, vectors) if isinstance(step, Discard) else apply_fixed(step, vectors)


def advance(circuit: Circuit, first: int, last: int, vectors: Tensor, angles: Tensor, density: bool) -> Tensor:
    """Apply ops ``first`` to ``last - 1`` to vectors (N, b); ``angles`` (b, a) of the whole circuit."""
    for op_steps in steps(circuit, density)[first:last]:
        for step in op_steps:
            vectors = apply_step(step, vectors, angles)
    return vectors


def start(circuit: Circuit, angles: Tensor, density: bool) -> Tensor:
    """Return |0...0> (or its density matrix) as vectors (N, b) in the angles' complex precision."""
    size = 4**circuit.n_wires if density else 2**circuit.n_wires
    vectors = torch.zeros((size, len(angles)), dtype=angles.dtype.to_complex(), device=angles.device)
    vectors[0] = 1
    return vectors

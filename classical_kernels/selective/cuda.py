"""The selective scan on CUDA tensors: the operators of `classical_kernels.selective.cpu`, run by Triton kernels.

Axes: R batch, L sequence, D channels, N states of a channel; T steps, S states and W channels of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from classical_kernels.launch import Launch, blocks, dense
from classical_kernels.selective.cpu import CHUNKS, _backward, saved_shape, selective_scan_fused

_STEPS = CHUNKS["cuda"]
_STATES = 16
_TERMS = {torch.float32: 10, torch.float64: 19}  # of the series for |x| < 1: the next one is below rounding


@dataclass(frozen=True)
class Tile:
    """What a program holds at once: `steps` steps of `states` states of `width` channels, by `num_warps` warps."""

    steps: int
    states: int
    width: int
    num_warps: int


def forward_tile(n_states: int) -> Tile:
    """The tile for `n_states` states a channel: up to 16 states at once, more take several sweeps.

    A thread holds all 16 steps of one state of one channel: the scan along the chunk needs no exchange between threads.

    >>> forward_tile(16), forward_tile(3)
    (Tile(steps=16, states=16, width=8, num_warps=4), Tile(steps=16, states=4, width=32, num_warps=4))
    """
    states = min(_STATES, 1 << max(0, n_states - 1).bit_length())
    return Tile(_STEPS, states, 128 // states, 4)


def backward_tile(n_states: int, dtype: torch.dtype, spread: bool) -> Tile:
    """The tile for the gradient, so small that no registers spill, as compiled for compute capabilities 8.0 to 10.0.

    In float32 that of `forward_tile`; with `spread`, needed for resets and for zero-order hold, over twice as many
    threads; in float64 a quarter of the pairs of a state and a channel.

    >>> backward_tile(16, torch.float64, False)
    Tile(steps=16, states=8, width=4, num_warps=4)
    """
    if dtype == torch.float64:
        states = min(8, forward_tile(n_states).states)
        return Tile(_STEPS, states, 32 // states, 4)
    tile = forward_tile(n_states)
    return replace(tile, num_warps=8) if spread else tile


def forward_launch(operands: tuple[Tensor, ...], held: bool) -> Launch:
    """The call that writes the last three of u, delta, A, B, C, D, z, marks, h0, y, h_last, saved; A is (N, D).

    >>> row, none = torch.ones(2, 3, 4), torch.empty(0)
    >>> state = torch.ones(2, 4, 4)
    >>> operands = (row, row, state[0], row, row, none, none, none.byte(), state, row, state, none)
    >>> call = forward_launch(operands, False)
    >>> call.kernel, call.programs, call.constants["GATED"]
    ('forward_chunks', 2, False)
    """
    tile = forward_tile(operands[2].shape[0])
    return _launch("forward_chunks", operands, held, tile, {"SAVE": operands[11].numel() > 0})


def backward_launch(operands: tuple[Tensor, ...], held: bool) -> Launch:
    """The call for the gradient; operands as those of the kernel `backward_chunks`, without L, D and N.

    >>> row, none, state = torch.ones(2, 3, 4), torch.empty(0), torch.ones(2, 4, 4)
    >>> operands = (row, row, state[0], row, row, none, none, none.byte(), state, row, state, *(row,) * 8)
    >>> backward_launch(operands, False).kernel
    'backward_chunks'
    """
    return _launch("backward_chunks", operands, held, _tile_of(operands, held), {})


def _tile_of(operands: Sequence[Tensor], held: bool) -> Tile:
    u, A, marks = operands[0], operands[2], operands[7]
    return backward_tile(A.shape[0], u.dtype, held or marks.numel() > 0)


def _launch(
    kernel: str, operands: tuple[Tensor, ...], held: bool, tile: Tile, constants: dict[str, bool | int]
) -> Launch:
    u, A, skip, z, marks = operands[0], operands[2], operands[5], operands[6], operands[7]
    constants |= {"HELD": held, "SKIP": skip.numel() > 0, "GATED": z.numel() > 0, "MARKED": marks.numel() > 0}
    constants |= {"D": u.shape[2], "N": A.shape[0], "TERMS": _TERMS[u.dtype]}
    constants |= {"T": tile.steps, "S": tile.states, "W": tile.width}
    return Launch(
        family="selective",
        kernel=kernel,
        programs=u.shape[0] * blocks(u.shape[2], tile.width),
        operands=(*(dense(operand) for operand in operands), u.shape[1]),
        constants=constants,
        num_warps=tile.num_warps,
    )


@selective_scan_fused.register_kernel("cuda")
def selective_scan_cuda(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    h0: Tensor,
    marks: Tensor,
    held: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`classical_kernels.selective.cpu.selective_scan_fused` by a Triton kernel.

    Raises ImportError where the package triton is missing. (On CPU tensors it runs in Triton's interpreter.)
    """
    shapes = (u.shape, h0.shape, saved_shape(u, h0, _STEPS if save else None))
    y, h_last, saved = (u.new_empty(shape) for shape in shapes)
    forward_launch((u, delta, A, B, C, D, z, marks, h0, y, h_last, saved), held).run()
    return y, h_last, saved


@_backward.register_kernel("cuda")
def selective_scan_backward_cuda(
    operands: list[Tensor], marks: Tensor, saved: Tensor, grad_y: Tensor, grad_last: Tensor, held: bool
) -> list[Tensor]:
    """The gradient of `selective_scan_cuda`, for u, delta, A, B, C, D, z and h0."""
    u, delta, A, B, C, D, z, h0 = operands
    n_rows, tile = u.shape[0], _tile_of((*operands[:7], marks), held)
    slices = (n_rows, blocks(u.shape[2], tile.width), *B.shape[1:])
    shapes = (u.shape, u.shape, (n_rows, *A.shape), slices, slices, (n_rows, *D.shape), z.shape, h0.shape)
    made = [u.new_empty(shape) for shape in shapes]
    given = (u, delta, A, B, C, D, z, marks, saved, grad_y, grad_last)
    backward_launch((*given, *made), held).run()
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_z, grad_h0 = made
    return [grad_u, grad_delta, grad_A.sum(0), grad_B.sum(1), grad_C.sum(1), grad_skip.sum(0), grad_z, grad_h0]

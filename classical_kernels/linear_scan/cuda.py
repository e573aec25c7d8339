"""The linear recurrence on CUDA tensors: the operators of `classical_kernels.linear_scan.cpu`, run by Triton kernels.

Axes: B batch, L sequence, N channels (all state axes flattened); T steps of a tile, W channels of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classical_kernels.launch import Launch, blocks, dense
from classical_kernels.linear_scan.cpu import _scan_backward, scan_channels

_LANES = 1 << 16
_SHORT = 16
_TILE = {  # steps of a tile, so few that no registers spill, as compiled for compute capabilities 8.0 to 10.0
    torch.bfloat16: 16, torch.float16: 16, torch.float32: 64, torch.float64: 16, torch.complex64: 32,
    torch.complex128: 16,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How a kernel walks: step by step or by tiles of `steps` steps; `width` channels a program."""

    by_steps: bool
    steps: int
    width: int

    @property
    def stages(self) -> int:
        """Steps or tiles under way, the one computed included: about as many bytes for short tiles as for long ones."""
        return 8 if self.by_steps else 2 + 64 // self.steps


def plan(shape: Sequence[int], dtype: torch.dtype) -> Plan:
    """The rule that picks the kernel for operands (batch, seq, channels): many channels or few steps go step by step.

    A step moves a few bytes a channel, of which a GPU wants megabytes under way. Step by step, with 8 steps fetched
    ahead, that takes about 2**16 channels (batch times channels). With fewer, and 16 steps or more, tiles of 16 to 64
    steps are fetched ahead, at the price of an associative scan of each in registers. A row of a tile is one line of
    128 bytes, a step 512 bytes, 16 for each thread of a warp. Reasoned from latencies and sizes, not measured.

    >>> plan((4, 4096, 512), torch.float32)
    Plan(by_steps=False, steps=64, width=32)
    >>> plan((64, 4096, 1024), torch.bfloat16).by_steps, plan((4, 8, 512), torch.float32).by_steps
    (True, True)
    """
    batch, seq_len, n_channels = shape
    if batch * n_channels >= _LANES or seq_len < _SHORT:
        return Plan(True, 1, 512 // dtype.itemsize)
    return Plan(False, _TILE[dtype], 128 // dtype.itemsize)


def forward_launch(operands: tuple[Tensor, ...], reverse: bool, how: Plan) -> Launch:
    """The call that writes h and h_last, the last two of the operands a, b, h0, marks, h, h_last.

    >>> row, state, marks = torch.ones(2, 40, 3), torch.ones(2, 3), torch.empty(0, dtype=torch.uint8)
    >>> call = forward_launch((row, row, state, marks, row, state), False, plan(row.shape, row.dtype))
    >>> call.kernel, call.programs
    ('forward_tiles', 2)
    """
    return _launch("forward", operands, operands[3], reverse, how)


def backward_launch(operands: tuple[Tensor, ...], reverse: bool, how: Plan) -> Launch:
    """The call that writes the last three of a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0.

    >>> row, state, marks = torch.ones(2, 4, 3), torch.ones(2, 3), torch.empty(0, dtype=torch.uint8)
    >>> operands = (row, state, marks, row, row, state, row, row, state)
    >>> backward_launch(operands, False, plan(row.shape, row.dtype)).kernel
    'backward_steps'
    """
    return _launch("backward", operands, operands[2], reverse, how)


def _launch(direction: str, operands: tuple[Tensor, ...], marks: Tensor, reverse: bool, how: Plan) -> Launch:
    batch, seq_len, n_channels = operands[0].shape
    constants: dict[str, bool | int] = {"REVERSE": reverse, "COMPLEX": operands[0].is_complex()}
    constants |= {"MARKED": marks.numel() > 0, "W": how.width, "STAGES": how.stages}
    if not how.by_steps:
        constants["T"] = how.steps
    return Launch(
        family="linear_scan",
        kernel=f"{direction}_{'steps' if how.by_steps else 'tiles'}",
        programs=batch * blocks(n_channels, how.width),
        operands=(*(dense(operand) for operand in operands), seq_len, n_channels),
        constants=constants,
        num_warps=1 if how.by_steps else 4,
    )


@scan_channels.register_kernel("cuda")
def scan_cuda(a: Tensor, b: Tensor, h0: Tensor, marks: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """`classical_kernels.linear_scan.cpu.scan_channels` by Triton kernels.

    Raises ImportError where the package triton is missing. (On CPU tensors it runs in Triton's interpreter.)
    """
    h, h_last = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (b, h0))
    forward_launch((a, b, h0, marks, h, h_last), reverse, plan(a.shape, a.dtype)).run()
    return h, h_last


@_scan_backward.register_kernel("cuda")
def scan_backward_cuda(
    a: Tensor, h0: Tensor, marks: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `scan_cuda`, by the same rule."""
    grad_a, grad_b, grad_h0 = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (a, a, h0))
    operands = (a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0)
    backward_launch(operands, reverse, plan(a.shape, a.dtype)).run()
    return grad_a, grad_b, grad_h0

"""The causal convolution on CUDA tensors: the operators of `classical_kernels.convolution.cpu`, by Triton kernels.

Axes: R batch, L sequence, D channels, K taps; T steps and W channels of a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.convolution.cpu import _backward, convolve
from classical_kernels.launch import Launch, blocks, dense

_STEPS = 32
_LINE = 128  # bytes of a row of a tile: one cache line


def tile_for(dtype: torch.dtype) -> tuple[int, int]:
    """Steps and channels of a program: 32 rows of one cache line each.

    >>> tile_for(torch.float32)
    (32, 32)
    """
    return _STEPS, _LINE // dtype.itemsize


def forward_launch(operands: tuple[Tensor, ...]) -> Launch:
    """The call that writes y, the last of x, weight, bias, state, since, y; weight is (K, D).

    >>> row = torch.ones(2, 40, 3)
    >>> operands = (row, row[0, :4], row[0, 0], row[:, :3], torch.empty(0, dtype=torch.int64), row)
    >>> call = forward_launch(operands)
    >>> call.programs, call.constants["K"]
    (4, 4)
    """
    return _launch("forward_tiles", operands, operands[4])


def backward_launch(operands: tuple[Tensor, ...]) -> Launch:
    """The call for the gradient; operands as those of the kernel `backward_tiles`, without L and D.

    >>> row = torch.ones(2, 40, 3)
    >>> operands = (row, row[0, :4], row[:, :3], torch.empty(0, dtype=torch.int64), *(row,) * 5)
    >>> backward_launch(operands).kernel
    'backward_tiles'
    """
    return _launch("backward_tiles", operands, operands[3])


def _launch(kernel: str, operands: tuple[Tensor, ...], since: Tensor) -> Launch:
    x, weight = operands[:2]
    batch, seq_len, n_channels = x.shape
    steps, width = tile_for(x.dtype)
    return Launch(
        family="convolution",
        kernel=kernel,
        programs=batch * blocks(seq_len, steps) * blocks(n_channels, width),
        operands=(*(dense(operand) for operand in operands), seq_len, n_channels),
        constants={"K": weight.shape[0], "MARKED": since.numel() > 0, "T": steps, "W": width},
        num_warps=2,
    )


@convolve.register_kernel("cuda")
def convolve_cuda(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, since: Tensor) -> Tensor:
    """`classical_kernels.convolution.cpu.convolve` by a Triton kernel.

    Raises ImportError where the package triton is missing. (On CPU tensors it runs in Triton's interpreter.)
    """
    y = x.new_empty(x.shape)
    forward_launch((x, weight, bias, state, since, y)).run()
    return y


@_backward.register_kernel("cuda")
def convolve_backward_cuda(
    x: Tensor, weight: Tensor, state: Tensor, since: Tensor, grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradient of `convolve_cuda`, for x, weight, bias and state."""
    tiles = x.shape[0] * blocks(x.shape[1], tile_for(x.dtype)[0])
    grad_x, grad_state = x.new_empty(x.shape), state.new_zeros(state.shape)  # without steps no program writes it
    grad_weight, grad_bias = x.new_empty(tiles, *weight.shape), x.new_empty(tiles, x.shape[2])
    backward_launch((x, weight, state, since, grad_y, grad_x, grad_weight, grad_bias, grad_state)).run()
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_state

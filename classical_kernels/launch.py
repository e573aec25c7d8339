"""Calls of Triton kernels as values: the same record is launched on a GPU, interpreted without one, or compiled ahead.

Triton is imported at the first launch, by the modules named `triton_kernels` alone.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """One call of a kernel: `programs` programs of `32 num_warps` threads on `operands`, in the kernel's order.

    `family` is the folder of the kernel's module, `constants` its compile-time parameters. Tensors are contiguous, and
    so are complex ones, which a kernel sees as pairs of real numbers.

    >>> Launch("linear_scan", "forward_steps", programs=0, operands=(torch.ones(1), 1)).run()
    """

    family: str
    kernel: str
    programs: int
    operands: tuple[Tensor | int, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4

    def function(self) -> Any:
        """The kernel; raises ImportError where the package triton is missing."""
        try:
            return getattr(importlib.import_module(f"classical_kernels.{self.family}.triton_kernels"), self.kernel)
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            raise ImportError(
                "kernels for CUDA tensors expect the package 'triton', which is missing; "
                "pip install 'hybridqlm[triton]'."
            ) from error

    def run(self) -> None:
        """Launch it on the device of its operands, in the current stream; no program, no launch."""
        if not self.programs:
            return
        device = next(one.device for one in self.operands if isinstance(one, Tensor))
        where = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        with where:
            self.function()[(self.programs,)](
                *self.operands, **self.constants, num_warps=self.num_warps, enable_fp_fusion=True
            )


def dense(tensor: Tensor) -> Tensor:
    """The tensor as kernels read it: contiguous, a copy where it was not; complex numbers as pairs of real ones.

    >>> dense(torch.tensor([1 + 2j])).tolist()
    [[1.0, 2.0]]
    """
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def blocks(total: int, width: int) -> int:
    """How many blocks of `width` cover `total`.

    >>> blocks(5, 2), blocks(0, 2)
    (3, 0)
    """
    return math.ceil(total / width)

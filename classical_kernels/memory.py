"""Memory for large results: fresh tensors that do not cost more than what is written to them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LARGE = 1 << 22  # bytes; from about there on, glibc maps memory anew for each allocation and unmaps it when freed
_PAGE = 1 << 21  # a huge page of x86-64, and of arm64 with pages of 4 KiB


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised CPU tensor; on Linux a large one asks for huge pages.

    The first touch of fresh memory faults once a page: at 4 KiB that costs several times what a scan does with the
    page, at 2 MiB next to nothing. It is a hint on this tensor's memory alone, changes no setting of the process, and a
    kernel whose huge pages are off ignores it. (`THP_MEM_ALLOC_ENABLE=1` makes PyTorch do the same for every large
    tensor.) Cost: one system call.

    >>> fresh((2, 3), torch.float64).shape
    torch.Size([2, 3])
    """
    tensor = torch.empty(tuple(shape), dtype=dtype)
    size = tensor.numel() * tensor.element_size()
    if size >= _LARGE and _MADVISE is not None:
        first = -(-tensor.data_ptr() // _PAGE) * _PAGE
        last = (tensor.data_ptr() + size) // _PAGE * _PAGE
        if last > first:
            _MADVISE(first, last - first, mmap.MADV_HUGEPAGE)
    return tensor


def flat_array(tensor: Tensor):
    """The elements of a contiguous tensor as a flat numpy array that shares its memory; a copy of another one.

    numpy has no bfloat16, and numba computes with no float16: these come as their bits, bfloat16 as uint16 and float16
    as int16, the types by which `classical_kernels.storage` tells them apart.

    >>> flat_array(torch.ones(2, 1, dtype=torch.bfloat16))
    array([16256, 16256], dtype=uint16)
    """
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    bits = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}.get(tensor.dtype)
    return (tensor if bits is None else tensor.view(bits)).numpy()


def _system_call():
    """`madvise`, where there are huge pages to ask for."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


_MADVISE = _system_call()

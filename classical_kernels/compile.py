"""Compiles the kernels ahead of their first use: ``python -m classical_kernels.compile``."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from classical_kernels import causal_convolution, scan, selective_scan

PRECISIONS = ("float32", "bfloat16")
"""What models train in. Others compile at their first use, in seconds, and are kept as well."""


def compile_kernels(precision: str) -> None:
    """Run each kernel and its gradient once on two steps; numba keeps what that compiles.

    It lies beside the source or in ``NUMBA_CACHE_DIR``: a second call takes a second. The selective scan and the
    convolution run in float32 and float64 alone, the linear scan in every precision of `classical_kernels.scan`. Raises
    AttributeError for a name that is no dtype.
    """
    dtype = getattr(torch, precision)
    row = torch.zeros(1, 2, 1, dtype=dtype, requires_grad=True)
    scan(row, row)[0].sum().backward()
    if dtype not in (torch.float32, torch.float64):
        return
    parameter = torch.zeros(1, 1, dtype=dtype, requires_grad=True)
    selective_scan(row, row, parameter, row, row)[0].sum().backward()
    causal_convolution(row, parameter)[0].sum().backward()


def compile_all() -> None:
    """Compile for all of `PRECISIONS`, each in a process of its own."""
    with ProcessPoolExecutor(len(PRECISIONS), get_context("spawn")) as pool:
        list(pool.map(compile_kernels, PRECISIONS))


def main() -> None:
    """Compile all, and say how long it took."""
    print("Compiling the recurrences for this machine, once ...", flush=True)
    started = time.perf_counter()
    compile_all()
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()

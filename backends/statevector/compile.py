"""Compiles the kernels ahead of their first use: ``python -m backends.statevector.compile``."""

import time

import torch

from backends.statevector.backend import Statevector
from circuits import Z
from circuits.library import reuploading


def compile_kernels() -> float:
    """Run a small circuit and its gradient in both precisions; return the seconds that took.

    numba keeps what it compiles beside the source, or in ``NUMBA_CACHE_DIR``: a second call takes a second.
    """
    started = time.perf_counter()
    circuit = reuploading(2, 1)
    for dtype in (torch.float32, torch.float64):
        weights = torch.zeros(circuit.n_weights, dtype=dtype, requires_grad=True)
        Statevector().expectations(circuit, torch.zeros(1, 2, dtype=dtype), weights, (Z(0),)).values.sum().backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    print("Compiling the state-vector kernels for this machine, once ...", flush=True)
    print(f"Done in {compile_kernels():.0f} s.")

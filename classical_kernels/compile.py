"""Compiles the kernels ahead of their first use: ``python -m classical_kernels.compile``."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from classical_kernels import causal_convolution, scan, selective_scan
from classical_kernels.token_steps.cpu import HarmonicWeights, advance, convolve, normalise, step_harmonic

PRECISIONS = ("float32", "bfloat16")
"""What models train in. Others compile at their first use, in seconds, and are kept as well."""


def compile_kernels(precision: str) -> None:
    """Run each kernel and its gradient once on two steps; numba keeps what that compiles.

    It lies beside the source or in ``NUMBA_CACHE_DIR``: a second call takes a second. The selective scan, the
    convolution and the steps of one token run in float32 and float64 alone, the linear scan in every precision of
    `classical_kernels.scan`. Raises
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
    with torch.no_grad():
        _compile_token_steps(dtype)


def _compile_token_steps(dtype: torch.dtype) -> None:
    one = torch.ones(1, 1, 1, dtype=dtype)
    vector, matrix, pair = one[0, 0], one[0], one.expand(1, 1, 2).contiguous()
    normalise(one, vector, 1e-6)
    convolve(one, one, vector, one[:, :0])
    advance(one, pair, matrix[:0], one)
    weights = HarmonicWeights(vector, one, vector, pair[0].mT.contiguous(), matrix, vector, matrix[:0], matrix)
    step_harmonic(one, weights, 1e-6, one, one[:, :0])


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

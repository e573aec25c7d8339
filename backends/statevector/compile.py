"""Compiles the kernels ahead of their first use: ``python -m backends.statevector.compile``."""

import logging
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from backends.statevector import wide
from backends.statevector.backend import Statevector
from circuits import Z
from circuits.library import angle_encoding, reuploading

PRECISIONS = ("float32", "float64")


def compile_kernels(precision: str) -> None:
    """Run small circuits and their gradients, as a batch and one by one; numba keeps what that compiles.

    It lies beside the source or in ``NUMBA_CACHE_DIR``: a second call takes a second. Raises AttributeError for another
    precision than float32 and float64.
    """
    logging.getLogger("backends").setLevel(logging.ERROR)  # whoever compiles on purpose needs no word that it happens
    circuit, dtype = reuploading(2, 1), getattr(torch, precision)
    weights = torch.zeros(circuit.n_weights, dtype=dtype, requires_grad=True)
    Statevector().expectations(circuit, torch.zeros(1, 2, dtype=dtype), weights, (Z(0),)).values.sum().backward()
    angles = torch.zeros(1, 9, dtype=dtype, requires_grad=True)
    wide.expectations(angle_encoding(9), angles, (Z(0),), row_bits=5).sum().backward()


def main() -> None:
    """Compile both precisions, each in a process of its own."""
    print("Compiling the state-vector kernels for this machine, once ...", flush=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(len(PRECISIONS), get_context("spawn")) as pool:
        list(pool.map(compile_kernels, PRECISIONS))
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()

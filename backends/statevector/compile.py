"""Compiles the kernels ahead of their first use: ``python -m backends.statevector.compile [--large]``."""

import argparse
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
    """Run a small circuit and its gradient; numba keeps what that compiles.

    It lies beside the source or in ``NUMBA_CACHE_DIR``: a second call takes a second. Raises AttributeError for another
    precision than float32 and float64.
    """
    _be_quiet()
    circuit, dtype = reuploading(2, 1), getattr(torch, precision)
    weights = torch.zeros(circuit.n_weights, dtype=dtype, requires_grad=True)
    Statevector().expectations(circuit, torch.zeros(1, 2, dtype=dtype), weights, (Z(0),)).values.sum().backward()


def compile_large(precision: str) -> None:
    """Do the same for circuits of 14 wires and more, which run on kernels of their own."""
    _be_quiet()
    angles = torch.zeros(1, 9, dtype=getattr(torch, precision), requires_grad=True)
    wide.expectations(angle_encoding(9), angles, (Z(0),), row_bits=5).sum().backward()


def _be_quiet() -> None:
    """Whoever compiles on purpose needs no word that it happens."""
    logging.getLogger("backends").setLevel(logging.ERROR)


def main() -> None:
    """Compile both precisions, each in a process of its own."""
    parser = argparse.ArgumentParser(description="Compile the state-vector kernels for this machine.")
    parser.add_argument("--large", action="store_true", help="those of circuits of 14 wires and more instead")
    task, what = (compile_large, "large circuits") if parser.parse_args().large else (compile_kernels, "circuits")
    print(f"Compiling the state-vector kernels of {what} for this machine, once ...", flush=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(len(PRECISIONS), get_context("spawn")) as pool:
        list(pool.map(task, PRECISIONS))
    print(f"Done in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()

"""Threads for compiled kernels: Python threads over kernels that release the GIL.

numba's own `prange` is not an option: its OpenMP layer kills a forked child, its workqueue layer aborts when two
threads call it at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import torch

_WORK_PER_THREAD = 1 << 15  # element updates, some tens of microseconds: about what a hand-over costs


class _Workers:
    """A thread pool made at first use, and made anew in a forked child, which inherits no threads."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="classical_kernels")
            return self._pool


_WORKERS = _Workers()


def thread_count(work: int) -> int:
    """How many threads `work` element updates are worth: at most `torch.get_num_threads()`, at least 1.

    >>> thread_count(10)
    1
    """
    return max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD))


def run_blocks(task: Callable[[int, int], object], n_blocks: int, n_threads: int) -> None:
    """Call `task(first, last)` on ranges that together cover `range(n_blocks)` once, on up to `n_threads` threads.

    The calling thread takes the first range, and then every range that no worker has begun, so that calls from many
    threads, or from within a task, cannot wait for each other in a circle. Kernels must release the GIL to gain from
    it. Returns when all is done; an error of a task is raised once every range that was begun has ended.

    >>> covered = []
    >>> run_blocks(lambda first, last: covered.extend(range(first, last)), n_blocks=5, n_threads=2)
    >>> sorted(covered)
    [0, 1, 2, 3, 4]
    """
    n_ranges = min(n_threads, n_blocks)
    if n_ranges <= 1:
        task(0, n_blocks)
        return
    ranges = list(pairwise(n_blocks * k // n_ranges for k in range(n_ranges + 1)))
    pool = _WORKERS.pool()
    futures = [pool.submit(task, *span) for span in ranges[1:]]
    try:
        task(*ranges[0])
        for future, span in zip(futures, ranges[1:], strict=True):
            if future.cancel():
                task(*span)
    finally:  # no worker may write to the caller's arrays after the return, not even after an error
        wait([future for future in futures if not future.cancel()])
    for future in futures:
        if not future.cancelled():
            future.result()

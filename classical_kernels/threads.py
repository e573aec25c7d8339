"""Threads for compiled kernels: Python threads over kernels that release the GIL.

numba's own `prange` is not an option: its OpenMP layer kills a forked child, its workqueue layer aborts when two
threads call it at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

_WORK_PER_THREAD = 1 << 15  # element updates, some tens of microseconds: about what a hand-over costs
_RANGES_PER_THREAD = 4


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

    Each thread takes the next range when it is free, the calling one from the start: a worker that wakes late, or whose
    core is wanted elsewhere, takes fewer. Who has not begun when nothing is left is called off, so that calls from many
    threads, or from within a task, cannot wait for each other in a circle. Kernels must release the GIL to gain from
    it. Returns when all is done; after an error of a task no range is begun any more, and it is raised once those that
    were begun have ended.

    >>> covered = []
    >>> run_blocks(lambda first, last: covered.extend(range(first, last)), n_blocks=5, n_threads=2)
    >>> sorted(covered)
    [0, 1, 2, 3, 4]
    """
    if min(n_threads, n_blocks) <= 1:
        task(0, n_blocks)
        return
    n_ranges = min(n_threads * _RANGES_PER_THREAD, n_blocks)
    ranges = iter([(n_blocks * k // n_ranges, n_blocks * (k + 1) // n_ranges) for k in range(n_ranges)])

    def work() -> None:
        try:
            for first, last in ranges:  # a list's iterator hands each of its items to one thread
                task(first, last)
        except BaseException:
            for _ in ranges:
                pass
            raise

    pool = _WORKERS.pool()
    futures = [pool.submit(work) for _ in range(min(n_threads, n_blocks) - 1)]
    try:
        work()
    finally:  # no worker may write to the caller's arrays after the return, not even after an error
        wait([future for future in futures if not future.cancel()])
    for future in futures:
        if not future.cancelled():
            future.result()

"""How many threads torch uses, decided where a program starts."""

import os

_MOST = 8
"""Small models gain nothing from more threads."""


def available_cores() -> int:
    """Return the number of cores that this process may run on.

    >>> available_cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(share: int = 1) -> int:
    """Let torch use the cores that this process may run on, split evenly among ``share`` processes; at least one.

    OMP_NUM_THREADS takes precedence. Returns the number of threads.

    >>> use_cores() >= 1
    True
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(_MOST, available_cores()) // share))
    return torch.get_num_threads()

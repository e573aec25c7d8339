"""How many threads torch uses, decided where a program starts."""

import os


def use_all_cores(most: int = 8) -> int:
    """Let torch use the cores that this process may run on, up to ``most``; OMP_NUM_THREADS takes precedence.

    Returns the number of threads. Small models gain nothing from more.

    >>> 1 <= use_all_cores(2)
    True
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(min(most, allowed))
    return torch.get_num_threads()

"""What a tensor-network run costs, known before it runs."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Cost:
    """The price of a run: real floating-point operations, the most bytes held at once, and the largest bond dimension.

    ``flops`` is of one sample for a matrix product state, of the whole batch for a contraction. ``bond`` is 2 for a
    contraction, whose bonds are wires.

    >>> Cost(1e9, 2**20, 64).bond
    64
    """

    flops: float
    peak_bytes: int
    bond: int


def require_fit(cost: Cost, memory_limit: int | None, spec: str, remedy: str) -> None:
    """Raise ValueError where a run needs more bytes than the limit (None: than this machine has available now).

    >>> require_fit(Cost(1.0, 10, 2), 9, "quimb", "use fewer wires")
    Traceback (most recent call last):
    ValueError: backend 'quimb' expects runs within 9 bytes, got one of 10 bytes; use fewer wires or raise memory_limit.
    """
    limit = psutil.virtual_memory().available if memory_limit is None else memory_limit
    if cost.peak_bytes > limit:
        raise ValueError(
            f"backend '{spec}' expects runs within {limit} bytes, got one of {cost.peak_bytes} bytes; {remedy} or "
            "raise memory_limit."
        )


def check_memory_limit(kind: str, memory_limit: object) -> None:
    """Raise ValueError unless a memory limit is None or a positive number of bytes."""
    is_count = isinstance(memory_limit, int) and not isinstance(memory_limit, bool) and memory_limit > 0
    if not (memory_limit is None or is_count):
        raise ValueError(
            f"backend '{kind}' expects memory_limit in bytes or None (what is available), got {memory_limit!r}; pass a "
            "positive integer."
        )

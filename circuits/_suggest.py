"""One sentence for a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: what came, the nearest known name, and what is known.

    >>> unknown("gate", "hadamrd", ("hadamard", "cnot"))
    "unknown gate 'hadamrd': did you mean 'hadamard'? Known: cnot, hadamard."
    """
    options = sorted(known)
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{name}':{hint} Known: {', '.join(options)}."

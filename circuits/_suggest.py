"""One sentence for a mistyped name."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: what came, the nearest known name, and what is known, if anything.

    >>> unknown("gate", "hadamrd", ("hadamard", "cnot"))
    "unknown gate 'hadamrd': did you mean 'hadamard'? Known: cnot, hadamard."
    """
    options = sorted(known)
    if not options:
        return f"unknown {kind} '{name}': it takes none; leave it out."
    return f"unknown {kind} '{name}':{nearest(name, options)} Known: {', '.join(options)}."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` did you mean '...'?``, or nothing where no known name is near.

    >>> nearest("HADAMARD", ("hadamard", "cnot")), nearest("q", ("hadamard", "cnot"))
    (" did you mean 'hadamard'?", '')
    """
    lower = {option.lower(): option for option in sorted(known, reverse=True)}  # case is the smallest of typos
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=1, cutoff=0.5)]
    return f" did you mean '{near[0]}'?" if near else ""

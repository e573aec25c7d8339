"""Diagonal unitaries without ancillas: every phase function is a sum of parities."""

from collections.abc import Iterable
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.library.gray_code import gray_codes, parity_rotations, walsh
from circuits.slots import Slot, as_slot, scaled

MAX_WIRES = 12
"""Wires of a diagonal: without ancillas it takes up to 2**n - 1 rotations and as many CNOTs."""


def diagonal(phases: Any, scale: Slot = 1.0) -> Circuit:
    """Return ``diag(exp(i scale f(x)))`` exactly, global phase included, for ``phases`` f(x), (2**n,), radians.

    ``f = sum_S c_S (-1)**(S.x)`` with ``c_S = 2**-n sum_x f(x) (-1)**(S.x)``: one RZ(-2 scale c_S) on each parity S
    between CNOTs, parities in Gray-code order, those with c_S = 0 left out. ``scale``: a number, or a slot such as
    ``Weight(0)``, which scales all phases. Raises ValueError unless f has 2 to 2**12 finite entries, a power of two of
    them. At most 2**n - 1 rotations and 2**n - 2 CNOTs. Welch, Greenbaum, Mostame, Aspuru-Guzik 2014, New J. Phys. 16,
    033040, sections 2 and 3.

    >>> print(diagonal([0.0, 0.0, 0.0, 1.0]).draw())
    0: ─┤RZ(0.5)├─●────────────●─
                  │            │
    1: ─┤RZ(0.5)├─⊕─┤RZ(-0.5)├─⊕─
    <BLANKLINE>
    global phase: 0.25
    """
    values = np.asarray(phases, dtype=float)
    n_wires = values.size.bit_length() - 1
    if values.ndim != 1 or not 1 <= n_wires <= MAX_WIRES or values.size != 1 << n_wires:
        raise ValueError(
            f"diagonal expects 2**n phases for n = 1 to {MAX_WIRES} wires, got shape {values.shape}; give one for each "
            "basis state, or split the gate with ancilla wires."
        )
    if not np.isfinite(values).all():
        raise ValueError("diagonal expects finite phases in radians, got NaN or infinity; drop it.")
    scale = as_slot(scale)
    coefficients = walsh(values) / values.size
    ops: list[Op] = []
    for target in range(n_wires):
        below = n_wires - 1 - target  # wires after the target, which its parities leave out
        masks = (gray_codes(target) << (below + 1)) | (1 << below)
        slots = [scaled(scale, -2.0 * float(c)) if c else 0.0 for c in coefficients[masks]]
        ops += parity_rotations("rz", tuple(range(target)), target, slots)
    return Circuit(n_wires, tuple(ops), (scaled(scale, float(coefficients[0])),))


def phase_on(n_wires: int, accepted: Iterable[int], phase: Slot) -> Circuit:
    """Return ``exp(i phase P)``, P the projector on the basis states in ``accepted``; see ``diagonal`` for its cost.

    Raises ValueError for more than 12 wires, IndexError for a state outside 0 ... 2**n - 1.

    >>> phase_on(2, {2, 3}, 3.0).ops
    (Op('rz', (0,), (3.0,)),)
    """
    n_wires = checked_width("phase_on", n_wires)
    return diagonal(indicator("phase_on", n_wires, accepted), phase)


def checked_width(owner: str, n_wires: int) -> int:
    """Return the number of wires of a circuit that holds a diagonal; ValueError above 12.

    >>> checked_width("grover", 3)
    3
    """
    n_wires = integer(owner, "n_wires", n_wires, 1)
    if n_wires > MAX_WIRES:
        raise ValueError(
            f"{owner} expects at most {MAX_WIRES} wires, got {n_wires}: a sign pattern without ancillas takes 2**n "
            "rotations; keep fewer states."
        )
    return n_wires


def indicator(owner: str, n_wires: int, accepted: Iterable[int]) -> NDArray[np.float64]:
    """Return 1 at the accepted basis states and 0 elsewhere, (2**n,); TypeError or IndexError for what is no state.

    >>> indicator("grover", 2, {1}).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    chosen = np.zeros(1 << n_wires)
    try:
        states = iter(accepted)
    except TypeError:
        raise TypeError(
            f"{owner} expects a collection of basis states, got {accepted!r}; put a single one into braces."
        ) from None
    for state in states:
        if isinstance(state, bool | np.bool_):
            raise TypeError(f"{owner} expects indices of basis states, got {state!r}; list the accepted ones.")
        try:
            position = index(state)
        except TypeError:
            raise TypeError(f"{owner} expects integer basis states, got {state!r}; number them from 0.") from None
        if not 0 <= position < len(chosen):
            raise IndexError(f"{owner} expects basis states 0 to {len(chosen) - 1}, got {position}; leave it out.")
        chosen[position] = 1
    return chosen

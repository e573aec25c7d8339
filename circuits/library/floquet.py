"""Periodically driven chains: the kicked Ising model, whose localised phase is a discrete time crystal."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.slots import Input, Product, Slot, Weight, as_slot, scaled


def kicked_ising(
    n_wires: int, periods: int, g: Any = None, phi: Any = None, h: Any = None, initial: str | None = None
) -> Circuit:
    """Return ``periods`` periods of the kicked Ising chain, after X gates where ``initial`` has a 1.

    One period, the kick first: ``U_F = prod_i exp(-i h_i Z_i / 2) . prod_i exp(-i phi_i Z_i Z_{i+1} / 4) . prod_i
    exp(-i pi g X_i / 2)``, exactly ``rx(pi g)`` on each wire, ``rzz(phi_i / 2)`` on neighbours, ``rz(h_i)`` on each.
    g = 1 is a full flip; phi (n - 1) and h (n) are in radians. Each is a number (for all places), a sequence (not g), a
    slot such as ``Weight(0)``, or None: Inputs in the order g, phi, h, so that a disorder ensemble is one batch.
    ``initial``: a string of n bits, wire 0 first; None: all 0. ``period_ends`` tells where each period ends. Raises
    ValueError or TypeError for a wrong length, a string that is not n bits, or what is no angle.

    Khemani, Lazarides, Moessner, Sondhi 2016, Phys. Rev. Lett. 116, 250401; in this form Mi et al. 2022, Nature 601,
    531, equation 1.

    >>> print(kicked_ising(3, 1, phi=-math.pi, h=0.5, initial="010").draw())
    0: ─┤RX(π·x0)├────────────┤RZZ(-π/2)├──┤RZ(0.5)├────────────
                                   │
    1: ────┤X├─────┤RX(π·x0)├─┤   RZZ   ├─┤RZZ(-π/2)├─┤RZ(0.5)├─
                                               │
    2: ─┤RX(π·x0)├────────────────────────┤   RZZ   ├─┤RZ(0.5)├─
    """
    n_wires = integer("kicked_ising", "n_wires", n_wires, 1)
    periods = integer("kicked_ising", "periods", periods, 0)
    bits = checked_initial("kicked_ising", n_wires, initial)
    flips = (Op("x", (wire,)) for wire, bit in enumerate(bits) if bit == "1")
    count, chosen = 0, []
    for name, value, size in (("g", g, 1), ("phi", phi, n_wires - 1), ("h", h, n_wires)):
        if value is None:
            chosen.append(tuple(Input(count + k) for k in range(size)))
            count += size
        else:
            chosen.append(_slots(name, value, size))
    (kick,), couplings, fields = chosen
    period = [Op("rx", (wire,), (scaled(kick, math.pi),)) for wire in range(n_wires)]
    pairs = [Op("rzz", (wire, wire + 1), (scaled(slot, 0.5),)) for wire, slot in enumerate(couplings)]
    period += pairs[::2] + pairs[1::2]  # they commute: in two layers the depth does not grow with n
    period += [Op("rz", (wire,), (slot,)) for wire, slot in enumerate(fields)]
    return Circuit(n_wires, (*flips, *(period * periods)))


def period_ends(circuit: Circuit) -> tuple[int, ...]:
    """Return the number of ops after 0, 1, 2, ... periods of a ``kicked_ising`` circuit: what ``after=`` takes.

    Entry t is ``ones + t (3 n - 1)``, with the number of ones in ``initial``. Raises ValueError for another circuit.

    >>> period_ends(kicked_ising(3, 2, initial="010"))
    (1, 9, 17)
    """
    n_wires, names = circuit.n_wires, [op.name for op in circuit.ops]
    prepared = next((k for k, name in enumerate(names) if name != "x"), len(names))
    period = ["rx"] * n_wires + ["rzz"] * (n_wires - 1) + ["rz"] * n_wires
    periods = (len(names) - prepared) // len(period)
    if names[prepared:] != period * periods:
        raise ValueError("period_ends expects a circuit made by kicked_ising, got another; count its ops yourself.")
    return tuple(prepared + t * len(period) for t in range(periods + 1))


def checked_initial(owner: str, n_wires: int, initial: str | None) -> str:
    """Return the bit string, all 0 for None; TypeError for no string, ValueError for one that is not n bits.

    >>> checked_initial("kicked_ising", 3, None)
    '000'
    """
    if initial is None:
        return "0" * n_wires
    if not isinstance(initial, str):
        raise TypeError(f"{owner} expects initial as a string of bits, got {initial!r}; write '0101'.")
    if len(initial) != n_wires or set(initial) - {"0", "1"}:
        raise ValueError(f"{owner} expects initial of {n_wires} bits, got {initial!r}; give one 0 or 1 per wire.")
    return initial


def _slots(name: str, value: Any, size: int) -> tuple[Slot, ...]:
    """One slot for each place."""
    if getattr(value, "requires_grad", False):
        raise TypeError(
            f"kicked_ising expects {name} as numbers, got a tensor that requires a gradient; leave {name} out and pass "
            "it as inputs, or write Weight(k)."
        )
    plain = value.tolist() if hasattr(value, "tolist") else value  # a tensor or an array
    if isinstance(plain, Real | Input | Weight | Product):
        return (as_slot(plain),) * size
    if name == "g" or not isinstance(plain, Iterable) or isinstance(plain, str):
        places = "one number" if name == "g" else f"a number or a sequence of {size}"
        raise TypeError(f"kicked_ising expects {name} as {places}, got {value!r}; leave it out to make it an Input.")
    slots = tuple(as_slot(part) for part in plain)
    if len(slots) != size:
        raise ValueError(f"kicked_ising expects {size} values of {name}, got {len(slots)}; give one per place.")
    return slots

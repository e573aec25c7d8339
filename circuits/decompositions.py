"""Composite gates as primitive ones, so that every angle has a single Pauli-word generator.

Each entry returns (name, wires, slots) triples in program order and equals its gate exactly, global phase included.
A multi-controlled diagonal gate is a phase polynomial over the parities of its wires (Welch et al. 2014, New J. Phys.
16, 033040, section 3), walked in Gray-code order: 2**k parities, each one rotation between CNOTs, without ancillas.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from circuits.slots import Slot, scaled

Part = tuple[str, tuple[int, ...], tuple[Slot, ...]]
Parts = tuple[Part, ...]
MAX_CONTROLS = 11


@dataclass(frozen=True, slots=True)
class Composite:
    """A gate that is decomposed when a circuit is built; ``n_wires`` 0 means any number, controls first."""

    n_wires: int
    n_angles: int
    parts: Callable[[tuple[int, ...], tuple[Slot, ...]], Parts]


def _gray(controls: tuple[int, ...], target: int) -> list[tuple[int, int]]:
    """(parity size, control to toggle first) over all subsets of controls, in Gray-code order; target: toggle none."""
    steps: list[tuple[int, int]] = []
    for code in range(1 << len(controls)):
        flip = (code & -code).bit_length() - 1
        steps.append(((code ^ (code >> 1)).bit_count(), controls[flip] if code else target))
    return steps


def _parity_walk(name: str, controls: tuple[int, ...], target: int, slot: Slot) -> Parts:
    """Rotations ``name`` by (-1)**|S| slot / 2**k on the parity of S and the target, S over all control subsets."""
    size = 1 << len(controls)
    parts: list[Part] = []
    for members, toggled in _gray(controls, target):
        if toggled != target:
            parts.append(("cx", (toggled, target), ()))
        parts.append((name, (target,), (scaled(slot, (-1) ** members / size),)))
    if controls:
        parts.append(("cx", (controls[-1], target), ()))
    return tuple(parts)


def _limit(wires: tuple[int, ...]) -> None:
    if len(wires) > MAX_CONTROLS + 1:
        raise ValueError(
            f"a multi-controlled gate expects at most {MAX_CONTROLS} controls, got {len(wires) - 1}: without ancillas "
            "its size doubles with each; split it with ancilla wires."
        )


def _phase(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
    """exp(i t x_1 ... x_k) = product over non-empty S of exp(i t (-1)**(|S|-1) 2**(1-k) parity(S))."""
    _limit(wires)
    parts: Parts = ()
    for count, wire in enumerate(wires):
        parts += _parity_walk("p", wires[:count], wire, scaled(slots[0], 2.0 ** (count + 1 - len(wires))))
    return parts


def _rz(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
    """exp(-i t Z x_1 ... x_k / 2), with x_1 ... x_k = 2**-k sum_S (-1)**|S| Z_S over the controls."""
    _limit(wires)
    return _parity_walk("rz", wires[:-1], wires[-1], slots[0])


_X_BASIS = ("h",), ("h",)  # H Z H = X
_Y_BASIS = ("sdg", "h"), ("h", "s")  # S H Z H S+ = Y


def _in_basis(basis: tuple[tuple[str, ...], tuple[str, ...]], wires: tuple[int, ...], core: Parts) -> Parts:
    """``core`` between basis changes on each of ``wires``."""
    before, after = ([(name, (wire,), ()) for wire in wires for name in names] for names in basis)
    return (*before, *core, *after)


def _rx(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
    return _in_basis(_X_BASIS, wires[-1:], _rz(wires, slots))


def _ry(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
    return _in_basis(_Y_BASIS, wires[-1:], _rz(wires, slots))


def _z(wires: tuple[int, ...], _: tuple[Slot, ...] = ()) -> Parts:
    return _phase(wires, (math.pi,))


def _x(wires: tuple[int, ...], _: tuple[Slot, ...] = ()) -> Parts:
    return _in_basis(_X_BASIS, wires[-1:], _z(wires))


def _y(wires: tuple[int, ...], _: tuple[Slot, ...] = ()) -> Parts:
    return _in_basis(_Y_BASIS, wires[-1:], _z(wires))


def _swap(wires: tuple[int, ...], _: tuple[Slot, ...]) -> Parts:
    a, b = wires[-2:]
    turn: Parts = (("cx", (b, a), ()),)
    return turn + _x(wires) + turn


def _u3(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
    theta, phi, lam = slots
    return ("p", wires, (lam,)), ("ry", wires, (theta,)), ("p", wires, (phi,))


def _ecr(wires: tuple[int, ...], _: tuple[Slot, ...]) -> Parts:
    """(X 1 - Y X) / sqrt(2) = (X 1) exp(-i pi/4 Z X), as in Qiskit and PennyLane."""
    a, b = wires
    rzx = _in_basis(_X_BASIS, (b,), (("rzz", (a, b), (math.pi / 2,)),))
    return (*rzx, ("x", (a,), ()))


def _iswap(wires: tuple[int, ...], _: tuple[Slot, ...]) -> Parts:
    return ("rxx", wires, (-math.pi / 2,)), ("ryy", wires, (-math.pi / 2,))


COMPOSITES: MappingProxyType[str, Composite] = MappingProxyType(
    {
        "u3": Composite(1, 3, _u3),
        "cp": Composite(2, 1, _phase),
        "crx": Composite(2, 1, _rx),
        "cry": Composite(2, 1, _ry),
        "crz": Composite(2, 1, _rz),
        "ccx": Composite(3, 0, _x),
        "cswap": Composite(3, 0, _swap),
        "ecr": Composite(2, 0, _ecr),
        "iswap": Composite(2, 0, _iswap),
    }
)
"""Composite gates with a fixed number of wires."""

MULTI_CONTROLLED: MappingProxyType[str, Composite] = MappingProxyType(
    {
        "mcx": Composite(0, 0, _x),
        "mcy": Composite(0, 0, _y),
        "mcz": Composite(0, 0, _z),
        "mcp": Composite(0, 1, _phase),
        "mcrx": Composite(0, 1, _rx),
        "mcry": Composite(0, 1, _ry),
        "mcrz": Composite(0, 1, _rz),
    }
)
"""Gates with any number of controls (first) and one target (last)."""


def _controlled_fixed_phase(angle: float) -> Callable[[tuple[int, ...], tuple[Slot, ...]], Parts]:
    return lambda wires, _: _phase(wires, (angle,))


def _controlled_sx(sign: float) -> Callable[[tuple[int, ...], tuple[Slot, ...]], Parts]:
    """sqrt(X) = H S H exactly."""
    return lambda wires, _: _in_basis(_X_BASIS, wires[-1:], _phase(wires, (sign * math.pi / 2,)))


def _controlled_ch(wires: tuple[int, ...], _: tuple[Slot, ...]) -> Parts:
    """H = RY(pi/4) Z RY(-pi/4)."""
    target = wires[-1:]
    return (("ry", target, (-math.pi / 4,)), *_z(wires), ("ry", target, (math.pi / 4,)))


def _controlled_pair(*bases: tuple[tuple[str, ...], tuple[str, ...]]) -> Callable[..., Parts]:
    """A controlled two-wire Pauli rotation: rotated to ZZ, whose parity is put on the second wire."""

    def parts(wires: tuple[int, ...], slots: tuple[Slot, ...]) -> Parts:
        a, b = wires[-2:]
        turn: Parts = (("cx", (a, b), ()),)
        core = turn + _rz((*wires[:-2], b), slots) + turn
        return _in_basis(bases[0], (a, b), core) if bases else core

    return parts


def _named(name: str, more: Callable[..., Parts]) -> Callable[..., Parts]:
    """The primitive ``name`` where there is one control, ``more`` where there are several."""
    return lambda wires, slots: ((name, wires, slots),) if len(wires) == 2 else more(wires, slots)


CONTROLLED: MappingProxyType[str, Callable[..., Parts]] = MappingProxyType(
    {
        "id": lambda _wires, _slots: (),
        "rx": _rx,
        "ry": _ry,
        "rz": _rz,
        "p": _phase,
        "h": _named("ch", _controlled_ch),
        "x": _named("cx", _x),
        "y": _named("cy", _y),
        "z": _named("cz", _z),
        "s": _controlled_fixed_phase(math.pi / 2),
        "sdg": _controlled_fixed_phase(-math.pi / 2),
        "t": _controlled_fixed_phase(math.pi / 4),
        "tdg": _controlled_fixed_phase(-math.pi / 4),
        "sx": _controlled_sx(1.0),
        "sxdg": _controlled_sx(-1.0),
        "cx": _x,
        "cy": _y,
        "cz": _z,
        "ch": _controlled_ch,
        "swap": _swap,
        "rxx": _controlled_pair(_X_BASIS),
        "ryy": _controlled_pair(_Y_BASIS),
        "rzz": _controlled_pair(),
    }
)
"""Per primitive gate: its parts under one or more controls, wires (*controls, *gate wires)."""

"""Amplitude loading: a probability distribution as the square of a state's real amplitudes.

Axis legend: n wires, N = 2**n probabilities; ... any leading axes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from circuits._arrays import is_traced, namespace, take
from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.library.gray_code import gray_codes, parity_rotations, walsh
from circuits.slots import Input, Slot

MAX_WIRES = 16
"""Wires of a loaded distribution: it takes 2**n - 1 rotations."""
NORMALISATION = 1e-5
"""How far a distribution's sum may be from 1: float32's rounding of a softmax over 2**16 entries, with room."""
_NOTHING = 1e-30
"""Probabilities below this count as 0: their amplitudes, under 1e-15, are below what double precision resolves beside
1, and their angles' slopes overflow float32."""


def amplitude_loading(n_wires: int) -> Circuit:
    """Return the circuit that loads ``sum_x sqrt(p(x)) |x>`` from ``inputs = loading_angles(p)``: 2**n - 1 Inputs.

    Wire k gets RY(theta_{k,s}) for each state s of the k wires before it, ``tan(theta / 2) = sqrt(p(s1) / p(s0))``.
    Each such multiplexer is 2**k RY and, for k > 0, 2**k CNOTs in Gray-code order; Inputs are numbered in program
    order. Raises ValueError for more than 16 wires. 2**n - 1 RY and 2**n - 2 CNOTs. Mottonen, Vartiainen, Bergholm,
    Salomaa 2005, Quantum Inf. Comput. 5, 467 (arXiv:quant-ph/0407010).

    >>> print(amplitude_loading(2).draw())
    0: ─┤RY(x0)├─●──────────●─
                 │          │
    1: ─┤RY(x1)├─⊕─┤RY(x2)├─⊕─
    """
    n_wires = integer("amplitude_loading", "n_wires", n_wires, 1)
    if n_wires > MAX_WIRES:
        raise ValueError(
            f"amplitude_loading expects at most {MAX_WIRES} wires, got {n_wires}: it takes 2**n rotations."
        )
    return loaded([Input(k) for k in range((1 << n_wires) - 1)])


def loaded(slots: Sequence[Slot]) -> Circuit:
    """Return the loading circuit with these 2**n - 1 slots as angles; numbers that are exactly 0 cost nothing.

    >>> loaded((0.5, 0.25, 0.0)).ops
    (Op('ry', (0,), (0.5,)), Op('ry', (1,), (0.25,)))
    """
    n_wires = len(slots).bit_length()
    ops: list[Op] = []
    for target in range(n_wires):
        level = slots[(1 << target) - 1 : (2 << target) - 1]
        ops += parity_rotations("ry", tuple(range(target)), target, level)
    return Circuit(n_wires, tuple(ops))


def loading_angles(probabilities: Any) -> Any:
    """Return the Inputs of ``amplitude_loading``: (..., 2**n) probabilities to (..., 2**n - 1) angles in radians.

    ``theta_{k,s} = 2 atan2(sqrt p(s1), sqrt p(s0))`` over the tree of partial sums, then, per level, the Walsh
    transform ``a_j = 2**-k sum_s (-1)**(s.g_j) theta_{k,s}`` with g_j the j-th Gray code. A numpy array or a torch
    tensor of float32 or float64 gives the same kind; a list of numbers counts as float64. Gradients are finite
    everywhere; entries below 1e-30 count as 0 and get the gradient 0 (the amplitude's own slope there is infinite).
    Raises TypeError for other dtypes; ValueError unless each row has 2**n finite entries (n >= 1), none negative, with
    a sum within 1e-5 of 1. Cost O(n 2**n). Mottonen et al. 2005.

    >>> loading_angles(np.full(4, 0.25)).round(4).tolist()
    [1.5708, 1.5708, 0.0]
    """
    chances = _checked(probabilities)
    xp = namespace(chances)
    shape, size = tuple(chances.shape[:-1]), chances.shape[-1]
    mass = xp.where(chances > _NOTHING, chances, xp.zeros_like(chances))
    levels = []
    while size > 1:
        size //= 2
        pairs = mass.reshape((*shape, size, 2))
        levels.append(_multiplexed(_tilt(pairs[..., 0], pairs[..., 1])))
        mass = pairs[..., 0] + pairs[..., 1]
    return xp.concat(levels[::-1], -1)


def _tilt(left: Any, right: Any) -> Any:
    """``2 atan2(sqrt right, sqrt left)``; 0 without slope where both are 0, and no slope through a root of 0."""
    xp = namespace(left)
    one, nothing = xp.ones_like(left), xp.zeros_like(left)
    towards = xp.where(right > 0, xp.sqrt(xp.where(right > 0, right, one)), nothing)
    away = xp.where(left > 0, xp.sqrt(xp.where(left > 0, left, one)), xp.where(right > 0, nothing, one))
    return 2 * xp.atan2(towards, away)


def _multiplexed(angles: Any) -> Any:
    """Angles per state of k controls, (..., 2**k), to the rotations between the CNOTs of a multiplexer."""
    size = angles.shape[-1]
    return take(walsh(angles) / size, gray_codes(size.bit_length() - 1))


def _checked(probabilities: Any) -> Any:
    if isinstance(probabilities, list | tuple):
        probabilities = np.asarray(probabilities, dtype=float)
    if str(getattr(probabilities, "dtype", "")).removeprefix("torch.") not in ("float32", "float64"):
        kind = getattr(probabilities, "dtype", type(probabilities).__name__)
        raise TypeError(f"a distribution expects float32 or float64 probabilities, got {kind}; convert them.")
    shape = tuple(probabilities.shape)
    if not shape or shape[-1] < 2 or shape[-1] & (shape[-1] - 1):
        raise ValueError(
            f"a distribution expects 2, 4, 8, ... probabilities along its last axis, got shape {shape}; pad with zeros."
        )
    if is_traced(probabilities):
        return probabilities
    values = probabilities if namespace(probabilities) is np else probabilities.detach()
    if not bool(namespace(values).isfinite(values).all()):
        raise ValueError("a distribution expects finite probabilities, got NaN or infinity; mend what made them.")
    if bool((values < 0).any()):
        raise ValueError(f"a distribution expects no negative probability, got {float(values.min())}; use a softmax.")
    sums = values.sum(-1).reshape(-1)
    off = abs(sums - 1)
    if bool((off > NORMALISATION).any()):
        raise ValueError(
            f"a distribution expects probabilities that sum to 1 within {NORMALISATION}, got "
            f"{float(sums[int(off.argmax())]):.6g}; divide by the sum."
        )
    return probabilities

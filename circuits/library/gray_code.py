"""Rotations on parities in Gray-code order: what multiplexers and diagonal gates are made of.

A parity of k control wires is a mask of k bits, the first control most significant.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits._arrays import namespace
from circuits.ir import Op
from circuits.slots import Slot


def gray_codes(n_bits: int) -> NDArray[np.int64]:
    """Return the masks 0 ... 2**n_bits - 1 in the order in which neighbours differ in one bit: ``j ^ (j >> 1)``.

    >>> gray_codes(2).tolist()
    [0, 1, 3, 2]
    """
    count = np.arange(1 << n_bits)
    return count ^ (count >> 1)


def walsh(values: Any) -> Any:
    """Return ``w(S) = sum_x (-1)**(S.x) v(x)`` along the last axis (2**k), a numpy array or a torch tensor.

    It is its own inverse but for a factor 2**k. Cost O(k 2**k).

    >>> walsh(np.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    xp = namespace(values)
    shape, size = tuple(values.shape), values.shape[-1]
    half = size >> 1
    while half:
        split = values.reshape((*shape[:-1], size // (2 * half), 2, half))
        even, odd = split[..., 0, :], split[..., 1, :]
        values = xp.stack((even + odd, even - odd), -2)
        half >>= 1
    return values.reshape(shape)


def parity_rotations(name: str, controls: tuple[int, ...], target: int, slots: Sequence[Slot]) -> list[Op]:
    """Return rotations ``name`` ("ry" or "rz") of ``target`` by ``slots[j]``, its sign set by a parity of the controls.

    Rotation j turns the other way where the controls in mask ``gray_codes(k)[j]`` have odd parity: a CNOT before each
    rotation toggles one control, the last one restores the target. Numbers that are exactly 0 are left out, and so are
    the CNOTs that they needed. At most 2**k rotations and 2**k CNOTs.

    >>> [op.name for op in parity_rotations("ry", (0,), 1, (0.1, 0.2))]
    ['ry', 'cx', 'ry', 'cx']
    """
    ops: list[Op] = []
    reached = 0
    for mask, slot in zip(gray_codes(len(controls)).tolist(), slots, strict=True):
        if slot != 0.0:
            ops += [*_toggles(reached ^ mask, controls, target), Op(name, (target,), (slot,))]
            reached = mask
    return ops + _toggles(reached, controls, target)


def _toggles(mask: int, controls: tuple[int, ...], target: int) -> list[Op]:
    top = len(controls) - 1
    return [Op("cx", (wire, target)) for place, wire in enumerate(controls) if mask >> (top - place) & 1]

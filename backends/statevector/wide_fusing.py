"""The numbers of a program's matrices for one sample, and where the generators of its gates went.

Axis legend: m matrices, g gates in them, a angles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.statevector.program import FIXED_MATRICES
from backends.statevector.wide_lowering import WideProgram
from circuits.gates import PAULI

_PAULIS = np.stack([PAULI[letter] for letter in "IXYZ"])


@dataclass(frozen=True, eq=False)
class WideNumbers:
    """``matrices`` and ``inverses`` (m, 8): rows, real and imaginary parts in turn. ``half`` (a, 2): cosine and sine of
    half the angles. ``axes`` (g, 3): the gates' generators behind the whole run, as vectors of X, Y, Z. ``columns``
    (n, 2): what each bit's first matrix makes of |0>."""

    matrices: NDArray[np.floating]
    inverses: NDArray[np.floating]
    half: NDArray[np.floating]
    axes: NDArray[np.float64]
    columns: NDArray[np.complex128]


def numbers_of(program: WideProgram, angles: NDArray[np.float64], dtype: np.dtype) -> WideNumbers:
    """Multiply the gates of each run. A rotation about P followed by V has, behind V, the generator ``V P V^dagger``.

    Cost O(gates), in numpy: the longest run counts its calls.
    """
    half = np.stack((np.cos(angles / 2), np.sin(angles / 2)), 1)
    letters, which = program.factors.T
    gates = np.empty((len(letters), 2, 2), np.complex128)
    turning = letters > 0
    gates[~turning] = FIXED_MATRICES[which[~turning]]
    cos, sin = (part[:, None, None] for part in half[which[turning]].T)
    gates[turning] = cos * _PAULIS[0] - 1j * sin * _PAULIS[letters[turning]]
    axes = np.zeros((len(letters), 3))
    begin, end = program.bounds[:-1], program.bounds[1:]
    after = np.broadcast_to(_PAULIS[0], (len(begin), 2, 2)).copy()
    for step in range(int((end - begin).max(initial=0))):  # from the last gate of each run to its first
        runs = np.flatnonzero(end - begin > step)
        at = end[runs] - 1 - step
        behind = after[runs]
        moved = behind @ _PAULIS[letters[at]] @ behind.conj().swapaxes(1, 2)
        axes[at] = np.stack((moved[:, 1, 0].real, moved[:, 1, 0].imag, moved[:, 0, 0].real), 1)
        after[runs] = behind @ gates[at]
    columns = np.tile(np.array([1, 0], np.complex128), (program.n_wires, 1))
    started = program.start >= 0
    columns[started] = after[program.start[started]][:, :, 0]
    return WideNumbers(
        _planes(after, dtype), _planes(after.conj().swapaxes(1, 2), dtype), half.astype(dtype), axes, columns
    )


def _planes(matrices: NDArray[np.complex128], dtype: np.dtype) -> NDArray[np.floating]:
    """Complex (m, 2, 2) as reals (m, 8)."""
    return np.ascontiguousarray(matrices).view(np.float64).reshape(-1, 8).astype(dtype)


def start_slopes(columns: NDArray[np.complex128], bra: NDArray[np.floating]) -> NDArray[np.float64]:
    """Imaginary parts of ``<bra|P|psi>``, shape (n, 3), for P = X, Y, Z on each bit of the product state of columns.

    The bra's planes (2, N) are contracted with the columns of one half of the bits for the wires of the other half: two
    passes over memory for all wires.
    """
    n_bits = len(columns)
    low = n_bits // 2
    products = _product(columns[:low]), _product(columns[low:])
    re, im = (plane.reshape(len(products[1]), len(products[0])) for plane in bra)
    sides = [np.stack((side.real, side.imag), 1).astype(bra.dtype) for side in products]
    upper = _conjugate_times(re @ sides[0], im @ sides[0])
    lower = _conjugate_times(re.T @ sides[1], im.T @ sides[1])
    return np.concatenate((_slopes(columns[:low], lower), _slopes(columns[low:], upper)))


def _conjugate_times(re: NDArray[np.floating], im: NDArray[np.floating]) -> NDArray[np.complex128]:
    """``(re - i im) (a + i b)`` from the products with a and b in columns."""
    return (re[:, 0] + im[:, 1]).astype(np.float64) + 1j * (re[:, 1] - im[:, 0])


def _product(columns: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The product state of some bits, the first the lowest."""
    state = np.ones(1, np.complex128)
    for column in columns:
        state = np.multiply.outer(column, state).reshape(-1)
    return state


def _slopes(columns: NDArray[np.complex128], rest: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The slopes of some bits, where all other bits are contracted: ``rest`` (2**k,)."""
    found = np.empty((len(columns), 3))
    for bit, column in enumerate(columns):
        split = rest.reshape(-1, 2, 2**bit)
        pair = np.einsum("a,abc,c->b", _product(columns[bit + 1 :]), split, _product(columns[:bit]))
        found[bit] = (pair @ _PAULIS[1:] @ column).imag
    return found

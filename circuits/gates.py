"""The gate table: one frozen record per primitive gate; everything else about gates is derived from it.

Axis legend: a gate on k wires is a (2**k, 2**k) matrix whose row and column bits follow the gate's wires, the first
wire most significant. Angles are in radians.
"""

from dataclasses import dataclass
from functools import cache, reduce
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.complex128]

PAULI: MappingProxyType[str, Matrix] = MappingProxyType(
    {
        "I": np.array([[1, 0], [0, 1]], dtype=complex),
        "X": np.array([[0, 1], [1, 0]], dtype=complex),
        "Y": np.array([[0, -1j], [1j, 0]], dtype=complex),
        "Z": np.array([[1, 0], [0, -1]], dtype=complex),
    }
)


@cache
def pauli_matrix(word: str) -> Matrix:
    """Return the matrix of a Pauli word, first letter most significant: ``P_1 (x) P_2 (x) ...``.

    Shape (2**k, 2**k) for k letters; raises KeyError for a letter outside IXYZ. Cost 4**k.

    >>> pauli_matrix("ZX")[0].real.tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    matrix = reduce(np.kron, (PAULI[letter] for letter in word), np.eye(1, dtype=complex))
    matrix.setflags(write=False)
    return matrix


@dataclass(frozen=True, slots=True)
class Gate:
    """One primitive gate.

    A gate with an angle t is ``U(t) = exp(i phase t) exp(-i t P / 2)`` for one Pauli word P (``generator``), so that
    the two-term shift rule holds for it; ``phase`` differs from 0 for ``p`` alone. A fixed gate has no generator and
    its matrix in ``rows``. ``inverse`` names the inverse of a fixed gate; a rotation is inverted by negating its angle.
    ``qiskit`` and ``pennylane`` are class names in those packages' gate libraries; ``qasm`` is the OpenQASM name and
    ``qasm_standard`` tells whether ``stdgates.inc`` of OpenQASM 3 defines it.

    >>> GATES["rx"].matrix(0.0).real.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    name: str
    n_wires: int
    inverse: str
    qasm: str
    qiskit: str
    pennylane: str
    generator: str = ""
    phase: float = 0.0
    rows: tuple[tuple[complex, ...], ...] = ()
    qasm_standard: bool = True

    @property
    def n_angles(self) -> int:
        """Number of angles: 1 for rotations, 0 for fixed gates."""
        return 1 if self.generator else 0

    def matrix(self, angle: float | None = None) -> Matrix:
        """Return the unitary, shape (2**n_wires, 2**n_wires); ``angle`` in radians for a rotation, None otherwise."""
        if (angle is None) == bool(self.generator):
            expected = "one angle" if self.generator else "no angle"
            raise ValueError(f"gate '{self.name}' expects {expected}, got {angle}; pass angles to rotations alone.")
        if angle is None:
            return np.array(self.rows, dtype=complex)
        word = pauli_matrix(self.generator)
        rotation = np.cos(angle / 2) * np.eye(len(word)) - 1j * np.sin(angle / 2) * word
        return np.exp(1j * self.phase * angle) * rotation

    @property
    def is_diagonal(self) -> bool:
        """Whether the matrix is diagonal in the computational basis, for every angle."""
        probe = self.matrix(0.7 if self.generator else None)
        return bool(np.all(probe == np.diag(np.diagonal(probe))))


def _rows(matrix: ArrayLike) -> tuple[tuple[complex, ...], ...]:
    return tuple(tuple(complex(entry) for entry in row) for row in np.asarray(matrix))


def _block(corner: Matrix) -> tuple[tuple[complex, ...], ...]:
    """Rows of the controlled form of a one-wire matrix, the control first."""
    full = np.eye(4, dtype=complex)
    full[2:, 2:] = corner
    return _rows(full)


_R = 2**-0.5
_H = np.array([[_R, _R], [_R, -_R]], dtype=complex)
_SX = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
_SWAP = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


def _diagonal(*entries: complex) -> tuple[tuple[complex, ...], ...]:
    return _rows(np.diag(np.array(entries, dtype=complex)))


_TABLE = (
    Gate("id", 1, "id", "id", "IGate", "Identity", rows=_diagonal(1, 1)),
    Gate("rx", 1, "rx", "rx", "RXGate", "RX", generator="X"),
    Gate("ry", 1, "ry", "ry", "RYGate", "RY", generator="Y"),
    Gate("rz", 1, "rz", "rz", "RZGate", "RZ", generator="Z"),
    Gate("p", 1, "p", "p", "PhaseGate", "PhaseShift", generator="Z", phase=0.5),
    Gate("h", 1, "h", "h", "HGate", "Hadamard", rows=_rows(_H)),
    Gate("x", 1, "x", "x", "XGate", "PauliX", rows=_rows(PAULI["X"])),
    Gate("y", 1, "y", "y", "YGate", "PauliY", rows=_rows(PAULI["Y"])),
    Gate("z", 1, "z", "z", "ZGate", "PauliZ", rows=_diagonal(1, -1)),
    Gate("s", 1, "sdg", "s", "SGate", "S", rows=_diagonal(1, 1j)),
    Gate("sdg", 1, "s", "sdg", "SdgGate", "Adjoint(S)", rows=_diagonal(1, -1j)),
    Gate("t", 1, "tdg", "t", "TGate", "T", rows=_diagonal(1, _R + 1j * _R)),
    Gate("tdg", 1, "t", "tdg", "TdgGate", "Adjoint(T)", rows=_diagonal(1, _R - 1j * _R)),
    Gate("sx", 1, "sxdg", "sx", "SXGate", "SX", rows=_rows(_SX)),
    Gate("sxdg", 1, "sx", "sxdg", "SXdgGate", "Adjoint(SX)", rows=_rows(_SX.conj().T), qasm_standard=False),
    Gate("cx", 2, "cx", "cx", "CXGate", "CNOT", rows=_block(PAULI["X"])),
    Gate("cy", 2, "cy", "cy", "CYGate", "CY", rows=_block(PAULI["Y"])),
    Gate("cz", 2, "cz", "cz", "CZGate", "CZ", rows=_block(PAULI["Z"])),
    Gate("ch", 2, "ch", "ch", "CHGate", "CH", rows=_block(_H)),
    Gate("swap", 2, "swap", "swap", "SwapGate", "SWAP", rows=_rows(_SWAP)),
    Gate("rxx", 2, "rxx", "rxx", "RXXGate", "IsingXX", generator="XX", qasm_standard=False),
    Gate("ryy", 2, "ryy", "ryy", "RYYGate", "IsingYY", generator="YY", qasm_standard=False),
    Gate("rzz", 2, "rzz", "rzz", "RZZGate", "IsingZZ", generator="ZZ", qasm_standard=False),
)

GATES: MappingProxyType[str, Gate] = MappingProxyType({gate.name: gate for gate in _TABLE})
"""Primitive gates by name, in table order."""

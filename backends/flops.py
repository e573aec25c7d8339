"""Floating point operations of circuits, for FLOP counters: additions and multiplications of real numbers.

What a state-vector simulation takes, whichever engine runs the circuit: of the compiled program up to 16 wires, gate by
gate above and for density matrices. A fused multiply-add counts as two; trigonometric functions, which are a few per
angle, are left out.

Axis legend: N amplitudes.
"""

from functools import lru_cache

from backends.statevector.batch import MAX_WIRES
from backends.statevector.lowering import lower
from backends.statevector.program import CNOT, CZ, MATRIX, MEASURE, PERMUTE, ROTATE, WORD, Program
from backends.statevector.structure import structure
from circuits import GATES, Circuit
from circuits.ir import RESET

_MATRIX, _ROTATION, _PHASE, _WORD, _SLOPES, _WORD_SLOPE, _PRODUCT = 14, 6, 6, 6, 12, 4, 12
"""Operations per amplitude: complex 2x2 matrix (4 products and 3 sums of complex numbers on 2 amplitudes), real one,
complex factor, ``cos - i sin P``; slopes along X, Y, Z from 4 complex products, along a word; a product state."""


def forward_flops(circuit: Circuit, n_values: int) -> int:
    """Return the operations of one sample: the state, and ``n_values`` sums over its probabilities.

    >>> from circuits.library import angle_encoding
    >>> forward_flops(angle_encoding(2), n_values=2)  # a product state, |psi|^2, two signed sums
    68
    """
    return (
        (_program_flops(circuit)[0] + (3 + n_values) * 2**circuit.n_wires) if _is_compiled(circuit) else _gates(circuit)
    )


def backward_flops(circuit: Circuit, n_values: int) -> int:
    """Return the operations of one sample's gradient by the adjoint method, the state computed anew.

    >>> from circuits.library import angle_encoding
    >>> backward_flops(angle_encoding(2), n_values=2) > forward_flops(angle_encoding(2), n_values=2)
    True
    """
    if not _is_compiled(circuit):
        return 3 * _gates(circuit)
    forth, back = _program_flops(circuit)
    return forth + back + (2 + n_values) * 2**circuit.n_wires


def _is_compiled(circuit: Circuit) -> bool:
    return circuit.is_unitary and circuit.n_wires <= MAX_WIRES


@lru_cache(maxsize=256)
def _program_flops(circuit: Circuit) -> tuple[int, int]:
    """Operations of a program forth, and back on state and bra together."""
    program = lower(structure(circuit)[0])
    forth, back = _PRODUCT, _SLOPES * program.n_wires
    for row in program.code:
        one_way, slopes = _row(program, *(int(entry) for entry in row[:3]))
        forth += one_way
        back += 2 * one_way + slopes
    return forth << program.n_wires, back << program.n_wires


def _row(program: Program, operation: int, _: int, second: int) -> tuple[int, int]:
    """Operations per amplitude of an instruction, and of its slopes."""
    signs = _PHASE if operation == PERMUTE and second >= 0 else 0
    return {
        MATRIX: (_MATRIX, _SLOPES),
        ROTATE: (_ROTATION, _SLOPES),
        WORD: (_WORD, _WORD_SLOPE),
        PERMUTE: (signs, 0),
        CNOT: (0, 0),
        CZ: (0, 0),
        MEASURE: (3 + program.n_wires, 2),
    }[operation]


def _gates(circuit: Circuit) -> int:
    """Operations gate by gate: on N amplitudes, or on the N**2 of a density matrix from both sides."""
    sides, size = (1, 2**circuit.n_wires) if circuit.is_unitary else (2, 4**circuit.n_wires)
    each = [0 if op.name == RESET else _PHASE if GATES[op.name].n_wires > 1 else _MATRIX for op in circuit.ops]
    return sides * size * sum(each)

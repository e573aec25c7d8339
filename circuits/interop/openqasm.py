"""OpenQASM 3 both ways, and OpenQASM 2 in, for the gate-level language. Wire k is the k-th qubit declared."""

from collections.abc import Sequence

from circuits.interop.openqasm_export import dumps
from circuits.interop.openqasm_lexer import MAX_CHARACTERS, Cursor, OpenQASMError
from circuits.interop.openqasm_parser import Program
from circuits.ir import Circuit

__all__ = ["OpenQASMError", "dumps", "loads"]


def loads(text: str, inputs: Sequence[str] = (), drop_measurements: bool = False) -> Circuit:
    """Return the circuit that an OpenQASM 2 or 3 text describes, global phase included.

    Read are registers, gates of the standard include and the text's own, ``ctrl``, ``negctrl``, ``inv`` and ``pow``
    with an integer, whole registers as operands, resets, constants, and free parameters (``input float`` or ``angle``).
    Those that ``dumps`` wrote keep their kind and number; of any other text those named in ``inputs`` become inputs in
    that order, all others weights in natural order (p2 before p10). Angles may be sums of what slots can hold:
    ``scale * p + shift`` and products of two. Barriers and bits are dropped, because they mean nothing to a circuit;
    measurements are refused, or with ``drop_measurements`` dropped where their qubits are not used afterwards.

    Raises OpenQASMError (a ValueError) naming the line for anything else, and for texts beyond 10 million characters,
    4096 qubits, a million ops after expansion, or 64 levels of nesting. Cost O(length + ops).

    >>> loads('OPENQASM 3; include "stdgates.inc"; input float t; qubit[2] q; rx(2 * t) q[0]; ctrl @ x q[0], q[1];')
    Circuit(2, (Op('rx', (0,), (Weight(0, scale=2.0),)), Op('cx', (0, 1))))
    """
    if not isinstance(text, str):
        raise TypeError(f"loads expects a string of OpenQASM, got {type(text).__name__}; read the file first.")
    if len(text) > MAX_CHARACTERS:
        raise OpenQASMError(1, f"expects a text of at most {MAX_CHARACTERS} characters, got {len(text)}; split it.")
    program = Program(Cursor(text), drop_measurements)
    program.read()
    return program.circuit(tuple(inputs))

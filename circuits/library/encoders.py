"""Circuits that load data into a state."""

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.slots import Input


def angle_encoding(n_wires: int, axis: str = "y") -> Circuit:
    """Return one rotation by ``Input(i)`` per wire i, about x, y or z (z after a Hadamard, else it would do nothing).

    ``|x> = prod_i RP(x_i) |0>`` with P = X or Y, ``prod_i RZ(x_i) H |0>`` for z: a product state, with
    ``<Z_i> = cos x_i`` for x and y, and ``<X_i> = cos x_i`` for z. Inputs (batch, n_wires) in radians. Raises
    ValueError for another axis. Schuld & Petruccione 2018, section 5.2.

    >>> angle_encoding(2).ops
    (Op('ry', (0,), (Input(0),)), Op('ry', (1,), (Input(1),)))
    """
    if axis not in ("x", "y", "z"):
        raise ValueError(f"angle_encoding expects axis 'x', 'y' or 'z', got {axis!r}; pick one of the three.")
    n_wires = integer("angle_encoding", "n_wires", n_wires, 1)
    ops: list[Op] = []
    for wire in range(n_wires):
        if axis == "z":
            ops.append(Op("h", (wire,)))
        ops.append(Op(f"r{axis}", (wire,), (Input(wire),)))
    return Circuit(n_wires, tuple(ops))

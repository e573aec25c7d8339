"""Born machines: distributions over basis states, read from a circuit by measuring it."""

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.slots import Input, Weight


def born_machine(n_wires: int, depth: int) -> Circuit:
    """Return a trainable circuit U(w) without inputs whose measured basis states v are the samples of a model.

    ``p(v) = |<v|U(w)|0>|^2``, wire 0 the most significant bit of v; normalised by construction. U is ``depth`` times
    (RZ RY on each wire, a ring of CNOTs), then a last RZ RY on each wire: ``2 n_wires (depth + 1)`` weights in radians,
    in program order: layer, wire, axis. A last RZ is left out, since no measurement of basis states sees it; the RZs of
    the first layer act once another circuit stands before this one, on |0> they do nothing. Raises TypeError or
    ValueError unless ``n_wires >= 1`` and ``depth >= 0`` are integers.

    Liu & Wang 2018, Phys. Rev. A 98, 062324, equation 1; Benedetti et al. 2019, npj Quantum Information 5, 45.

    >>> print(born_machine(2, 1).draw())
    0: ─┤RZ(w0)├─┤RY(w1)├─●─⊕─┤RZ(w4)├─┤RY(w5)├─
                          │ │
    1: ─┤RZ(w2)├─┤RY(w3)├─⊕─●─┤RZ(w6)├─┤RY(w7)├─
    """
    n_wires, depth = integer("born_machine", "n_wires", n_wires, 1), integer("born_machine", "depth", depth, 0)
    ring = [Op("cx", (wire, (wire + 1) % n_wires)) for wire in range(n_wires)] if n_wires > 1 else []
    ops: list[Op] = []
    for layer in range(depth + 1):
        for wire in range(n_wires):
            first = 2 * (layer * n_wires + wire)
            ops += [Op("rz", (wire,), (Weight(first),)), Op("ry", (wire,), (Weight(first + 1),))]
        ops += ring if layer < depth else []
    return Circuit(n_wires, tuple(ops))


def conditional_born_machine(n_wires: int, depth: int) -> Circuit:
    """Return a Born machine that reads a vector: an encoder psi(x) of Inputs, then the U(w) of ``born_machine``.

    ``p(v | x) = |<v|U(w)|psi(x)>|^2`` with ``psi(x) = prod_i RZ(x_{n+i}) RY(x_i) |0>``, a product state of
    ``2 n_wires`` inputs in radians: the first n set its magnitudes, the last n its phases, which reach the
    probabilities through U alone. At ``w = 0``, ``depth = 0`` (U = 1) the bits of v are independent, 1 with chance
    ``sin^2(x_i / 2)``. Raises TypeError or ValueError unless ``n_wires >= 1`` and ``depth >= 0`` are integers.

    >>> print(conditional_born_machine(2, 0).draw())
    0: ─┤RY(x0)├─┤RZ(x2)├─┤RZ(w0)├─┤RY(w1)├─
    1: ─┤RY(x1)├─┤RZ(x3)├─┤RZ(w2)├─┤RY(w3)├─
    """
    n_wires = integer("conditional_born_machine", "n_wires", n_wires, 1)
    depth = integer("conditional_born_machine", "depth", depth, 0)
    ops: list[Op] = []
    for wire in range(n_wires):
        ops += [Op("ry", (wire,), (Input(wire),)), Op("rz", (wire,), (Input(n_wires + wire),))]
    return Circuit(n_wires, tuple(ops)) + born_machine(n_wires, depth)

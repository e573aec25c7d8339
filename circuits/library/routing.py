"""Circuits whose measured basis state names an expert."""

from circuits.ir import Circuit
from circuits.library.ansatz import hardware_efficient
from circuits.library.encoders import angle_encoding


def vqc_router(n_wires: int, depth: int) -> Circuit:
    """Return the router of a mixture of experts: RY encoding of the inputs, then ``depth`` trainable layers.

    ``g_i = |<i| U(theta) |phi(x)>|^2`` is the probability of basis state i, hence of expert i of at most ``2**n_wires``
    experts (wire 0 is the most significant bit of i). ``n_wires`` inputs in radians; ``3 n_wires depth`` weights, a
    layer being RX RY RZ on each wire and a ring of CNOTs. With all weights 0 and all inputs pi/2 every expert has
    probability ``2**-n_wires``. Raises TypeError or ValueError for sizes that are no integers, ``n_wires < 1`` or
    ``depth < 0``. Depth of the circuit: O(n_wires depth).

    Source: HSMN, equation 19.

    >>> print(vqc_router(2, 1).draw())
    0: ─┤RY(x0)├─┤RX(w0)├─┤RY(w1)├─┤RZ(w2)├─●─⊕─
                                            │ │
    1: ─┤RY(x1)├─┤RX(w3)├─┤RY(w4)├─┤RZ(w5)├─⊕─●─
    """
    return angle_encoding(n_wires) + hardware_efficient(n_wires, depth)

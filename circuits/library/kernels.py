"""Feature maps of quantum kernels: circuits ``U(x)`` whose states ``|phi(x)> = U(x)|0>`` are compared by overlap."""

import math
from itertools import combinations

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.library.ansatz import reuploading
from circuits.library.encoders import angle_encoding
from circuits.slots import Input, Product


def zz_feature_map(n_wires: int, reps: int = 2) -> Circuit:
    """Return ``reps`` times (H and ``P(2 x_i)`` on each wire, ``CX P(2 (pi - x_i)(pi - x_j)) CX`` on each pair i < j).

    The second-order Pauli-Z expansion with full entanglement in Qiskit's convention, ``|phi(x)> = (V(x) H^n)^reps |0>``
    with ``V(x) = exp(i sum_S phi_S(x) prod_{i in S} Z_i)`` up to a global phase. ``n_wires`` inputs (radians), no
    weights. Raises TypeError or ValueError for fewer than 1 wire or repetition. Cost: ``reps n_wires**2`` gates. Its
    fidelity kernel is conjectured to be hard classically, and concentrates at ``2**-n_wires`` as wires are added
    (Thanasilp et al. 2022, arXiv:2208.11060, theorem 1), so that many wires need exponentially many shots.

    Havlicek et al. 2019, Nature 567, 209, equation 2 and figure 1b; kernels as overlaps of encoded states: Schuld &
    Killoran 2019, Phys. Rev. Lett. 122, 040504, equation 5.

    >>> print(zz_feature_map(2, reps=1).draw())
    0: ─┤H├─┤P(2·x0)├─●────────────────────────●─
                      │                        │
    1: ─┤H├─┤P(2·x1)├─⊕─┤P(2·(-x0+π)·(-x1+π))├─⊕─
    """
    n_wires = integer("zz_feature_map", "n_wires", n_wires, 1)
    reps = integer("zz_feature_map", "reps", reps, 1)
    once: list[Op] = [Op("h", (wire,)) for wire in range(n_wires)]
    once += [Op("p", (wire,), (Input(wire, scale=2.0),)) for wire in range(n_wires)]
    for i, j in combinations(range(n_wires), 2):
        left, right = (Input(wire, scale=-1.0, shift=math.pi) for wire in (i, j))
        once += [Op("cx", (i, j)), Op("p", (j,), (Product(left, right, scale=2.0),)), Op("cx", (i, j))]
    return Circuit(n_wires, tuple(once) * reps)


def kernel_feature_map(n_wires: int, depth: int) -> Circuit:
    """Return ``depth`` times (RY encoding, RX RY RZ with weights on each wire, ring of CNOTs), then RY encoding again.

    The encoding comes last because a trailing ``V(w)`` without inputs cancels:
    ``<phi(x)|V^dagger V|phi(y)> = <phi(x)|phi(y)>``, so that its weights would not be trained. ``n_wires`` inputs,
    ``3 n_wires depth`` weights in program order. With depth 0 the kernel is ``prod_i cos^2((x_i - y_i) / 2)``. Raises
    TypeError or ValueError for fewer than 1 wire or a negative depth. Fidelity kernels concentrate with the number of
    wires and with expressive circuits (Thanasilp et al. 2022, arXiv:2208.11060): keep both small.

    Schuld & Killoran 2019, Phys. Rev. Lett. 122, 040504 (kernel); Perez-Salinas et al. 2020, Quantum 4, 226 (layers).

    >>> circuit = kernel_feature_map(2, 1)
    >>> print(circuit.draw())
    0: ─┤RY(x0)├─┤RX(w0)├─┤RY(w1)├─┤RZ(w2)├─●─⊕─┤RY(x0)├─
                                            │ │
    1: ─┤RY(x1)├─┤RX(w3)├─┤RY(w4)├─┤RZ(w5)├─⊕─●─┤RY(x1)├─
    >>> circuit.n_inputs, circuit.n_weights
    (2, 6)
    """
    n_wires = integer("kernel_feature_map", "n_wires", n_wires, 1)
    depth = integer("kernel_feature_map", "depth", depth, 0)
    return reuploading(n_wires, depth) + angle_encoding(n_wires)

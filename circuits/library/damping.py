"""Generalised amplitude damping out of rotations and resets."""

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.slots import Input


def generalised_damping(n_steps: int = 1) -> Circuit:
    """Return ``n_steps`` steps of a qubit that relaxes, by a share of its choice, towards a polarisation of its choice.

    ``<Z_0>_t = (1 - g_t) <Z_0>_{t-1} + g_t x_t``: generalised amplitude damping with rate g and fixed point
    ``diag(1 + x, 1 - x) / 2``, exact for x in [-1, 1] and g in [0, 1]. Wire 0 is the system, 1 a bath qubit, and 2
    takes the bath's phase away. ``Input(0) = arccos z_0`` prepares the system; ``Input(2t-1) = arccos x_t`` and
    ``Input(2t) = arcsin(sqrt(g_t))`` drive step t = 1, 2, ...: RY on the bath, CX from it to wire 2, ``rxx`` and
    ``ryy`` between system and bath, which exchange them with probability ``g_t``, and resets of wires 1 and 2. Angles
    in radians; ``2 n_steps + 1`` inputs. The bath has no phase when it meets the system, so a diagonal state stays
    diagonal: this is a classical two-state Markov chain, run on a qubit. Raises TypeError or ValueError for
    ``n_steps < 0``.

    Source: Nielsen & Chuang, section 8.3.5 (the channel), as a collision with a thermal qubit.

    >>> circuit = generalised_damping()
    >>> circuit.n_wires, circuit.n_inputs, len(circuit.ops), circuit.is_unitary
    (3, 3, 7, False)
    """
    n_steps = integer("generalised_damping", "n_steps", n_steps, 0)
    ops = [Op("ry", (0,), (Input(0),))]
    for step in range(n_steps):
        target, swap = Input(2 * step + 1), Input(2 * step + 2)
        ops += [
            Op("ry", (1,), (target,)),
            Op("cx", (1, 2)),
            Op("rxx", (0, 1), (swap,)),
            Op("ryy", (0, 1), (swap,)),
            Op("reset", (1,)),
            Op("reset", (2,)),
        ]
    return Circuit(3, tuple(ops))

"""Trainable circuits: layers of rotations and entanglers. Weights are numbered in program order."""

from circuits._check import integer
from circuits._suggest import unknown
from circuits.ir import Circuit, Op
from circuits.library.encoders import angle_encoding
from circuits.slots import Weight

_ENTANGLERS = {"ring": ("cx", True), "chain": ("cx", False), "cz-ring": ("cz", True), "cz-chain": ("cz", False)}


def _entangle(n_wires: int, entangler: str) -> list[Op]:
    if entangler not in _ENTANGLERS:
        raise ValueError(unknown("entangler", entangler, _ENTANGLERS))
    name, closed = _ENTANGLERS[entangler]
    pairs = [(wire, wire + 1) for wire in range(n_wires - 1)]
    # Two wires have one neighbouring pair: closing the ring with cx(1, 0) is kept, as PennyLane and papers do.
    return [Op(name, pair) for pair in pairs + ([(n_wires - 1, 0)] if closed and n_wires > 1 else [])]


def _layer(n_wires: int, first_weight: int, entangler: str) -> list[Op]:
    """RX, RY, RZ with fresh weights on each wire, then the entangler."""
    ops = [
        Op(name, (wire,), (Weight(first_weight + 3 * wire + k),))
        for wire in range(n_wires)
        for k, name in enumerate(("rx", "ry", "rz"))
    ]
    return ops + _entangle(n_wires, entangler)


def _checked(owner: str, n_wires: int, depth: int) -> tuple[int, int]:
    return integer(owner, "n_wires", n_wires, 1), integer(owner, "depth", depth, 0)


def hardware_efficient(n_wires: int, depth: int, entangler: str = "ring") -> Circuit:
    """Return ``depth`` layers of (RX RY RZ with trainable weights on each wire, then an entangler).

    ``3 n_wires depth`` weights in program order: layer, wire, axis. ``entangler``: "ring" or "chain" of CNOT,
    "cz-ring" or "cz-chain" of CZ. No inputs: put an encoder before it with ``+``. Raises ValueError for an unknown
    entangler. Kandala et al. 2017, Nature 549, 242.

    >>> hardware_efficient(4, 2).n_weights
    24
    """
    n_wires, depth = _checked("hardware_efficient", n_wires, depth)
    ops = [op for layer in range(depth) for op in _layer(n_wires, 3 * n_wires * layer, entangler)]
    return Circuit(n_wires, tuple(ops))


def reuploading(n_wires: int, depth: int) -> Circuit:
    """Return ``depth`` times (RY encoding of all inputs, then a layer of RX RY RZ weights and a ring of CNOTs).

    ``n_wires`` inputs, ``3 n_wires depth`` weights in program order. Each output is a Fourier series in each input
    with integer frequencies up to ``depth``. Perez-Salinas et al. 2020, Quantum 4, 226; Schuld, Sweke, Meyer 2021,
    Phys. Rev. A 103, 032430, equation 5.

    >>> circuit = reuploading(4, 3)
    >>> circuit.n_inputs, circuit.n_weights
    (4, 36)
    """
    n_wires, depth = _checked("reuploading", n_wires, depth)
    circuit = Circuit(n_wires)
    for layer in range(depth):
        circuit = (
            circuit + angle_encoding(n_wires) + Circuit(n_wires, tuple(_layer(n_wires, 3 * n_wires * layer, "ring")))
        )
    return circuit

"""Circuits and data of the suite: small, asymmetric, and made of the gates that a backend declares.

All of them have 3 wires. Axis legend: b batch, i inputs, w weights.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backends.estimate import Capabilities
from circuits import GATES, Circuit, Input, Op, PauliSum, Product, Reset, Weight, X, Y, Z

Real = NDArray[np.float64]

N_WIRES = 3
OBSERVABLES: tuple[PauliSum, ...] = (
    X(0),
    Y(1),
    Z(2),
    Z(0) @ Z(2),
    X(0) @ Y(1) @ Z(2),
    0.5 * Z(0) - 0.25 * X(1) @ X(2) + 0.25,
)
"""Every letter on some wire, unequal under any reordering of wires; one-norms 1."""


def keep(capabilities: Capabilities, *ops: Op) -> Circuit:
    """The circuit of those ops whose gates the backend declares."""
    return Circuit(N_WIRES, tuple(op for op in ops if op.name in capabilities.gates))


def mixed(capabilities: Capabilities) -> Circuit:
    """Every kind of slot, one weight shared by two gates, both orders of wires; shallow, for noisy machines."""
    circuit = keep(
        capabilities,
        Op("ry", (0,), (Input(0),)),
        Op("rx", (1,), (Weight(0, scale=0.7, shift=0.2),)),
        Op("h", (2,)),
        Op("rzz", (0, 1), (Product(Input(1), Weight(1), scale=0.5),)),
        Op("cx", (2, 0)),
        Op("p", (2,), (Weight(0),)),
        Op("rz", (1,), (Product(Input(0), 0.4, shift=-0.3),)),
        Op("rx", (0,), (0.3,)),
        Op("ry", (2,), (Input(0, scale=-1.5),)),
    )
    # A phase of the whole circuit: no result may depend on it.
    return Circuit(N_WIRES, circuit.ops, (Weight(0), 0.7))


def around(name: str, capabilities: Capabilities) -> Circuit:
    """One gate on the last wires in reversed order, between rotations that leave no entry of its matrix unseen."""
    gate = GATES[name]
    wires = (2, 0)[: gate.n_wires]
    slots = (Input(0, scale=1.3, shift=0.4),) if gate.n_angles else ()
    before = (Op("ry", (w,), (0.5 + 0.4 * w,)) for w in range(N_WIRES))
    turn = (Op("rz", (w,), (0.9 - 0.3 * w,)) for w in range(N_WIRES))
    bases = (Op("h", (w,)) for w in range(N_WIRES) if "ry" not in capabilities.gates)
    return keep(capabilities, *bases, *before, *turn, Op(name, wires, slots))


def data(circuit: Circuit, batch: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Fixed inputs (b, i) and weights (w,) in radians."""
    rng = np.random.default_rng(7)
    weights = torch.tensor(rng.uniform(-2, 2, circuit.n_weights), dtype=dtype)
    return torch.tensor(rng.uniform(-2, 2, (batch, circuit.n_inputs)), dtype=dtype), weights


def arrays(inputs: torch.Tensor, weights: torch.Tensor) -> tuple[Real, Real]:
    """The same data for the oracle."""
    return inputs.detach().double().numpy(), weights.detach().double().numpy()


def basis_state(capabilities: Capabilities, bits: str) -> Circuit:
    """|bits>, from X gates, or from rotations by pi where X is not declared."""
    flip = next((Op(name, (0,), slots) for name, slots in _FLIPS if name in capabilities.gates), None)
    ops = (Op(flip.name, (wire,), flip.slots) for wire, bit in enumerate(bits) if flip and bit == "1")
    return Circuit(len(bits), tuple(ops))


_FLIPS = (("x", ()), ("ry", (np.pi,)), ("rx", (np.pi,)), ("y", ()))


def bell(capabilities: Capabilities) -> Circuit | None:
    """(|00> + |11>) / sqrt(2) on wires 0 and 1, |0> on wire 2; None where the gates do not suffice."""
    turns = (Op("h", (0,)), Op("ry", (0,), (np.pi / 2,)))
    turn = next((op for op in turns if op.name in capabilities.gates), None)
    return Circuit(N_WIRES, (turn, Op("cx", (0, 1)))) if turn and "cx" in capabilities.gates else None


def with_reset(capabilities: Capabilities) -> Circuit:
    """An entangled wire thrown away halfway and used again: the others stay mixed."""
    entangle = mixed(capabilities).ops
    again = keep(capabilities, Op("ry", (0,), (Input(1),)), Op("cx", (0, 1))).ops
    return Circuit(N_WIRES, (*entangle, *Reset(0), *again))

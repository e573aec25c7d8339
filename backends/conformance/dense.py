"""The suite's own oracle: density matrices in numpy, one sample at a time, sharing no code with any backend.

Axis legend: n wires, N = 2**n, k wires kept. Wire 0 is the most significant bit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from circuits import GATES, Circuit, Input, PauliSum, Product, Slot, Weight
from circuits.gates import PAULI

Matrix = NDArray[np.complex128]
Real = NDArray[np.float64]


def angle(slot: Slot, inputs: Real, weights: Real) -> float:
    """The angle in radians that one slot stands for, for one sample: inputs (i,), weights (w,)."""
    if isinstance(slot, float):
        return slot
    if isinstance(slot, Input):
        value = float(inputs[slot.index])
    elif isinstance(slot, Weight):
        value = float(weights[slot.index])
    else:
        assert isinstance(slot, Product)
        value = angle(slot.left, inputs, weights) * angle(slot.right, inputs, weights)
    return slot.scale * value + slot.shift


def _on_wires(small: Matrix, wires: Sequence[int], n_wires: int) -> Matrix:
    """Entry (r, c) of the full matrix is that of the small one when all other wires agree."""
    size = 2**n_wires
    full = np.zeros((size, size), dtype=complex)
    mask = sum(1 << (n_wires - 1 - wire) for wire in wires)

    def local(state: int) -> int:
        return sum(((state >> (n_wires - 1 - wire)) & 1) << (len(wires) - 1 - k) for k, wire in enumerate(wires))

    for row in range(size):
        for column in range(size):
            if row & ~mask == column & ~mask:
                full[row, column] = small[local(row), local(column)]
    return full


def density(circuit: Circuit, inputs: Real, weights: Real) -> Matrix:
    """The (N, N) density matrix of one sample, resets as Kraus maps |0><0| and |0><1|."""
    size = 2**circuit.n_wires
    rho = np.zeros((size, size), dtype=complex)
    rho[0, 0] = 1
    for op in circuit.ops:
        if op.name == "reset":
            smalls = [np.array([[1, 0], [0, 0]], dtype=complex), np.array([[0, 1], [0, 0]], dtype=complex)]
        else:
            smalls = [GATES[op.name].matrix(*(angle(slot, inputs, weights) for slot in op.slots))]
        kraus = [_on_wires(small, op.wires, circuit.n_wires) for small in smalls]
        rho = np.sum([full @ rho @ full.conj().T for full in kraus], axis=0)
    return rho


def densities(circuit: Circuit, inputs: Real, weights: Real) -> Matrix:
    """Density matrices (b, N, N) of a batch of inputs (b, i)."""
    return np.stack([density(circuit, row, weights) for row in inputs])


def expectation(rho: Matrix, observable: PauliSum) -> float:
    """``Tr rho O``."""
    n_wires = len(rho).bit_length() - 1
    total = 0.0
    for word, coefficient in observable.terms:
        product = rho
        for wire, letter in word:
            product = _on_wires(PAULI[letter], (wire,), n_wires) @ product
        total += coefficient * float(np.trace(product).real)
    return total


def expectations(circuit: Circuit, inputs: Real, weights: Real, observables: Sequence[PauliSum]) -> Real:
    """Values (b, o)."""
    return np.array(
        [[expectation(rho, observable) for observable in observables] for rho in densities(circuit, inputs, weights)]
    )


def reduced(rho: Matrix, wires: Sequence[int]) -> Matrix:
    """The (2**k, 2**k) density matrix of wires in the caller's order, by tracing out the others one state at a time."""
    n_wires = len(rho).bit_length() - 1
    rest = [wire for wire in range(n_wires) if wire not in wires]

    def state(kept: int, traced: int) -> int:
        bits = [(wire, (kept >> (len(wires) - 1 - k)) & 1) for k, wire in enumerate(wires)]
        bits += [(wire, (traced >> (len(rest) - 1 - k)) & 1) for k, wire in enumerate(rest)]
        return sum(bit << (n_wires - 1 - wire) for wire, bit in bits)

    rows = [[state(kept, traced) for kept in range(2 ** len(wires))] for traced in range(2 ** len(rest))]
    return np.sum([rho[np.ix_(row, row)] for row in rows], axis=0)


def entropy(rho: Matrix, kind: str) -> float:
    """Entropy in nats."""
    if kind == "renyi2":
        return float(-np.log(np.trace(rho @ rho).real))
    spectrum = np.linalg.eigvalsh(rho)
    return float(-sum(p * np.log(p) for p in spectrum if p > 1e-15))

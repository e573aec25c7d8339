"""The slow, obvious versions that tests compare against: dense matrices in numpy, one sample at a time.

Nothing here knows the backends. Axis legend: n wires, N = 2**n, b batch. Wire 0 is the most significant bit.
"""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from circuits import GATES, Circuit, Input, Op, PauliSum, Product, Reset, Slot, Weight
from circuits.decompositions import COMPOSITES, MULTI_CONTROLLED
from circuits.gates import pauli_matrix

Complex = NDArray[np.complexfloating]
Real = NDArray[np.float64]
NOTHING = np.zeros(0)
ALL_NAMES = (*GATES, *COMPOSITES, *MULTI_CONTROLLED)


def slot_value(slot: Slot, inputs: Sequence[float] | Real, weights: Sequence[float] | Real) -> float:
    """The number that one slot stands for, by its definition."""
    if isinstance(slot, Input):
        return slot.scale * float(inputs[slot.index]) + slot.shift
    if isinstance(slot, Weight):
        return slot.scale * float(weights[slot.index]) + slot.shift
    if isinstance(slot, Product):
        return (
            slot.scale * slot_value(slot.left, inputs, weights) * slot_value(slot.right, inputs, weights) + slot.shift
        )
    return slot


def embed(matrix: Complex, wires: Sequence[int], n_wires: int) -> Complex:
    """The (N, N) matrix that acts as ``matrix`` on ``wires`` (first most significant) and as 1 on the others."""
    k = len(wires)
    others = [wire for wire in range(n_wires) if wire not in wires]
    full = np.kron(matrix, np.eye(1 << (n_wires - k))).reshape((2,) * (2 * n_wires))
    position = np.argsort([*wires, *others])
    return full.transpose(*position, *(position + n_wires)).reshape(1 << n_wires, 1 << n_wires)


def op_matrix(op: Op, inputs: Real, weights: Real) -> Complex:
    """The small matrix of a primitive gate op."""
    return GATES[op.name].matrix(*(slot_value(slot, inputs, weights) for slot in op.slots))


def unitary(circuit: Circuit, inputs: Real = NOTHING, weights: Real = NOTHING) -> Complex:
    """The (N, N) unitary, global phase included, of a circuit without resets; inputs (i,) and weights (w,)."""
    total = np.eye(1 << circuit.n_wires, dtype=complex)
    for op in circuit.ops:
        total = embed(op_matrix(op, inputs, weights), op.wires, circuit.n_wires) @ total
    phase = sum(slot_value(slot, inputs, weights) for slot in circuit.global_phase)
    return np.exp(1j * phase) * total


def density(circuit: Circuit, inputs: Real = NOTHING, weights: Real = NOTHING) -> Complex:
    """The (N, N) density matrix that a circuit, resets included, makes from |0...0> for one sample."""
    rho = np.zeros((1 << circuit.n_wires,) * 2, dtype=complex)
    rho[0, 0] = 1
    keep, flip = np.array([[1, 0], [0, 0]], dtype=complex), np.array([[0, 1], [0, 0]], dtype=complex)
    for op in circuit.ops:
        small = (keep, flip) if op.name == "reset" else (op_matrix(op, inputs, weights),)
        kraus = [embed(matrix, op.wires, circuit.n_wires) for matrix in small]
        rho = sum((k @ rho @ k.conj().T for k in kraus), np.zeros_like(rho))
    return rho


def reduced(rho: Complex, wires: Sequence[int]) -> Complex:
    """The density matrix of ``wires``, in the caller's order, first most significant."""
    n_wires = len(rho).bit_length() - 1
    others = [wire for wire in range(n_wires) if wire not in wires]
    order = [*wires, *others]
    axes = [*order, *(n_wires + wire for wire in order)]
    size, rest = 1 << len(wires), 1 << len(others)
    return np.einsum("irjr->ij", rho.reshape((2,) * (2 * n_wires)).transpose(axes).reshape(size, rest, size, rest))


def von_neumann(rho: Complex) -> float:
    """``-tr rho ln rho`` in nats."""
    spectrum = np.linalg.eigvalsh(rho)
    return float(-sum(p * np.log(p) for p in spectrum if p > 0))


def renyi2(rho: Complex) -> float:
    """``-ln tr rho**2`` in nats."""
    return float(-np.log(np.trace(rho @ rho).real))


def observable_matrix(observable: PauliSum, n_wires: int) -> Complex:
    """The (N, N) matrix of a sum of Pauli words."""
    total = np.zeros((1 << n_wires,) * 2, dtype=complex)
    for word, coefficient in observable.terms:
        letters = dict(word)
        total = total + coefficient * pauli_matrix("".join(letters.get(wire, "I") for wire in range(n_wires)))
    return total


def expectations(circuit: Circuit, inputs: Real, weights: Real, observables: Sequence[PauliSum]) -> Real:
    """``tr(rho O)``, shape (b, n_obs), for inputs (b, i) and weights (w,)."""
    matrices = [observable_matrix(observable, circuit.n_wires) for observable in observables]
    rows = [[np.trace(density(circuit, row, weights) @ matrix).real for matrix in matrices] for row in inputs]
    return np.array(rows).reshape(len(inputs), len(matrices))


def random_slot(rng: np.random.Generator, n_inputs: int, n_weights: int, depth: int = 2) -> Slot:
    """A number, an input, a weight (scaled, shifted or bare) or a product of slots; few indices, so many are shared."""
    kinds = ["number"] + ["input"] * 2 * (n_inputs > 0) + ["weight"] * 2 * (n_weights > 0) + ["product"] * (depth > 0)
    kind = kinds[rng.integers(len(kinds))]
    bare = rng.random() < 0.3
    scale, shift = (1.0, 0.0) if bare else (round(rng.uniform(-1.5, 1.5), 3), round(rng.uniform(-1, 1), 3))
    if kind == "number":
        return float(rng.uniform(-np.pi, np.pi))
    if kind == "input":
        return Input(int(rng.integers(n_inputs)), scale, shift)
    if kind == "weight":
        return Weight(int(rng.integers(n_weights)), scale, shift)
    left, right = (random_slot(rng, n_inputs, n_weights, depth - 1) for _ in range(2))
    return Product(left, right, round(rng.uniform(-0.3, 0.3), 3), shift)  # small, so that float32 angles mean something


def random_circuit(
    rng: np.random.Generator, n_wires: int, n_ops: int, resets: bool = False, n_inputs: int = 3, n_weights: int = 4
) -> Circuit:
    """A circuit of ``n_ops`` ops as written (composites become several), with slots of all kinds and a global phase.

    Names come from shuffled rounds over every gate, composite and multi-controlled gate that fits, so that about 40
    ops hold each one. With ``resets``, one op in eight is a reset of one or two wires.
    """

    def wanted(name: str) -> int:
        fixed = GATES[name].n_wires if name in GATES else COMPOSITES[name].n_wires if name in COMPOSITES else 0
        return fixed or min(n_wires, int(rng.integers(2, 5)))

    names: list[str] = []
    fitting = [name for name in ALL_NAMES if max(wanted(name), 2 * (name in MULTI_CONTROLLED)) <= n_wires]
    while len(names) < n_ops:
        names += [fitting[k] for k in rng.permutation(len(fitting))]
    ops: list[Op | tuple[Op, ...]] = []
    for name in names[:n_ops]:
        if resets and rng.random() < 0.125:
            ops.append(Reset(int(wire) for wire in rng.permutation(n_wires)[: rng.integers(1, 3)]))
            continue
        table = GATES if name in GATES else COMPOSITES if name in COMPOSITES else MULTI_CONTROLLED
        wires = tuple(int(wire) for wire in rng.permutation(n_wires)[: wanted(name)])
        slots = tuple(random_slot(rng, n_inputs, n_weights) for _ in range(table[name].n_angles))
        ops.append(Op(name, wires, slots))
    phase = tuple(random_slot(rng, n_inputs, n_weights) for _ in range(rng.integers(3)))
    return Circuit(n_wires, tuple(ops), phase)  # pyright: ignore[reportArgumentType] -- nested tuples are flattened


def random_data(rng: np.random.Generator, circuit: Circuit, batch: int) -> tuple[Real, Real]:
    """Inputs (b, n_inputs) and weights (n_weights,) in radians for a circuit."""
    return rng.uniform(-3, 3, (batch, circuit.n_inputs)), rng.uniform(-3, 3, circuit.n_weights)


_AFFINE = {"scale": st.floats(-2, 2), "shift": st.floats(-2, 2)}


def slots_strategy(n_inputs: int = 3, n_weights: int = 4) -> st.SearchStrategy[Slot]:
    """Any slot, products nested a few deep."""
    leaf = st.one_of(
        st.floats(-4, 4),
        st.builds(Input, st.integers(0, n_inputs - 1), **_AFFINE),
        st.builds(Weight, st.integers(0, n_weights - 1), **_AFFINE),
    )
    return st.recursive(leaf, lambda inner: st.builds(Product, inner, inner, **_AFFINE), max_leaves=3)


@st.composite
def circuits_strategy(
    draw: st.DrawFn, max_wires: int = 4, max_ops: int = 8, resets: bool = False, primitive: bool = False
) -> Circuit:
    """Any circuit up to ``max_wires`` wires and ``max_ops`` ops as written; ``primitive`` leaves composites out."""
    n_wires = draw(st.integers(1, max_wires))
    arities = {name: (gate.n_wires, gate.n_angles) for name, gate in GATES.items()}
    if not primitive:
        arities |= {name: (gate.n_wires, gate.n_angles) for name, gate in COMPOSITES.items()}
        arities |= {name: (max(2, n_wires), gate.n_angles) for name, gate in MULTI_CONTROLLED.items()}
    if resets:
        arities["reset"] = (1, 0)
    fitting = [name for name, (arity, _) in arities.items() if arity <= n_wires]
    ops: list[Op] = []
    for name in draw(st.lists(st.sampled_from(fitting), max_size=max_ops)):
        arity, n_angles = arities[name]
        wires = tuple(draw(st.permutations(range(n_wires)))[:arity])
        ops.append(Op(name, wires, tuple(draw(slots_strategy()) for _ in range(n_angles))))
    return Circuit(n_wires, tuple(ops), tuple(draw(st.lists(slots_strategy(), max_size=2))))

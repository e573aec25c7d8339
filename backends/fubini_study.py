"""The Fubini-Study metric of a circuit's weights: measured block by block on any backend, or whole, from states.

How far a state moves when weights move: ``1 - |<psi(w)|psi(w + d)>|^2 = d^T g d + O(d^3)``; g is a quarter of the
quantum Fisher information.

Axis legend: b batch, a angles, w weights, m angles of one layer, N = 2**n amplitudes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from circuits import GATES, Circuit, Op, PauliSum, Weight, pauli_word
from circuits.gates import pauli_matrix
from circuits.passes import require_unitary
from circuits.slots import Input, Product, Slot, leaves


@dataclass(frozen=True)
class Layer:
    """Trainable angles that can be moved next to each other: all turn the state that ``prefix`` prepares.

    ``columns``: their columns of ``circuit.angles``; ``words``: their generators, which commute.
    """

    prefix: Circuit
    columns: tuple[int, ...]
    words: tuple[PauliSum, ...]


@lru_cache(maxsize=64)
def trainable_layers(circuit: Circuit) -> tuple[Layer, ...]:
    """Return the circuit's trainable angles in layers, each as early and as large as commuting gates allow.

    A gate joins a layer where it commutes with every gate before it that is not done yet: on other wires, or with a
    commuting generator or matrix. Raises ValueError for a circuit with resets or without weights. Cost O(ops^2).

    >>> from circuits.library import hardware_efficient
    >>> [len(layer.columns) for layer in trainable_layers(hardware_efficient(4, 1))]  # all RX, all RY, all RZ
    [4, 4, 4]
    """
    require_unitary(validate.circuit(circuit), "the Fubini-Study metric")
    if not circuit.n_weights:
        raise ValueError("the Fubini-Study metric expects a circuit with weights, got none; write a Weight.")
    return tuple(_layers(circuit))


Placed = tuple[Op, int]
"""An op and the column of its angle."""


def _layers(circuit: Circuit) -> Iterator[Layer]:
    columns = np.cumsum([0, *(len(op.slots) for op in circuit.ops)])
    done: list[Op] = []
    waiting = [(op, int(column)) for op, column in zip(circuit.ops, columns[:-1], strict=True)]
    while waiting:
        fixed, waiting = _front(waiting, trainable=False)
        done += [op for op, _ in fixed]
        layer, waiting = _front(waiting, trainable=True)
        if layer:
            words = tuple(pauli_word(GATES[op.name].generator, op.wires) for op, _ in layer)
            yield Layer(Circuit(circuit.n_wires, tuple(done)), tuple(column for _, column in layer), words)
        done += [op for op, _ in layer]


def _front(ops: Sequence[Placed], trainable: bool) -> tuple[list[Placed], list[Placed]]:
    """Ops of one sort that commute with all ops left before them, and those that are left, each in program order.

    Trainable ones must commute with each other too.
    """
    free: list[Placed] = []
    left: list[Placed] = []
    for op, column in ops:
        before = (*left, *free) if trainable else left
        joins = _is_trainable(op) is trainable and all(commute(op, earlier) for earlier, _ in before)
        (free if joins else left).append((op, column))
    return free, left


def _is_trainable(op: Op) -> bool:
    return any(isinstance(leaf, Weight) for slot in op.slots for leaf in leaves(slot))


def commute(one: Op, other: Op) -> bool:
    """Return whether two gates commute at every angle.

    >>> commute(Op("rz", (0,), (0.1,)), Op("cz", (0, 1))), commute(Op("rx", (0,), (0.1,)), Op("cz", (0, 1)))
    (True, False)
    """
    wires = sorted({*one.wires, *other.wires})
    if len(wires) == len(one.wires) + len(other.wires):
        return True
    places = [tuple(wires.index(wire) for wire in op.wires) for op in (one, other)]
    return _commute(one.name, places[0], other.name, places[1], len(wires))


@lru_cache(maxsize=4096)
def _commute(one: str, wires: tuple[int, ...], other: str, others: tuple[int, ...], n_wires: int) -> bool:
    """For rotations by their generators: what commutes with P commutes with every rotation about it."""
    a, b = _embedded(one, wires, n_wires), _embedded(other, others, n_wires)
    return bool(np.allclose(a @ b, b @ a))


def _embedded(name: str, wires: tuple[int, ...], n_wires: int) -> NDArray[np.complexfloating]:
    """The gate's matrix, or a rotation's generator, on ``n_wires`` wires."""
    gate = GATES[name]
    small = pauli_matrix(gate.generator) if gate.generator else gate.matrix()
    rest = [wire for wire in range(n_wires) if wire not in wires]
    full = np.kron(small, np.eye(1 << len(rest))).reshape((2,) * (2 * n_wires))
    position = np.argsort([*wires, *rest])
    return full.transpose(*position, *(position + n_wires)).reshape(1 << n_wires, 1 << n_wires)


def block_metric(
    backend: Backend,
    circuit: Circuit,
    inputs: Any = None,
    weights: Any = None,
    *,
    shots: int | None = None,
    seed: int | None = None,
) -> Estimate:
    """Return the block-diagonal Fubini-Study metric of the weights, shape (w, w), averaged over the batch.

    In each layer ``g_ij = (<P_i P_j> - <P_i> <P_j>) / 4`` on the state before it, which is exact; pairs of angles in
    different layers are left out. Angles become weights by ``J^T g J``, ``J = d angles / d weights``, so that shared,
    scaled and multiplied weights are counted; a weight that stands in several layers (as in a decomposed controlled
    rotation) lacks the terms between them. Pauli expectations of one prefix circuit per layer, hence on any backend.
    ``stderr`` and ``truncation_error`` bound what those expectations carry to first order, however they are correlated
    within a layer; a noisy backend's metric is that of its mixed state's expectations. ``shots`` counts all layers.

    Raises ValueError for resets, no weights, or an empty batch. Cost: one call per layer, m (m + 1) / 2 words each.
    Source: Stokes, Izaac, Killoran, Carleo 2020, Quantum 4, 269, equations 18 to 20.

    >>> from backends import open_backend
    >>> turn = Circuit(1, (Op("ry", (0,), (Weight(0),)), Op("rz", (0,), (Weight(1),))))
    >>> block_metric(open_backend("statevector"), turn, None, torch.tensor([torch.pi / 2, 0.0])).values
    tensor([[0.2500, 0.0000],
            [0.0000, 0.2500]])
    """
    layers = trainable_layers(circuit)
    call = validate.call(backend.capabilities, circuit, inputs, weights, shots, seed)
    if call.empty:
        raise ValueError("the Fubini-Study metric expects at least one sample, got an empty batch; pass inputs.")
    slopes = _slopes(circuit, inputs, weights).to(call.angles)
    values, variance, bias = (call.angles.new_zeros((circuit.n_weights,) * 2) for _ in range(3))
    spent: int | None = None
    with torch.no_grad(), call.precision():
        for number, layer in enumerate(layers):
            own_seed = None if seed is None else seed + number
            part = _covariance(backend, layer, inputs, weights, shots, own_seed)
            turn = slopes[:, list(layer.columns)]
            values += _pulled_back(part.values, turn).mean(0)
            errors = _pulled_back(part.stderr, turn.abs())
            # Samples are measured apart, unless no input enters the prefix: then all share one measurement.
            shared = len(part.values) == 1
            variance += errors.mean(0).square() if shared else errors.square().mean(0) / len(errors)
            bias += _pulled_back(part.truncation_error, turn.abs()).mean(0)
            if part.shots is not None:
                spent = part.shots + (spent or 0)
    return Estimate(values, variance.sqrt(), spent, bias)


def _pulled_back(metric: Tensor, slopes: Tensor) -> Tensor:
    """``J_b^T g_b J_b``, shape (b, w, w), of metrics (b or 1, m, m) and slopes (b or 1, m, w)."""
    return slopes.mT @ metric.to(slopes) @ slopes


def _covariance(
    backend: Backend, layer: Layer, inputs: Any, weights: Any, shots: int | None, seed: int | None
) -> Estimate:
    """A quarter of the generators' covariance (b, m, m), with a bound on its error."""
    words, prefix = layer.words, layer.prefix
    n = len(words)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    observables = (*words, *(words[i] @ words[j] for i, j in pairs))
    own_inputs = torch.as_tensor(inputs)[:, : prefix.n_inputs] if prefix.n_inputs else None
    own_weights = torch.as_tensor(weights)[: prefix.n_weights]
    found = backend.expectations(prefix, own_inputs, own_weights, observables, shots=shots, seed=seed)

    def square(columns: Tensor, diagonal: float) -> Tensor:
        """The pairs' figures (b, pairs) as symmetric matrices (b, n, n)."""
        full = torch.full((len(columns), n, n), diagonal, dtype=columns.dtype, device=columns.device)
        if pairs:
            rows, others = (torch.tensor(side, device=columns.device) for side in zip(*pairs, strict=True))
            full[:, rows, others] = columns
            full[:, others, rows] = columns
        return full

    def spread(errors: Tensor) -> Tensor:
        """What errors of the means and pairs do to a covariance, at most."""
        means, own = found.values[:, :n].abs(), errors[:, :n]
        crossed = means[:, :, None] * own[:, None, :]
        return (square(errors[:, n:], 0.0) + crossed + crossed.mT + own[:, :, None] * own[:, None, :]) / 4

    means = found.values[:, :n]
    values = (square(found.values[:, n:], 1.0) - means[:, :, None] * means[:, None, :]) / 4
    return Estimate(values, spread(found.stderr), found.shots, spread(found.truncation_error))


def _slopes(circuit: Circuit, inputs: Any, weights: Any) -> Tensor:
    """``d angles / d weights``, shape (b, a, w); (1, a, w) where no angle reads both inputs and weights."""
    point = torch.as_tensor(weights).detach().double()
    mixed = any({Input, Weight} <= {type(leaf) for leaf in leaves(slot)} for slot in circuit.slots)
    rows = torch.as_tensor(inputs).detach().double() if mixed else point.new_zeros((1, circuit.n_inputs))
    slopes = point.new_zeros((len(rows), circuit.n_angles, circuit.n_weights))
    for column, slot in enumerate(circuit.slots):
        for index, slope in _derivatives(slot, rows, point)[1].items():
            slopes[:, column, index] = slope
    return slopes


def _derivatives(slot: Slot, inputs: Tensor, weights: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """A slot's value (b,), and its derivative for each weight that it reads."""
    ones = inputs.new_ones(len(inputs))
    if isinstance(slot, Input):
        return slot.scale * inputs[:, slot.index] + slot.shift, {}
    if isinstance(slot, Weight):
        return (slot.scale * weights[slot.index] + slot.shift) * ones, {slot.index: slot.scale * ones}
    if not isinstance(slot, Product):
        return slot * ones, {}
    left, left_slopes = _derivatives(slot.left, inputs, weights)
    right, right_slopes = _derivatives(slot.right, inputs, weights)
    nothing = 0 * ones
    slopes = {
        index: slot.scale * (left_slopes.get(index, nothing) * right + left * right_slopes.get(index, nothing))
        for index in {*left_slopes, *right_slopes}
    }
    return slot.scale * left * right + slot.shift, slopes


def full_metric(backend: Backend, circuit: Circuit, inputs: Any = None, weights: Any = None) -> Estimate:
    """Return the whole Fubini-Study metric, shape (w, w), averaged over the batch, from states.

    ``g_ij = Re (<d_i psi|d_j psi> - <d_i psi|psi> <psi|d_j psi>)``; ``|d_k psi>`` is ``-i/2`` times the state of the
    circuit with P_k after its rotation. Raises ValueError where the backend holds no state, for resets and without
    weights. Cost: one state per trainable angle, and O(b a^2 N).

    >>> from backends import open_backend
    >>> from circuits.library import hardware_efficient
    >>> circuit, weights = hardware_efficient(2, 2), torch.linspace(0, 3, 12, dtype=torch.float64)
    >>> whole = full_metric(open_backend("statevector"), circuit, None, weights).values
    >>> blocks = block_metric(open_backend("statevector"), circuit, None, weights).values
    >>> torch.allclose(whole[:2, :2].diagonal(), blocks[:2, :2].diagonal())
    True
    """
    require_unitary(validate.circuit(circuit), "the Fubini-Study metric")
    if not circuit.n_weights:
        raise ValueError("the Fubini-Study metric expects a circuit with weights, got none; write a Weight.")
    if validate.call(backend.capabilities, circuit, inputs, weights, None, None).empty:
        raise ValueError("the Fubini-Study metric expects a row of inputs at least, got an empty batch; pass one.")
    with torch.no_grad():
        slopes = _slopes(circuit, inputs, weights)
        psi = backend.state(circuit, inputs, weights).values
        trainable = [position for position, op in enumerate(circuit.ops) if _is_trainable(op)]
        columns = np.cumsum([0, *(len(op.slots) for op in circuit.ops)])
        turned = [backend.state(_with_generator(circuit, k), inputs, weights).values for k in trainable]
        moved = torch.stack(turned, 1)  # (b, a, N); the factors -i/2 leave a quarter
        along = (moved.conj() @ psi[:, :, None]).squeeze(2)
        metric = (moved.conj() @ moved.mT - along[:, :, None] * along[:, None, :].conj()).real / 4
        return Estimate(_pulled_back(metric, slopes.to(metric)[:, columns[trainable]]).mean(0))


def _with_generator(circuit: Circuit, position: int) -> Circuit:
    """The circuit with the generator of one rotation applied after it, as Pauli gates."""
    op = circuit.ops[position]
    letters = zip(GATES[op.name].generator.lower(), op.wires, strict=True)
    paulis = tuple(Op(letter, (wire,)) for letter, wire in letters if letter != "i")
    return Circuit(circuit.n_wires, (*circuit.ops[: position + 1], *paulis, *circuit.ops[position + 1 :]))

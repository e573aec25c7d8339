"""What kernel attention compares tokens by: states of a circuit, or a classical kernel in their place.

Axis legend: n tokens, w inputs of the circuit, p keys of a window, m numbers of a row, N = 2**wires amplitudes.
"""

import math
from dataclasses import replace
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import Backend
from backends.estimate import Estimate
from backends.gradients import expectations_with_gradient
from backends.operator import operator, watched
from circuits import Circuit, Op, PauliSum, Z
from circuits._suggest import unknown
from circuits.passes import inverse, require_unitary
from circuits.slots import Input, Product, Slot
from classical_kernels.linear_attention.features import Fidelity, Overlap, ScaledDot
from qlm.controls import CircuitPart, QuantumPart, build_part
from qlm.quantum import LayerReport, QuantumLayer

MAX_PAIR_WIRES = 10
"""Wires of a compute-uncompute circuit: its observable is a sum of 2**n words, all measured in one basis."""
_BEND_SPREAD = 0.1
"""Standard deviation of a fresh twin's last layer, in radians."""
TWINS = ("product", "dot")
"""Classical kernels that can stand in a circuit's place."""


class KernelLayer(QuantumLayer):
    """A feature map ``|phi(x)> = U(x, w)|0>``: its states, and its kernel ``|<phi(x)|phi(y)>|^2`` where none are held.

    Raises what ``QuantumLayer`` raises, and ValueError for a circuit with resets.

    >>> from circuits.library import angle_encoding
    >>> layer = KernelLayer(angle_encoding(1))
    >>> x, y = torch.tensor([[0.0]]), torch.tensor([[torch.pi / 2]])
    >>> layer.states(y), layer.overlaps(x, y)
    (tensor([[0.7071, 0.7071, 0.0000, 0.0000]]), tensor([0.5000]))
    """

    def __init__(self, circuit: Circuit, backend: str | Backend = "statevector") -> None:
        super().__init__(circuit, (Z(0),), backend)
        require_unitary(circuit, "a quantum kernel")
        self.pair = circuit + _reading_later_inputs(inverse(circuit), circuit.n_inputs)

    @property
    def has_states(self) -> bool:
        """Whether the backend holds states, with their gradient where one is recorded."""
        capable = self.backend.capabilities
        return capable.state and (capable.autograd or not torch.is_grad_enabled())

    def states(self, inputs: Tensor) -> Tensor:
        """Return the states of inputs (n, w) as rows ``[Re | Im]``, shape (n, 2 N)."""
        if watched():
            return self._states_operator(inputs, self._weights_for(inputs))[0].to(inputs.dtype)
        self.report = LayerReport(len(inputs), None, 0.0)
        if not len(inputs):  # as every backend answers an empty batch, also one that holds no states
            return inputs.new_zeros(0, 2 ** (self.circuit.n_wires + 1)) + 0 * self.weights.sum()
        with self._labelled():
            rows = _states(self.backend, self.circuit, (), inputs, self._weights_for(inputs), None).values
        return rows.to(inputs.dtype)

    def overlaps(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``|<phi(y)|phi(x)>|^2`` of inputs (n, w) each, shape (n,): all zeros after ``U(y)^dagger U(x)``.

        One batched call of n circuits; the gradient is one more, by the shift rule. ValueError above 10 wires.
        """
        with self._labelled():
            both = torch.cat((x, y), -1)
            estimate = expectations_with_gradient(
                self.backend,
                self.pair,
                both,
                self._weights_for(x),
                (self._all_zeros,),
                gradient=self.gradient,
                seed=self._seed(),
            )
        stderr = float(estimate.stderr.mean()) if len(x) else 0.0
        self.report = LayerReport(len(x), estimate.shots, stderr)
        return estimate.values[:, 0].to(x.dtype)

    def _prepare(self) -> None:
        super()._prepare()
        self._states_operator = operator(_states, self.backend, self.circuit, (), (2 ** (self.circuit.n_wires + 1),))

    @cached_property
    def _all_zeros(self) -> PauliSum:
        """``|0...0><0...0| = prod_i (1 + Z_i) / 2``."""
        n_wires = self.circuit.n_wires
        if n_wires > MAX_PAIR_WIRES:
            raise ValueError(
                f"compute-uncompute expects at most {MAX_PAIR_WIRES} wires, got {n_wires}; use a backend with states."
            )
        return reduce(PauliSum.__matmul__, (0.5 * (1 + Z(wire)) for wire in range(n_wires)))


def _states(
    backend: Backend,
    circuit: Circuit,
    options: tuple[Any, ...],  # noqa: ARG001 (an Estimator's signature)
    inputs: Tensor,
    weights: Tensor,
    seed: int | None,  # noqa: ARG001 (an Estimator's signature)
) -> Estimate:
    """States as rows ``[Re | Im]``."""
    values = backend.state(circuit, inputs, weights).values
    return Estimate(torch.cat((values.real, values.imag), -1))


def _reading_later_inputs(circuit: Circuit, offset: int) -> Circuit:
    """The circuit with its inputs renumbered by ``offset``."""

    def moved(slot: Slot) -> Slot:
        if isinstance(slot, Input):
            return replace(slot, index=slot.index + offset)
        if isinstance(slot, Product):
            return replace(slot, left=moved(slot.left), right=moved(slot.right))
        return slot

    ops = tuple(Op(op.name, op.wires, tuple(moved(slot) for slot in op.slots)) for op in circuit.ops)
    return Circuit(circuit.n_wires, ops, tuple(moved(slot) for slot in circuit.global_phase))


class CircuitKernel(CircuitPart[KernelLayer]):
    """Queries and keys as states of one circuit; where there are no states, their overlaps.

    ``executions``: circuits of the last call.
    """

    def __init__(self, circuit: Circuit, backend: str | Backend) -> None:
        super().__init__(KernelLayer(circuit, backend))
        self.similarity = Fidelity()
        self.executions = 0

    def init_weights(self) -> None:
        """Draw fresh weights."""
        self.layer.reset_parameters()

    @property
    def has_states(self) -> bool:
        """Whether ``forward`` can return states here."""
        return self.layer.has_states

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the states of queries (n, w) and keys (n, w), shape (n, 2, 2 N).

        Given a window of keys (n, p, w) and which of them are ``seen`` (n, p), return their overlaps (n, p) by
        compute-uncompute, 0 where they are not seen.
        """
        if seen is None:
            self.executions = 2 * len(queries)
            return self.layer.states(torch.stack((queries, keys), 1).flatten(0, 1)).unflatten(0, (-1, 2))
        row, place = seen.nonzero(as_tuple=True)
        self.executions = len(row)
        found = self.layer.overlaps(queries[row], keys[row, place])
        return torch.zeros_like(keys[..., 0]).index_put((row, place), found)


class TwinKernel(QuantumPart):
    """The classical control: ``prod_i cos^2((x_i - y_i) / 2)``, or ``x . y / sqrt(w)``, of trainably bent angles.

    ``x = a + V tanh(U a / pi + c)`` of the circuit's own angles a, with a hidden width that makes the parameter count
    the nearest to ``n_parameters``, the circuit's weights; none for a circuit without weights, where x = a. The product
    is the closed form of the unentangled angle encoding's kernel; its rows are the amplitudes ``(x) (cos x_i/2, sin
    x_i/2)``. ``kind``: one of ``TWINS``.

    >>> twin = TwinKernel("product", 2, 12)
    >>> twin.n_parameters, twin(torch.zeros(3, 2), torch.zeros(3, 2)).shape
    (10, torch.Size([3, 2, 4]))
    """

    has_states = True
    executions = 0
    shots = None

    def __init__(self, kind: str, n_inputs: int, n_parameters: int) -> None:
        super().__init__()
        n_hidden = max(1, round(n_parameters / (2 * n_inputs + 1))) if n_parameters else 0
        self.kind = kind
        self.similarity = Overlap() if kind == "product" else ScaledDot()
        self.bend = _Bend(n_inputs, n_hidden) if n_hidden else None
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """A fresh twin bends little."""
        if self.bend is not None:
            nn.init.normal_(self.bend.outer.weight, 0.0, _BEND_SPREAD)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return rows (n, 2, m) of queries and keys (n, w)."""
        angles = torch.stack((queries, keys), 1)
        bent = angles if self.bend is None else self.bend(angles)
        if self.kind == "dot":
            return bent
        pairs = torch.stack((torch.cos(bent / 2), torch.sin(bent / 2)), -1)
        return reduce(lambda a, b: (a[..., :, None] * b[..., None, :]).flatten(-2), pairs.unbind(-2))


class _Bend(nn.Module):
    """``a + V tanh(U a / pi + c)``."""

    def __init__(self, n_inputs: int, n_hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_inputs, n_hidden)
        self.outer = nn.Linear(n_hidden, n_inputs, bias=False)

    def forward(self, angles: Tensor) -> Tensor:
        return angles + self.outer(torch.tanh(self.inner(angles / math.pi)))


def check_twin(kind: str) -> None:
    """Raise ValueError for a twin that is not one of ``TWINS`` (did you mean ...).

    >>> check_twin("dot")
    """
    if kind not in TWINS:
        raise ValueError(unknown("kernel twin", kind, TWINS))


def build_kernel(
    mode: str, circuit: Circuit, backend: str | Backend, twin: str = "product"
) -> CircuitKernel | TwinKernel | None:
    """Return a ``CircuitKernel`` or a ``TwinKernel``, as ``build_part`` does; ValueError for an unknown twin too.

    >>> from circuits.library import angle_encoding
    >>> build_kernel("off", angle_encoding(2), "statevector") is None
    True
    """
    check_twin(twin)
    return build_part(
        mode,
        circuit,
        lambda kept: CircuitKernel(kept, backend),
        lambda: TwinKernel(twin, circuit.n_inputs, circuit.n_weights),
    )

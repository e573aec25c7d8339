"""The quantum part of a block, and the classical controls that stand in its place: one interface.

Axis legend: n tokens, w wires, o observables.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit, PauliSum
from circuits._suggest import unknown
from circuits.passes import separable
from qlm.quantum import QuantumLayer

Layer = TypeVar("Layer", bound=QuantumLayer)
Part = TypeVar("Part", bound="CircuitPart")
Twin = TypeVar("Twin", bound="QuantumPart")

QUANTUM_MODES = ("circuit", "twin", "separable", "frozen", "off")
"""How a block that holds a circuit can be built."""


class Core(Protocol):
    """What a block asks of its quantum part or a stand-in: features (n, o) in [-1, 1] of angles (n, w)."""

    def __call__(self, angles: Tensor) -> Tensor: ...

    def hardness(self, angles: Tensor) -> Tensor:
        """Hardness in [0, 1], shape (n,)."""
        ...


class QuantumPart(nn.Module):
    """What a block's mode swaps: its circuits or their classical twin. ``forward`` returns a row per token, (n, ...).

    Evaluation counts its parameters, takes the gradient's norm over them, and replaces its output by the mean.

    >>> TwinCore(4, 8, 36).is_twin
    True
    """

    @property
    def n_parameters(self) -> int:
        """Numbers in it."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def is_twin(self) -> bool:
        """Whether it holds no circuit."""
        return not any(isinstance(module, QuantumLayer) for module in self.modules())


class CircuitPart(QuantumPart, Generic[Layer]):
    """What a circuit's layer returns. ``wires``: the side of the cut whose entropy is measured, the first half.

    >>> from circuits import Z
    >>> from circuits.library import reuploading
    >>> part = CircuitPart(QuantumLayer(reuploading(4, 1), (Z(0),)))
    >>> part.wires, part.is_twin
    ((0, 1), False)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.wires = tuple(range(max(1, layer.circuit.n_wires // 2)))

    @property
    def shots(self) -> int | None:
        """Shots of each circuit in the last call; None where the backend is exact, and before one."""
        return None if self.layer.report is None else self.layer.report.shots


class CircuitCore(CircuitPart[QuantumLayer]):
    """Expectations of a circuit, and its normalised entanglement entropy ``S(rho_A) / S_max`` as hardness.

    A is the first half of the wires, ``S_max = min(|A|, |B|) ln 2``. The entropy carries a gradient where the backend
    is differentiable, else none. On a noisy backend it is the subsystem's entropy and includes noise. Where no gate
    joins A and B it is 0 by construction, and nothing runs.
    """

    def __init__(self, circuit: Circuit, observables: Sequence[PauliSum], backend: str | Backend) -> None:
        super().__init__(QuantumLayer(circuit, observables, backend))
        joined = any(len({wire in self.wires for wire in op.wires}) > 1 for op in circuit.ops)
        self.can_entangle = joined or not circuit.is_unitary
        if self.can_entangle:
            self.layer.will_ask_entropy(self.wires)

    @property
    def max_entropy(self) -> float:
        """``min(|A|, |B|) ln 2`` in nats."""
        return min(len(self.wires), self.layer.circuit.n_wires - len(self.wires)) * math.log(2)

    @property
    def executions_per_token(self) -> int:
        """Circuits run for one token: one for its features, and one for its hardness where there is any."""
        return 1 + self.can_entangle

    def forward(self, angles: Tensor) -> Tensor:
        return self.layer(angles)

    def hardness(self, angles: Tensor) -> Tensor:
        if not self.can_entangle:
            return angles.new_zeros(len(angles))
        entropy = self.layer.entropy(angles, self.wires).values
        return (entropy / self.max_entropy).clamp(0.0, 1.0).to(angles.dtype)


class TwinCore(QuantumPart):
    """The classical control: a tanh network whose one hidden layer feeds the features and a learned scalar hardness.

    The hidden width makes its parameter count the nearest to ``n_parameters``, the circuit's weights: equal to within
    the larger of 2 % and one hidden unit, else ValueError. Angles are divided by pi first, so that inputs are in
    [-1, 1].

    >>> TwinCore(4, 8, 36).n_parameters
    37
    """

    def __init__(self, n_inputs: int, n_outputs: int, n_parameters: int) -> None:
        super().__init__()
        unit, biases = n_inputs + n_outputs + 2, n_outputs + 1
        n_hidden = max(1, round((n_parameters - biases) / unit))
        if abs(n_hidden * unit + biases - n_parameters) > max(unit, 0.02 * n_parameters):
            raise ValueError(
                f"a twin expects a circuit of at least {biases} weights, got {n_parameters}: no network of {n_inputs} "
                f"inputs and {n_outputs} features is as small; deepen the circuit or use another mode."
            )
        self.inner = nn.Linear(n_inputs, n_hidden)
        self.outer = nn.Linear(n_hidden, n_outputs + 1)

    def forward(self, angles: Tensor) -> Tensor:
        return torch.tanh(self._outer(angles)[..., :-1])

    def hardness(self, angles: Tensor) -> Tensor:
        return torch.sigmoid(self._outer(angles)[..., -1])

    def _outer(self, angles: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(angles / math.pi)))


def check_mode(mode: str) -> None:
    """Raise ValueError for a mode that is not one of ``QUANTUM_MODES`` (did you mean ...).

    >>> check_mode("twin")
    """
    if mode not in QUANTUM_MODES:
        raise ValueError(unknown("quantum mode", mode, QUANTUM_MODES))


def build_part(
    mode: str, circuit: Circuit, part: Callable[[Circuit], Part], twin: Callable[[], Twin]
) -> Part | Twin | None:
    """Return the quantum part in one of ``QUANTUM_MODES``: ``part(circuit)``, ``twin()``, or None for "off".

    "separable" drops the entangling gates, "frozen" keeps the circuit's first weights. Raises ValueError for another
    mode (did you mean ...).

    >>> from circuits.library import reuploading
    >>> build_part("off", reuploading(2, 1), CircuitPart, QuantumPart) is None
    True
    """
    check_mode(mode)
    if mode == "off":
        return None
    if mode == "twin":
        return twin()
    built = part(separable(circuit) if mode == "separable" else circuit)
    built.layer.weights.requires_grad_(mode != "frozen")
    return built


def build_core(
    mode: str, circuit: Circuit, observables: Sequence[PauliSum], backend: str | Backend
) -> CircuitCore | TwinCore | None:
    """Return a ``CircuitCore`` or a ``TwinCore``, as ``build_part`` does.

    >>> from circuits import Z
    >>> from circuits.library import reuploading
    >>> build_core("off", reuploading(2, 1), (Z(0),), "statevector") is None
    True
    """
    return build_part(
        mode,
        circuit,
        lambda kept: CircuitCore(kept, observables, backend),
        lambda: TwinCore(circuit.n_inputs, len(observables), circuit.n_weights),
    )

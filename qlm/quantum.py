"""A circuit as a torch layer.

Axis legend: b batch, i inputs, o observables; ... any leading axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from backends.gradients import Gradient, expectations_with_gradient, rule_for
from backends.operator import Operator, operator, watched
from backends.registry import open_backend
from circuits import Circuit, PauliSum

WEIGHT_SPREAD = 0.1
"""Standard deviation of fresh circuit weights, in radians."""


@dataclass(frozen=True)
class LayerReport:
    """What the last call did: circuit executions (one per sample), shots per sample, and the mean standard error."""

    executions: int
    shots: int | None
    mean_stderr: float


class QuantumLayer(nn.Module):
    """``f_j(x) = <0| U(x, w)^dagger O_j U(x, w) |0>``: (..., i) to (..., o); owns only the weights w.

    ``backend`` is a string or a Backend; ``gradient`` None means the backend's native method, or one batched
    parameter-shift call where it has none. Angles are in radians; fresh weights are N(0, ``spread``**2), and spread 0
    starts every trainable rotation at the identity. Weights stay float32 under ``half()`` and ``bfloat16()``. On a
    backend with shots the seed of each call is drawn from torch's generator, so that checkpoints repeat it. Raises
    TypeError or ValueError when it is built for anything but a circuit, a sequence of observables on it, a backend and
    a rule; when called, with the layer's ``label``, for anything but a tensor of finite angles of the right width.

    >>> from circuits import Input, Op, Weight, Z
    >>> circuit = Circuit(1, (Op("ry", (0,), (Input(0),)), Op("rx", (0,), (Weight(0),))))
    >>> QuantumLayer(circuit, (Z(0),))(torch.zeros(3, 1)).shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        circuit: Circuit,
        observables: Sequence[PauliSum],
        backend: str | Backend = "statevector",
        gradient: str | Gradient | None = None,
        spread: float = WEIGHT_SPREAD,
    ) -> None:
        super().__init__()
        self.circuit = validate.circuit(circuit)
        if isinstance(observables, PauliSum):
            raise TypeError(
                "QuantumLayer expects a sequence of observables, got a PauliSum; write (Z(0),) with a comma."
            )
        self.observables = validate.observables(circuit, observables)
        self.gradient = gradient
        self._entropies: dict[tuple[tuple[int, ...], str], Operator] = {}
        self.backend = open_backend(backend)
        self.spread = spread
        self.label = "quantum"
        self.report: LayerReport | None = None
        self.weights = nn.Parameter(torch.empty(circuit.n_weights, dtype=torch.float32))
        self.reset_parameters()

    @property
    def backend(self) -> Backend:
        """Where the circuit runs; setting another one is all it takes to change it."""
        return self._backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        if self.gradient is not None:
            rule_for(backend, self.gradient)  # refuses what is no rule
        self._backend = backend
        self._prepare()

    def _prepare(self) -> None:
        """Make the operators of what can be asked of the backend."""
        self._operator = operator(self._estimate, self.backend, self.circuit, self._options(), self._shape())
        self._entropies = {asked: self._entropy_operator(*asked) for asked in self._entropies}

    def _options(self) -> tuple[Any, ...]:
        """What ``_estimate`` needs to know beside backend and circuit."""
        return self.observables, self.gradient

    def _shape(self) -> tuple[int, ...]:
        """The shape of one sample's values."""
        return (len(self.observables),)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        nn.init.normal_(self.weights, 0.0, self.spread)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the expectations (..., o) in the inputs' floating dtype; ``report`` then says what the call cost."""
        if watched():
            values, _ = self._operator(self._flat(inputs), self._weights_for(inputs))
        else:
            with self._labelled():
                values = self._measured(self._flat(inputs), self._weights_for(inputs))
        values = values.unflatten(0, inputs.shape[:-1]) if inputs.ndim > 2 else values
        return values.to(inputs.dtype) if inputs.is_floating_point() else values

    def _measured(self, flat: Tensor, weights: Tensor) -> Tensor:
        """Values (b, ...), and a report on them."""
        estimate = self._operator.run(flat, weights, self._seed())
        stderr = float(estimate.stderr.mean()) if estimate.shots and len(flat) else 0.0
        self.report = LayerReport(len(flat), estimate.shots, stderr)
        return estimate.values

    @staticmethod
    def _estimate(
        backend: Backend,
        circuit: Circuit,
        options: tuple[Any, ...],
        inputs: Tensor,
        weights: Tensor,
        seed: int | None,
    ) -> Estimate:
        """Values (b, ...) with gradients of inputs (b, i) and weights."""
        observables, gradient = options
        return expectations_with_gradient(backend, circuit, inputs, weights, observables, gradient=gradient, seed=seed)

    def entropy(self, inputs: Tensor, wires: Sequence[int], kind: str = "von_neumann") -> Estimate:
        """Return the subsystem entropy (nats, shape (b,)) of the circuit's state at each input.

        Inside a compiled graph, and under torch.func, only those announced by ``will_ask_entropy``.
        """
        if watched():
            asked = self._entropies[tuple(wires), kind]
            return Estimate(*asked(inputs, self._weights_for(inputs)))
        with self._labelled():
            return self.backend.entropy(
                self.circuit, self._tensor(inputs), self._weights_for(inputs), wires=wires, kind=kind, seed=self._seed()
            )

    def will_ask_entropy(self, wires: Sequence[int], kind: str = "von_neumann") -> None:
        """Announce an entropy, so that compiled graphs can hold it."""
        self._entropies[tuple(wires), kind] = self._entropy_operator(tuple(wires), kind)

    def _entropy_operator(self, wires: tuple[int, ...], kind: str) -> Operator:
        return operator(_entropy, self.backend, self.circuit, (wires, kind), ())

    def _flat(self, inputs: Tensor) -> Tensor:
        """The inputs with all leading axes in one."""
        if self._tensor(inputs).ndim < 3:
            return inputs
        if inputs.shape[-1] != self.circuit.n_inputs:
            raise ValueError(
                f"inputs expect shape (..., {self.circuit.n_inputs}), got {tuple(inputs.shape)}; give one column per "
                "Input."
            )
        return inputs.flatten(0, -2)

    def _tensor(self, inputs: object) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise TypeError(f"inputs expect a torch tensor, got {type(inputs).__name__}; pass torch.as_tensor of it.")
        return inputs

    def _weights_for(self, inputs: Tensor) -> Tensor:
        return self.weights.to(inputs.device)

    def _seed(self) -> int | None:
        return self._operator.seed()

    def _labelled(self) -> "_Labelled":
        return _Labelled(self.label)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantumLayer":
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            half = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if half else moved

        return super()._apply(keep_float32, recurse)

    def extra_repr(self) -> str:
        return (
            f"n_wires={self.circuit.n_wires}, n_inputs={self.circuit.n_inputs}, n_weights={self.circuit.n_weights}, "
            f"n_observables={len(self.observables)}, backend='{self.backend.spec}'"
        )


def _entropy(
    backend: Backend, circuit: Circuit, options: tuple[Any, ...], inputs: Tensor, weights: Tensor, seed: int | None
) -> Estimate:
    wires, kind = options
    return backend.entropy(circuit, inputs, weights, wires=wires, kind=kind, seed=seed)


class _Labelled:
    """Puts the layer's name in front of a ValueError or TypeError about what it was fed."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind in (TypeError, ValueError):
            raise kind(f"layer '{self.label}': {error}") from None

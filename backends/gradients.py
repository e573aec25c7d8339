"""Gradients of expectations over any backend: native autograd, the parameter-shift rule, SPSA.

The rules differentiate with respect to *angles* (``circuits.ir.lifted``); from angles on to inputs and weights autograd
does the rest, so that sharing, scaling and products of slots need no care here.

Axis legend: b batch, a angles, m angles that need a gradient, o observables, d directions, r rows of one backend call.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from backends import validate
from backends.base import Backend
from backends.estimate import Estimate
from circuits import Circuit, Input, PauliSum, Weight
from circuits._suggest import unknown
from circuits.ir import lifted
from circuits.slots import leaves

Evaluate = Callable[[Tensor, int | None], Tensor]
"""Values (r, o) of angles (r, a) under a seed: one backend call."""


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} expects a positive integer, got {value!r}; pass 1 or more.")


class Gradient(ABC):
    """A way to differentiate expectations with respect to angles by evaluating them at other angles."""

    @abstractmethod
    def pull_back(
        self, evaluate: Evaluate, angles: Tensor, columns: Tensor, cotangent: Tensor, seed: int | None
    ) -> Tensor:
        """Return ``sum_o cotangent_o d<O_o>/d angle``, shape (b, m), at angles (b, a) for the given columns (m,)."""


@dataclass(frozen=True)
class ParameterShift(Gradient):
    """The two-term rule ``df/dt = (f(t + pi/2) - f(t - pi/2)) / 2``: exact for every gate, with or without resets.

    All 2 m b shifted circuits are one backend call, or one per ``max_batch`` of them; on an exact backend equal ones
    among them run once. Unbiased with counted shots.
    Raises ValueError for a cap below 1. Schuld et al. 2019, Phys. Rev. A 99, 032331, eq. (14).

    >>> ParameterShift(max_batch=100)
    ParameterShift(max_batch=100)
    """

    max_batch: int = 16384

    def __post_init__(self) -> None:
        _check_positive("max_batch", self.max_batch)

    def pull_back(
        self, evaluate: Evaluate, angles: Tensor, columns: Tensor, cotangent: Tensor, seed: int | None
    ) -> Tensor:
        batch, moved = len(angles), len(columns)

        def shifted(rows: Tensor) -> Tensor:
            """Rows in the order (sign, column, sample)."""
            out = angles[rows % batch]
            sign = 1 - 2 * (rows // (moved * batch))
            out[torch.arange(len(rows), device=rows.device), columns[rows // batch % moved]] += sign * (math.pi / 2)
            return out

        values = _evaluate_rows(evaluate, shifted, 2 * moved * batch, self.max_batch, angles.device, seed)
        plus, minus = values.reshape(2, moved, batch, -1)
        return ((plus - minus) / 2 * cotangent).sum(-1).T


@dataclass(frozen=True)
class SPSA(Gradient):
    """Simultaneous perturbation: ``(f(t + c D) - f(t - c D)) / (2 c) D`` with a random sign per angle and sample in D.

    2 b ``directions`` circuits whatever the number of angles. The mean over D is the gradient up to a bias of order
    ``step**2``; the variance of one entry is about the sum of the squares of all the others over ``directions``, and
    counted shots add their variance over ``2 step**2``. Signs come from the call's seed, else from torch's generator.
    Raises ValueError for a number below 1 or a step that is not positive. Spall 1992, IEEE Trans. Autom. Control 37,
    332, eq. (2.2).

    >>> SPSA(directions=4)
    SPSA(directions=4, step=0.1, max_batch=16384)
    """

    directions: int = 1
    step: float = 0.1
    max_batch: int = 16384

    def __post_init__(self) -> None:
        _check_positive("directions", self.directions)
        _check_positive("max_batch", self.max_batch)
        if not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"SPSA expects a positive step in radians, got {self.step}; try 0.1.")

    def pull_back(
        self, evaluate: Evaluate, angles: Tensor, columns: Tensor, cotangent: Tensor, seed: int | None
    ) -> Tensor:
        batch, samples = len(angles), self.directions * len(angles)
        generator = None if seed is None else torch.Generator().manual_seed(_derived(seed, 1))
        coins = torch.randint(2, (samples, len(columns)), generator=generator)
        signs = (2 * coins - 1).to(angles)

        def perturbed(rows: Tensor) -> Tensor:
            """Rows in the order (sign, direction, sample)."""
            out = angles[rows % batch]
            sign = 1 - 2 * (rows // samples)
            out[:, columns] += (self.step * sign)[:, None] * signs[rows % samples]
            return out

        values = _evaluate_rows(evaluate, perturbed, 2 * samples, self.max_batch, angles.device, seed)
        plus, minus = values.reshape(2, self.directions, batch, -1)
        slope = ((plus - minus) / (2 * self.step) * cotangent).sum(-1)
        return (slope[..., None] * signs.reshape(self.directions, batch, -1)).mean(0)


GRADIENTS: Mapping[str, Gradient] = MappingProxyType({"parameter-shift": ParameterShift(), "spsa": SPSA()})
"""Rules by the names that are accepted at the edge."""


def expectations_with_gradient(
    backend: Backend,
    circuit: Circuit,
    inputs: Any,
    weights: Any,
    observables: Sequence[PauliSum],
    *,
    gradient: str | Gradient | None = None,
    shots: int | None = None,
    seed: int | None = None,
) -> Estimate:
    """Return ``backend.expectations(...)``, shape (b, o), whose ``values`` carry gradients on every backend.

    ``gradient`` None is the backend's own autograd, or parameter shift on a backend without; a name of ``GRADIENTS``
    or a rule object asks for that rule. A rule is differentiable once, and its backward pass uses seeds derived from
    ``seed``, different from the forward one's. Raises ValueError for an unknown name, TypeError for another object, and
    whatever ``expectations`` raises. The cost is one forward call, then that of the rule.

    >>> from backends import open_backend
    >>> from circuits import Op, Z
    >>> circuit = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    >>> weights = torch.tensor([0.5], requires_grad=True)
    >>> estimate = expectations_with_gradient(
    ...     open_backend("statevector"), circuit, None, weights, (Z(0),), gradient="parameter-shift"
    ... )
    >>> round(torch.autograd.grad(estimate.values.sum(), weights)[0].item(), 4)  # -sin(0.5)
    -0.4794
    """
    rule = rule_for(backend, gradient)
    columns = _columns(circuit, inputs, weights) if rule is not None and torch.is_grad_enabled() else []
    if rule is None or not columns:
        return backend.expectations(circuit, inputs, weights, observables, shots=shots, seed=seed)
    call = validate.call(backend.capabilities, circuit, inputs, weights, shots, seed)
    if call.empty:
        return backend.expectations(circuit, inputs, weights, observables, shots=shots, seed=seed)

    def evaluate(angles: Tensor, row_seed: int | None) -> Tensor:
        free = _lifted(circuit)
        if backend.capabilities.exact and shots is None:  # equal circuits have equal answers: run each once
            distinct, back = torch.unique(angles, dim=0, return_inverse=True)
            if len(distinct) < len(angles):
                return backend.expectations(free, distinct, None, observables).values[back]
        return backend.expectations(free, angles, None, observables, shots=shots, seed=row_seed).values

    def pull_back(angles: Tensor, cotangent: Tensor) -> Tensor:
        index = torch.tensor(columns, device=angles.device)
        moved = rule.pull_back(evaluate, angles, index, cotangent.to(angles), seed)
        return torch.zeros_like(angles).index_copy(1, index, moved)

    with torch.no_grad():
        estimate = backend.expectations(circuit, inputs, weights, observables, shots=shots, seed=seed)
    return replace(estimate, values=attach(call.angles, estimate.values, pull_back))


def attach(angles: Tensor, values: Tensor, pull_back: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the values, whose gradient with respect to ``angles`` (b, a) is ``pull_back(angles, cotangent)``; once.

    >>> angles = torch.ones(1, 1, requires_grad=True)
    >>> attach(angles, torch.zeros(1), lambda angles, cotangent: 3 * cotangent[:, None]).backward()
    >>> angles.grad
    tensor([[3.]])
    """
    return _Attach.apply(angles, values, pull_back)  # pyright: ignore[reportReturnType] -- torch leaves apply untyped


def rule_for(backend: Backend, gradient: str | Gradient | None) -> Gradient | None:
    """Return the rule asked for, None for the backend's own autograd; ValueError or TypeError where it is no rule.

    >>> from backends import open_backend
    >>> rule_for(open_backend("statevector"), "spsa")
    SPSA(directions=1, step=0.1, max_batch=16384)
    """
    if gradient is None:
        return None if backend.capabilities.autograd else GRADIENTS["parameter-shift"]
    if isinstance(gradient, Gradient):
        return gradient
    if not isinstance(gradient, str):
        raise TypeError(
            f"gradient expects a name, a rule or None, got {type(gradient).__name__}; try ParameterShift()."
        )
    if gradient not in GRADIENTS:
        raise ValueError(f"{unknown('gradient', gradient, GRADIENTS)} None asks for the backend's own autograd.")
    return GRADIENTS[gradient]


def _columns(circuit: Circuit, inputs: Any, weights: Any) -> list[int]:
    """The angles that read a tensor which wants a gradient."""
    wanting = {Input: inputs, Weight: weights}
    wanted = {kind for kind, data in wanting.items() if isinstance(data, Tensor) and data.requires_grad}
    return [k for k, slot in enumerate(circuit.slots) if any(type(leaf) in wanted for leaf in leaves(slot))]


@lru_cache(maxsize=256)
def _lifted(circuit: Circuit) -> Circuit:
    return lifted(circuit)


class _Attach(torch.autograd.Function):
    """Values as they are, whose gradient with respect to the angles is ``pull_back(angles, cotangent)``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, angles: Tensor, values: Tensor, pull_back: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(angles)
        ctx.pull_back = pull_back  # pyright: ignore[reportAttributeAccessIssue] -- a context takes any attribute
        return values.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (angles,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue] -- set by torch
        with torch.no_grad():
            moved = ctx.pull_back(angles, cotangents[0])  # pyright: ignore[reportAttributeAccessIssue] -- set above
        # With create_graph the result looks differentiable; whoever differentiates it is told why it is not.
        return _Once.apply(moved, angles, cotangents[0]), None, None  # pyright: ignore[reportReturnType]


class _Once(torch.autograd.Function):
    """A first derivative that refuses to be differentiated."""

    @staticmethod
    def forward(ctx: FunctionCtx, gradient: Tensor, angles: Tensor, cotangent: Tensor) -> Tensor:
        return gradient.clone()  # angles and cotangent are read for their place in the graph alone

    @staticmethod
    def backward(ctx: FunctionCtx, *cotangents: Tensor) -> None:
        raise RuntimeError(
            "this gradient expects to be differentiated once, got a second derivative; use gradient=None on a backend "
            "with autograd, such as 'statevector'."
        )


def _evaluate_rows(
    evaluate: Evaluate,
    rows: Callable[[Tensor], Tensor],
    n_rows: int,
    max_batch: int,
    device: torch.device,
    seed: int | None,
) -> Tensor:
    """Values (n_rows, o) of ``rows(indices)``, in calls of at most ``max_batch`` rows with a seed each."""
    parts = torch.arange(n_rows, device=device).split(max_batch)
    seeds = (None if seed is None else _derived(seed, 2 + k) for k in range(len(parts)))
    return torch.cat([evaluate(rows(part), part_seed) for part, part_seed in zip(parts, seeds, strict=True)])


def _derived(seed: int, stream: int) -> int:
    """A seed of 31 bits (what every engine takes) that differs by stream."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0] >> 1)

"""The ``statevector`` backend: exact and differentiable.

Axis legend: b batch, o observables, t times, k wires asked for, N = 2**n amplitudes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from backends import linalg
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.statevector import compiled, executor, wide
from backends.validate import Call
from circuits import GATES, Circuit, PauliSum

_CAPABILITIES = Capabilities(
    exact=True,
    state=True,
    density=True,
    batch=True,
    autograd=True,
    reset=True,
    max_wires=wide.MAX_WIRES[torch.float32],
    gates=frozenset(GATES),
)


@dataclass(frozen=True)
class Statevector(Backend):
    """Exact state-vector simulation on the inputs' device, in complex64 (complex128 for float64 angles).

    On a CPU, circuits run compiled, with gradients by the adjoint method: up to 13 wires as batches (up to 16 where
    probabilities or entropies are read), from there up to 26 (25 in double precision) one state at a time, in its own
    memory; elsewhere, under torch.func, and where a derivative is differentiated again, in torch. Gradients of any
    order by torch.autograd, one at a time: batches of gradients are refused by torch. Von Neumann entropies have two.
    Circuits with resets run exactly as density matrices: 4**n amplitudes, at most half the wires.
    Cost O(b ops 2**n).

    >>> Statevector().spec
    'statevector'
    """

    kind: ClassVar[str] = "statevector"

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def _expectations_of(self, call: Call, observables: tuple[PauliSum, ...], request: Request) -> Estimate:
        _refuse_shots(request)
        is_own = type(self)._expectations is Statevector._expectations  # else a subclass' way is the one to take
        if is_own and compiled.runs(call.circuit, call.inputs) and not wide.runs(call.circuit, call.inputs):
            return Estimate(compiled.expectations_of(call.circuit, call.inputs, call.weights, observables))
        return self._expectations(call.circuit, call.angles, observables, request)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        _refuse_shots(request)
        if wide.runs(circuit, angles):
            return Estimate(wide.expectations(circuit, angles, observables))
        if compiled.runs(circuit, angles):
            return Estimate(compiled.expectations(circuit, angles, observables))
        return Estimate(executor.expect(circuit, executor.run(circuit, angles), observables))

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        _refuse_shots(request)
        if wide.runs(circuit, angles):
            return Estimate(wide.expectations_along(circuit, angles, observables, times))
        if compiled.runs(circuit, angles):
            return Estimate(compiled.expectations_along(circuit, angles, observables, times))
        return Estimate(executor.expect_along(circuit, angles, observables, times))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(request)
        if compiled.runs(circuit, angles):
            return Estimate(compiled.probabilities(circuit, angles, wires))
        chances = executor.chances(_vectors(circuit, angles), circuit.n_wires, not circuit.is_unitary)
        return Estimate(executor.marginals(chances.T, wires))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        if compiled.runs(circuit, angles) and not wide.runs(circuit, angles):
            return Estimate(compiled.states(circuit, angles))
        return Estimate(_vectors(circuit, angles).T.contiguous())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        probabilities = self._probabilities(circuit, angles, wires, Request()).values.double().clamp(min=0).cpu()
        generator = None if seed is None else torch.Generator().manual_seed(seed)  # None: torch's own
        outcomes = draw(probabilities, shots, generator)
        shifts = torch.arange(len(wires) - 1, -1, -1)
        return ((outcomes[..., None] >> shifts) & 1).to(angles.device, torch.uint8)

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(request)
        executor.check_matrix("a density matrix", len(wires))
        if compiled.runs(circuit, angles):
            return Estimate(compiled.density(circuit, angles, wires))
        vectors = _vectors(circuit, angles).T
        if circuit.is_unitary:
            return Estimate(linalg.reduced_density(vectors, wires))
        size = 2**circuit.n_wires
        return Estimate(linalg.partial_trace(vectors.reshape(-1, size, size), wires))

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        rest = tuple(wire for wire in range(circuit.n_wires) if wire not in wires)
        if circuit.is_unitary and len(rest) < len(wires):
            if not rest:
                return Estimate(0 * angles.square().sum(1))  # so that the second derivative is 0 too
            wires = rest  # both sides of a pure state have one spectrum: take the smaller
        if compiled.runs(circuit, angles):
            _refuse_shots(request)
            return Estimate(compiled.entropy(circuit, angles, wires, kind))
        return Estimate(linalg.entropy(self._density(circuit, angles, wires, request).values, kind))


def draw(probabilities: Tensor, shots: int, generator: torch.Generator | None, most: int = 1 << 24) -> Tensor:
    """Return outcomes (b, shots) by their probabilities (b, 2**k): above ``most`` of them, where torch refuses, by
    inverting the cumulative distribution.

    >>> draw(torch.tensor([[0.0, 0.0, 2.0, 0.0]]), 3, None, most=2).tolist()
    [[2, 2, 2]]
    """
    if probabilities.shape[1] <= most:
        return torch.multinomial(probabilities, shots, replacement=True, generator=generator)
    cumulative = probabilities.cumsum(1)
    levels = torch.rand(len(cumulative), shots, dtype=cumulative.dtype, generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, levels, right=True)


def _vectors(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the final vectors: (2**n, b), or (4**n, b) of the density matrix for circuits with resets."""
    if wide.runs(circuit, angles):
        return wide.states(circuit, angles).T
    return executor.run(circuit, angles)


def _refuse_shots(request: Request) -> None:
    if request.shots is not None:
        raise ValueError(
            f"backend 'statevector' expects shots=None, got {request.shots}: it is exact; use samples, or 'aer'."
        )

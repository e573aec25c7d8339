"""The backend interface: one final, validating public method per kind of result, one private method per adapter.

Axis legend: b batch, o observables, t times, k wires asked for (first most significant), a angles, s shots.
Angles are in radians, entropies in nats, wire 0 is the most significant bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar, final
from urllib.parse import urlencode

import torch
from torch import Tensor

from backends import derive, validate
from backends.estimate import Capabilities, Estimate
from circuits import Circuit, PauliSum
from circuits.passes import require_unitary


@dataclass(frozen=True, slots=True)
class Request:
    """What a private method is asked for beside the circuit: shots (None: the backend's own) and the random seed."""

    shots: int | None = None
    seed: int | None = None


def _configuration(backend: "Backend") -> list[Field[Any]]:
    """The fields that a caller may set."""
    return [f for f in fields(backend) if f.init]  # pyright: ignore[reportArgumentType] -- adapters are dataclasses


class Backend(ABC):
    """An engine that runs circuits. Adapters are frozen dataclasses and fill in the private methods.

    Only ``capabilities`` and ``_expectations`` are required; the rest has an exact or statistical default built on
    expectations. Private methods get validated arguments: float32 or float64 angles (b >= 1, a), from
    ``circuit.angles``; columns where ``circuit.shared`` is true are equal in all rows. All public methods raise
    ValueError, TypeError or IndexError (one sentence) before anything runs.
    """

    kind: ClassVar[str]
    """First part of the string that opens the backend."""
    argument: ClassVar[str | None] = None
    """Name of the field that the part after the colon fills, if any."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this backend can do."""

    @property
    def spec(self) -> str:
        """The string that opens an equal backend: ``kind[:argument][?field=value&...]``."""
        values = {f.name: (getattr(self, f.name), f.default) for f in _configuration(self)}
        changed = {name: value for name, (value, default) in values.items() if value != default}
        head = self.kind
        if self.argument and self.argument in changed:
            head += f":{changed.pop(self.argument)}"
        return head + ("?" if changed else "") + urlencode(changed, safe=":/,")

    def __getstate__(self) -> dict[str, Any]:
        """Configuration alone: live handles (fields with ``init=False``) are reopened lazily by a copy."""
        return {f.name: getattr(self, f.name) for f in _configuration(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @final
    def expectations(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        observables: Sequence[PauliSum] = (),
        *,
        after: Sequence[int] | None = None,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return ``<O_j>`` for each sample, shape (b, o); with ``after`` (op counts) along the circuit: (b, t, o).

        >>> from backends import open_backend
        >>> from circuits import Input, Op, Z
        >>> circuit = Circuit(1, (Op("rx", (0,), (Input(0),)),))
        >>> open_backend("statevector").expectations(circuit, torch.zeros(2, 1), None, (Z(0),)).values.tolist()
        [[1.0], [1.0]]
        """
        observables = validate.observables(circuit, observables)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, seed)
        request = Request(shots, seed)
        times = None if after is None else validate.times(circuit, after)
        with call.precision():
            if call.empty:
                shape = (0, len(observables)) if times is None else (0, len(times), len(observables))
                return call.nothing(shape)
            if times is None:
                return call.cast(self._expectations_of(call, observables, request))
            return call.cast(self._expectations_along(circuit, call.angles, observables, times, request))

    @final
    def probabilities(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        wires: Sequence[int] | None = None,
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return the Born probabilities of the wires' basis states, shape (b, 2**k); all wires when None."""
        wires = validate.wires(circuit, wires)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, seed)
        with call.precision():
            if call.empty:
                return call.nothing((0, 2 ** len(wires)))
            return call.cast(self._probabilities(circuit, call.angles, wires, Request(shots, seed)))

    @final
    def state(self, circuit: Circuit, inputs: Any = None, weights: Any = None) -> Estimate:
        """Return the state vector, shape (b, 2**n), complex; raises where the backend holds none or on resets."""
        if not self.capabilities.state:
            raise ValueError(f"backend '{self.spec}' expects no state request: it holds no state; use density.")
        require_unitary(validate.circuit(circuit), "state")
        call = validate.call(self.capabilities, circuit, inputs, weights, None, None)
        with call.precision():
            if call.empty:
                return call.nothing((0, 2**circuit.n_wires), complex_values=True)
            return self._state(circuit, call.angles)

    @final
    def samples(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        wires: Sequence[int] | None = None,
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return measured bits, shape (b, shots, k), uint8, the first wire first; no gradient."""
        wires = validate.wires(circuit, wires)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, seed)
        count = validate.shots_or_own(self, shots)
        with call.precision(), torch.no_grad():
            if call.empty:
                return Estimate(torch.zeros((0, count, len(wires)), dtype=torch.uint8), shots=count)
            return self._sample_estimate(circuit, call.angles, wires, count, seed)

    @final
    def density(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        wires: Sequence[int] | None = None,
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return the wires' reduced density matrix, shape (b, 2**k, 2**k): exact, or tomography from expectations."""
        wires = validate.wires(circuit, wires)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, seed)
        with call.precision():
            if call.empty:
                return call.nothing((0, 2 ** len(wires), 2 ** len(wires)), complex_values=True)
            return self._density(circuit, call.angles, wires, Request(shots, seed))

    @final
    def entropy(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        wires: Sequence[int] = (),
        kind: str = "von_neumann",
        *,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return the subsystem entropy of ``wires`` in nats, shape (b,): ``-Tr rho log rho`` or ``-log Tr rho^2``.

        ``kind``: "von_neumann" or "renyi2". It is the entanglement entropy only where the global state is pure; a
        noisy backend also returns the global purity, and its figure includes noise.
        """
        wires = validate.subsystem(circuit, wires)
        validate.entropy_kind(kind)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, seed)
        with call.precision():
            if call.empty:
                return call.nothing((0,))
            return call.cast(self._entropy(circuit, call.angles, wires, kind, Request(shots, seed)))

    @final
    def fidelity(
        self,
        circuit_a: Circuit,
        inputs_a: Any = None,
        circuit_b: Circuit | None = None,
        inputs_b: Any = None,
        *,
        weights_a: Any = None,
        weights_b: Any = None,
        gram: bool = False,
        shots: int | None = None,
        seed: int | None = None,
    ) -> Estimate:
        """Return ``|<a|b>|^2``, shape (b,), or with ``gram`` between all pairs: (b_a, b_b).

        From states where the backend holds states, else by compute-uncompute: the probability of all zeros after
        ``U_b^dagger U_a``. Both circuits must be unitary and of one width.
        """
        circuit_b = circuit_a if circuit_b is None else circuit_b
        for circuit in (circuit_a, circuit_b):
            require_unitary(validate.circuit(circuit), "fidelity")
        if circuit_a.n_wires != circuit_b.n_wires:
            raise ValueError(
                f"fidelity expects circuits of one width, got {circuit_a.n_wires} and {circuit_b.n_wires}; use remap."
            )
        call_a = validate.call(self.capabilities, circuit_a, inputs_a, weights_a, shots, seed)
        same = circuit_b == circuit_a and inputs_b is inputs_a and weights_b is weights_a
        call_b = call_a if same else validate.call(self.capabilities, circuit_b, inputs_b, weights_b, shots, seed)
        validate.paired(call_a, call_b, gram)
        with call_a.precision():
            if call_a.empty or call_b.empty:
                return call_a.nothing((len(call_a), len(call_b)) if gram else (0,))
            angles, request = (call_a.angles, call_b.angles), Request(shots, seed)
            return call_a.cast(self._fidelity(circuit_a, circuit_b, *angles, gram, request))

    def _expectations_of(self, call: validate.Call, observables: tuple[PauliSum, ...], request: Request) -> Estimate:
        """Values (b, o) from inputs and weights: for an engine that keeps apart what samples share."""
        return self._expectations(call.circuit, call.angles, observables, request)

    @abstractmethod
    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        """Values (b, o), with gradients to ``angles`` where ``autograd`` is declared."""

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        """Values (b, t, o): here one prefix circuit per time."""
        return derive.along_prefixes(self, circuit, angles, observables, times, request)

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        """Values (b, 2**k): here from the expectations of all Z words."""
        return derive.probabilities(self, circuit, angles, wires, request)

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        """Values (b, 2**n), complex."""
        raise ValueError(f"backend '{self.spec}' expects no state request: it holds no state; use density.")

    @abstractmethod
    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        """Bits (b, shots, k), uint8."""

    def _sample_estimate(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Estimate:
        """The same bits with their errors: here none; an engine that truncates tells what it lost."""
        return Estimate(self._samples(circuit, angles, wires, shots, seed), shots=shots)

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        """Values (b, 2**k, 2**k), complex: here tomography from the expectations of all Pauli words."""
        return derive.density(self, circuit, angles, wires, request)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        """Values (b,) in nats: here from the density matrix, exactly or with a bootstrap of the tomography."""
        return derive.entropy(self, circuit, angles, wires, kind, request)

    def _fidelity(
        self, circuit_a: Circuit, circuit_b: Circuit, angles_a: Tensor, angles_b: Tensor, gram: bool, request: Request
    ) -> Estimate:
        """Values (b,) or (b_a, b_b): here from states where there are any, else by compute-uncompute."""
        if self.capabilities.state:
            first = self._state(circuit_a, angles_a)
            same = circuit_b == circuit_a and angles_b is angles_a
            return derive.overlap(first, first if same else self._state(circuit_b, angles_b), gram)
        return derive.compute_uncompute(self, circuit_a, circuit_b, angles_a, angles_b, gram, request)

    def with_options(self, **changes: Any) -> "Backend":
        """Return a copy of the backend with some configuration fields changed."""
        return replace(self, **changes)  # pyright: ignore[reportArgumentType] -- adapters are dataclasses

"""The ``pennylane`` backend: PennyLane's simulators and every other installed device, exact or with counted shots.

Axis legend: b batch, a angles, o observables, k wires asked for, w words, s bases, t shots, m measured wires.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from backends import counts, derive
from backends.base import Backend, Request
from backends.deferred import deferred
from backends.estimate import Capabilities, Estimate
from backends.extras import require
from backends.gradients import attach
from backends.pennylane_devices import KNOWN, Traits, traits
from backends.pennylane_gradients import adjoint, shifted_states
from circuits import GATES, Circuit, Op, PauliSum
from circuits.interop.pennylane_tape import to_observable, to_tape
from circuits.ir import lifted

_MAX_DENSITY_WIRES = 12


@dataclass(frozen=True)
class PennyLane(Backend):
    """A PennyLane device on this machine. ``shots`` None: exact; else each basis is measured that many times.

    ``device``: "default.qubit" (gradients by backpropagation), "lightning.qubit" (adjoint, one pass per sample; once
    differentiable), "default.mixed" and "reference.qubit" (no gradient of their own), or any other installed device, of
    which nothing is known: it is declared remote, without a state. Where there is no gradient, parameter shift is one
    call. A batch is one call. A reset takes a fresh wire (deferred measurement): memory doubles with each reset of a
    used wire. Lightning runs in single precision for float32 angles, others in double. Raises ImportError without
    PennyLane.

    >>> PennyLane(device="lightning.qubit", shots=100).spec
    'pennylane:lightning.qubit?shots=100'
    """

    kind: ClassVar[str] = "pennylane"
    argument: ClassVar[str | None] = "device"

    device: str = "default.qubit"
    shots: int | None = None

    def __post_init__(self) -> None:
        if self.shots is not None and (
            isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 1
        ):
            raise ValueError(f"backend 'pennylane' expects positive shots or None, got {self.shots!r}; raise them.")
        require("pennylane", "pennylane", "pennylane")
        traits(str(self.device))

    @property
    def _traits(self) -> Traits:
        return traits(self.device)

    @property
    def capabilities(self) -> Capabilities:
        exact, known = self.shots is None, self._traits
        return Capabilities(
            exact=exact,
            shots=not exact,
            state=exact and known.state == "pure",
            density=exact and known.state is not None,
            batch=True,
            autograd=exact and known.gradient is not None,
            reset=True,
            max_wires=known.max_wires,
            gates=frozenset(GATES),
            remote=known.remote,
        )

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        shots = self._shots(angles, request)
        if shots is not None:
            bases = counts.bases_of(observables)
            return counts.expectations(
                self._bits(circuit, angles, bases, shots, request.seed), bases, observables, angles
            )
        unitary, last = deferred(circuit, self._traits.max_wires)
        words = sorted({word for observable in observables for word, _ in observable.terms})
        moved = [tuple((last[wire], letter) for wire, letter in word) for word in words]
        operators = [to_observable(PauliSum(((word, 1.0),))) for word in moved]
        table = [[dict(observable.terms).get(word, 0.0) for observable in observables] for word in words]
        qml = _pennylane()
        means = self._linear(
            unitary,
            angles,
            [qml.expval(operator) for operator in operators],
            lambda cotangent: qml.Hamiltonian(cotangent.tolist(), operators),
        )
        return Estimate(means @ means.new_tensor(table))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        shots = self._shots(angles, request)
        if shots is not None:
            bits = self._bits(circuit, angles, counts.computational(wires), shots, request.seed)
            return counts.probabilities(bits[:, 0], angles)
        unitary, last = deferred(circuit, self._traits.max_wires)
        where, qml = [last[wire] for wire in wires], _pennylane()
        rest = [wire for wire in range(unitary.n_wires) if wire not in where]

        def diagonal(cotangent: Tensor) -> Any:
            from scipy.sparse import csr_matrix, diags_array

            spread = cotangent.double().reshape([2] * len(where) + [1] * len(rest)).expand([2] * unitary.n_wires)
            every = spread.permute(np.argsort([*where, *rest]).tolist()).flatten().numpy()
            return qml.SparseHamiltonian(csr_matrix(diags_array(every)), wires=range(unitary.n_wires))

        return Estimate(self._linear(unitary, angles, [qml.probs(wires=where)], diagonal))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        measurements = [_pennylane().state()]
        vectors = self._run(circuit, angles, measurements)[0]
        if self._traits.gradient != "adjoint":
            return Estimate(vectors)
        free = lifted(circuit)

        def pull_back(at: Tensor, cotangent: Tensor) -> Tensor:
            return shifted_states(circuit, at, vectors, cotangent, lambda rows: self._run(free, rows, measurements)[0])

        return Estimate(attach(angles, vectors, pull_back))

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        if self._shots(angles, request) is not None or self._traits.state is None:
            return super()._density(circuit, angles, wires, request)
        if len(wires) > _MAX_DENSITY_WIRES:
            raise ValueError(
                f"a density matrix expects at most {_MAX_DENSITY_WIRES} wires, got {len(wires)}; use fewer."
            )
        unitary, last = deferred(circuit, self._traits.max_wires)
        where, qml = [last[wire] for wire in wires], _pennylane()

        def hermitian(cotangent: Tensor) -> Any:
            return qml.Hermitian(((cotangent + cotangent.mH) / 2).to(torch.complex128).numpy(), wires=where)

        return Estimate(self._linear(unitary, angles, [qml.density_matrix(wires=where)], hermitian))

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        rest = tuple(wire for wire in range(circuit.n_wires) if wire not in wires)
        pure = self.capabilities.state and request.shots is None and circuit.is_unitary
        if pure and not rest:
            return Estimate(0 * angles.sum(1))
        # Both sides of a pure state have one spectrum: take the smaller.
        return derive.entropy(self, circuit, angles, rest if pure and len(rest) < len(wires) else wires, kind, request)

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        bits = self._bits(circuit, angles, counts.computational(wires), shots, seed)[:, 0]
        return torch.from_numpy(bits).to(angles.device)

    def _shots(self, angles: Tensor, request: Request) -> int | None:
        if request.shots is None:
            return self.shots
        if self.capabilities.autograd and angles.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"gradients on backend '{self.spec}' expect exact results, got shots={request.shots}; put the shots "
                "into the backend's string, or ask for a rule such as parameter shift."
            )
        return request.shots

    def _open(self, n_wires: int, dtype: torch.dtype, seed: int | None) -> Any:
        options: dict[str, Any] = {"seed": seed} if self.device in KNOWN or seed is not None else {}
        if self.device.startswith("lightning."):
            options["c_dtype"] = np.complex64 if dtype == torch.float32 else np.complex128
        try:
            return _pennylane().device(self.device, wires=n_wires, **options)
        except TypeError as error:
            raise ValueError(
                f"device '{self.device}' expects other options than wires and a seed; leave seed out."
            ) from error

    def _run(
        self,
        circuit: Circuit,
        angles: Tensor,
        measurements: Sequence[Any],
        shots: int | None = None,
        seed: int | None = None,
    ) -> list[Tensor]:
        """One call for the whole batch; one tensor per measurement, batch first."""
        backprop = self._traits.gradient == "backprop" and angles.requires_grad and torch.is_grad_enabled()
        # Arrays where no graph is needed: in PennyLane's torch interface results that are Python floats become float32.
        rows: Any = angles.cpu() if backprop else angles.detach().cpu().double().numpy()
        tape = to_tape(circuit, rows[0] if len(rows) == 1 else rows, measurements, shots)
        device = self._open(circuit.n_wires, angles.dtype, seed)
        method, interface = ("backprop", "torch") if backprop else (None, "numpy")
        (found,) = _pennylane().execute([tape], device, diff_method=method, interface=interface)
        found = found if len(measurements) > 1 else (found,)
        results = [one if backprop else torch.from_numpy(np.asarray(one)) for one in found]
        if tape.batch_size is None:
            results = [one.expand(len(angles), *one.shape) for one in results]
        kinds = (angles.dtype.to_complex() if one.is_complex() else angles.dtype for one in results)
        return [one.to(angles.device, kind) for one, kind in zip(results, kinds, strict=True)]

    def _linear(
        self, circuit: Circuit, angles: Tensor, measurements: Sequence[Any], observable: Callable[[Tensor], Any]
    ) -> Tensor:
        """Results that are linear in the density matrix: several means (b, w), or one array (b, ...).

        ``observable(cotangent)`` is the operator whose mean has the gradient wanted, for one sample.
        """
        found = self._run(circuit, angles, measurements)
        values = torch.stack(found, 1) if found[0].ndim == 1 else found[0]
        if self._traits.gradient != "adjoint":
            return values

        def pull_back(at: Tensor, cotangent: Tensor) -> Tensor:
            return adjoint(circuit, at, cotangent, observable, self._open(circuit.n_wires, at.dtype, None))

        return attach(angles, values, pull_back)

    def _bits(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, shots: int, seed: int | None) -> counts.Bits:
        """Measure every sample in every basis: bits (b, s, t, m)."""
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        unitary, last = deferred(circuit, self._traits.max_wires)
        turned = _turned(unitary, tuple(last[wire] for wire in bases.rotated))
        measurement = _pennylane().sample(wires=[last[wire] for wire in bases.wires])

        def run(rows: np.ndarray, part_seed: int | None) -> counts.Bits:
            repeats = 1 if turned.n_angles else len(rows)  # without angles all samples are one: more shots of it
            samples = torch.from_numpy(rows if turned.n_angles else rows[:1]).to(angles.dtype)
            (bits,) = self._run(turned, samples, [measurement], shots * repeats, part_seed)
            return bits.reshape(len(rows), shots, -1).numpy().astype(np.uint8)

        return counts.collect(run, bases.parameters(angles), shots, seed).reshape(shape)


@lru_cache(maxsize=256)
def _turned(circuit: Circuit, rotated: tuple[int, ...]) -> Circuit:
    """The circuit, then RZ and RY on the rotated wires; every angle an input."""
    turns = (Op(name, (wire,), (0.0,)) for wire in rotated for name in ("rz", "ry"))
    return lifted(Circuit(circuit.n_wires, (*circuit.ops, *turns)))


def _pennylane() -> Any:
    return require("pennylane", "pennylane", "pennylane")

"""The ``ibm`` backend: circuits on IBM devices through the primitives of qiskit-ibm-runtime.

Axis legend: b batch, a angles, o observables, k wires asked for, s bases, t shots, m measured wires, r rows.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from backends import counts, mixed_entropy, purity
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.ibm.access import MAX_FAKE_WIRES, MODES, Access, open_access
from backends.ibm.devices import check_device, is_real
from backends.ibm.placing import Placed
from backends.ibm.primitives import GENERATIONS, Primitives
from circuits import GATES, Circuit, PauliSum
from circuits._suggest import unknown

if TYPE_CHECKING:
    from qiskit.quantum_info import SparsePauliOp

_MAX_REAL_WIRES = 156
"""The largest device that the service offers; a smaller one refuses wider circuits before anything is submitted."""
_MAX_STRINGS = 2**23
"""Simulators answer with one Python string a shot: this many at once keep their memory near 800 MB."""
_SEQUENCES = ("XX", "XpXm", "XY4")
_SHOTS = 1024


@dataclass(frozen=True)
class IBM(Backend):
    """An IBM device: "fake_torino" on this machine, with its noise; "ibm_torino" or "least_busy" through the service.

    Circuits are transpiled once for the device; the whole batch in all product bases is one PUB of one job. Each sample
    is measured ``shots`` times in each basis, or ``1 / precision**2`` times. ``mode``: "job", "batch" or "session".
    ``twirling``, ``dynamical_decoupling`` ("XX", "XpXm", "XY4"), ``resilience_level`` (0, 1, 2) and ``zne`` (factors by
    which noise is amplified, to extrapolate to none: "1,3,5") are the runtime's own; the last two correct expectations
    and what is made of them (density), and nothing else. ``generation``: "current" or "older" primitives.

    ``entropy`` is that of the noisy state, uncorrected, and comes with the global purity (up to 5 wires). A fake device
    is cut down to the qubits in use (at most 12) and follows the seed; a real one has no seed.

    Nothing is submitted to a real device unless ``allow_qpu_seconds`` is positive: the most QPU seconds that each job
    may take (``max_execution_time``). A request is one job, a backward pass another. Sessions bill by the clock: on
    real devices they expect ``with backend.session():``, which closes them. The runtime reads credentials from the
    environment or its saved account; they are never held here.

    Raises ValueError for no device, an unknown one and options that do not fit; ``service.ServiceError``, a ValueError,
    where the service cannot be used; ImportError without qiskit-ibm-runtime. Cost on a fake device b s (4**n ops + t).

    >>> IBM(device="fake_lima", shots=100).spec
    'ibm:fake_lima?shots=100'
    """

    kind: ClassVar[str] = "ibm"
    argument: ClassVar[str | None] = "device"

    device: str = ""
    shots: int = _SHOTS
    precision: float | None = None
    mode: str = "batch"
    resilience_level: int = 0
    twirling: bool = False
    dynamical_decoupling: str | None = None
    zne: str | None = None
    generation: str = "current"
    allow_qpu_seconds: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 1:
            raise ValueError(f"backend 'ibm' expects positive shots, got {self.shots!r}; raise them.")
        if self.precision is not None:
            if not (isinstance(self.precision, int | float) and 0 < self.precision <= 1):
                raise ValueError(f"backend 'ibm' expects a precision in (0, 1], got {self.precision!r}; try 0.03.")
            needed = math.ceil(round(self.precision**-2, 6))
            if self.shots not in (_SHOTS, needed):
                raise ValueError(f"backend 'ibm' expects shots or a precision, got {self.shots} and {self.precision}.")
            object.__setattr__(self, "shots", needed)
        for name, known in (("mode", tuple(MODES)), ("generation", GENERATIONS), ("dynamical_decoupling", _SEQUENCES)):
            value = getattr(self, name)
            if value not in known and not (name == "dynamical_decoupling" and value is None):
                raise ValueError(unknown(f"{name} of backend 'ibm'", str(value), known))
        if self.resilience_level not in (0, 1, 2):
            raise ValueError(f"backend 'ibm' expects a resilience_level of 0, 1 or 2, got {self.resilience_level!r}.")
        allowed = self.allow_qpu_seconds
        if isinstance(allowed, bool) or not isinstance(allowed, int) or allowed < 0:
            raise ValueError(f"backend 'ibm' expects allow_qpu_seconds from 0, got {allowed!r}; 0 submits nothing.")
        check_device(self.device)
        primitives = self._primitives
        local = self.generation == "older" and not self._real
        if local and (primitives.mitigates or self.twirling or self.dynamical_decoupling):
            raise ValueError(
                "fake devices expect generation 'current' for error mitigation, got 'older', which skips it."
            )

    @property
    def _real(self) -> bool:
        return is_real(self.device)

    @property
    def _primitives(self) -> Primitives:
        return Primitives(
            self.generation,
            self.resilience_level,
            self.twirling,
            self.dynamical_decoupling,
            _noise_factors(self.zne),
            self.allow_qpu_seconds if self._real else None,
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            shots=True,
            batch=True,
            reset=True,
            max_wires=_MAX_REAL_WIRES if self._real else min(MAX_FAKE_WIRES, self._access.device.num_qubits),
            gates=frozenset(GATES),
            remote=self._real,
            noisy=True,
        )

    @cached_property
    def _access(self) -> Access:
        return open_access(self.device, self.mode, self.allow_qpu_seconds)

    @contextmanager
    def session(self) -> Iterator[Self]:
        """Keep one batch or session open for all requests inside the block, and close it at its end.

        >>> with IBM(device="fake_lima").session() as backend:
        ...     backend.spec
        'ibm:fake_lima'
        """
        with self._access.kept():
            yield self

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        bases = counts.bases_of(observables)
        primitives = self._primitives
        if not (primitives.mitigates and bases.wires):
            return counts.expectations(self._bits(circuit, angles, bases, request), bases, observables, angles)
        shots = self.shots if request.shots is None else request.shots
        placed = self._access.place(circuit)
        rows = angles.detach().cpu().double().numpy()
        operators = [_operator(observable, placed) for observable in observables]
        seed = counts.derived_seed(request.seed, 0)
        values, stderr = primitives.estimate(self._access.opened(placed), placed, rows, operators, shots, seed)
        # No shot that differs does not mean no error (Laplace's rule, as where shots are counted here), and an error
        # that an extrapolation cannot give is the largest that there is.
        norms = np.array([sum(abs(c) for word, c in observable.terms if word) for observable in observables])
        stderr = np.maximum(np.where(np.isfinite(stderr), stderr, 2 * norms), 2 * norms / shots)
        spent = shots * len(bases.letters) * max(len(primitives.zne), 3 if self.resilience_level == 2 else 1)
        return Estimate(torch.from_numpy(values).to(angles), torch.from_numpy(stderr).to(angles), spent)

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        return counts.probabilities(self._bits(circuit, angles, counts.computational(wires), request)[:, 0], angles)

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        bits = self._bits(circuit, angles, counts.computational(wires), Request(shots, seed))
        return torch.from_numpy(bits[:, 0]).to(angles.device)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        if circuit.n_wires > purity.MAX_WIRES:
            return super()._entropy(circuit, angles, wires, kind, request)
        return mixed_entropy.entropy(
            lambda bases, each: self._bits(circuit, angles, bases, Request(each, request.seed)),
            *(circuit, angles, wires, kind, self.shots if request.shots is None else request.shots, request.seed),
        )

    def _bits(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, request: Request) -> counts.Bits:
        """Measure every sample in every basis: bits (b, s, t, m). One job; on this machine one per 2**23 shots."""
        shots = self.shots if request.shots is None else request.shots
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        placed, rows = self._access.place(circuit, bases.wires, bases.rotated), bases.parameters(angles)
        mode, primitives = self._access.opened(placed), self._primitives
        size = len(rows) if self._real else max(1, _MAX_STRINGS // shots)
        found = [
            primitives.sample(
                mode, placed, rows[first : first + size], shots, counts.derived_seed(request.seed, number)
            )
            for number, first in enumerate(range(0, len(rows), size))
        ]
        return counts.unpack(np.concatenate(found), len(bases.wires)).reshape(shape)


def _noise_factors(zne: str | None) -> tuple[float, ...]:
    """The numbers of "1,3,5": two or more, each from 1."""
    try:
        factors = tuple(float(text) for text in zne.split(",")) if zne is not None else ()
    except (AttributeError, ValueError):
        raise ValueError(f"zne expects noise factors joined by commas, got {zne!r}; write '1,3,5'.") from None
    if factors and (len(set(factors)) < 2 or not all(1 <= factor < math.inf for factor in factors)):
        raise ValueError(f"zne expects two or more different noise factors from 1, got '{zne}'; write '1,3,5'.")
    return factors


def _operator(observable: PauliSum, placed: Placed) -> "SparsePauliOp":
    """The observable on the qubits where a placed circuit leaves the wires."""
    from qiskit.quantum_info import SparsePauliOp

    terms = [
        ("".join(letter for _, letter in word), [placed.qubits[wire] for wire, _ in word], coefficient)
        for word, coefficient in observable.terms
    ]
    return SparsePauliOp.from_sparse_list(terms or [("", [], 0.0)], placed.circuit.num_qubits)

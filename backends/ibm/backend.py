"""The ``ibm`` backend: circuits on IBM devices through the primitives of qiskit-ibm-runtime.

Axis legend: b batch, a angles, o observables, k wires asked for, s bases, t shots, m measured wires, r rows.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from backends import counts, mixed_entropy, purity, validate
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.ibm.access import MAX_FAKE_WIRES, MODES, Access, open_access
from backends.ibm.ask import Arrays, Ask, unpack
from backends.ibm.cost import Cost, seconds
from backends.ibm.devices import check_device, is_real
from backends.ibm.primitives import GENERATIONS, Primitives, noise_factors
from backends.ibm.transports import courier_for
from backends.ledger import Courier, JobRequest, open_ledger
from backends.ledger.budget import Spending
from circuits import GATES, Circuit, PauliSum
from circuits._suggest import unknown

_MAX_REAL_WIRES = 156
"""The largest device that the service offers; a smaller one refuses wider circuits before anything is submitted."""
_MAX_STRINGS = 2**23
"""Simulators answer with one Python string a shot: this many at once keep their memory near 800 MB."""
_MAX_EXECUTIONS = 10**7
"""Shots of all circuits that the service takes in one job."""
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

    Nothing is sent to a real device unless ``allow_qpu_seconds`` is positive: the most QPU seconds that a run may take
    in all, a run being this process, or all that name the same ``run``. Each request is written to the ledger (a file:
    ``ledger``, or the user's own) with its estimated cost before it is sent, is refused where a budget would be
    exceeded, and is stopped (``max_execution_time``) before it could exceed it. An identical request is answered from
    the ledger unless ``fresh``. With a positive allowance a fake device is treated like this too: a rehearsal. A
    request is one job, of at most 10**7 executions; a backward pass is another. The jobs of one call, or of one ``with
    backend.session():``, go in one batch, which is closed after them. Sessions bill by the clock: on real devices they
    expect that block, and last at most as long as budgets leave. The runtime reads credentials from the environment or
    its saved account; they are never held here.

    Raises ValueError for no device, an unknown one and options that do not fit; ValueErrors of their own over budget
    (``ledger.BudgetError``), where the service (``service.ServiceError``) or the ledger's file cannot be used, and for
    a job that failed (``JobFailed``) or may have been sent (``Undecided``); ImportError without qiskit-ibm-runtime.
    Cost on a fake device b s (4**n ops + t).

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
    run: str = ""
    ledger: str | None = None
    fresh: bool = False

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
            noise_factors(self.zne),
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
        return open_access(self.device, self.mode)

    @property
    def _metered(self) -> bool:
        """Whether jobs go through the ledger: on real devices, and on fake ones that are to count QPU seconds."""
        return self._real or self.allow_qpu_seconds > 0

    @property
    def _run(self) -> str:
        return self.run or _process(os.getpid())

    @cached_property
    def _courier(self) -> Courier:
        return courier_for(self._access, open_ledger(self.ledger))

    def estimate(
        self,
        circuit: Circuit,
        inputs: Any = None,
        weights: Any = None,
        observables: Sequence[PauliSum] = (),
        *,
        shots: int | None = None,
    ) -> Cost:
        """Return what ``expectations`` of the same arguments would cost: jobs, bases, circuits, shots, QPU seconds.

        Nothing is sent; a real device is asked for its gates and their durations. A gradient by parameter shift takes 2
        circuits more per sample and angle.

        >>> from circuits import Op, X, Z
        >>> bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
        >>> print(IBM(device="fake_lima", shots=1000).estimate(bell, observables=(Z(0), X(0) @ X(1))))
        1 job: 2 circuits in 2 measurement bases, 2,000 shots in all, about 2.5 QPU seconds
        """
        observables = validate.observables(circuit, observables)
        call = validate.call(self.capabilities, circuit, inputs, weights, shots, None)
        bases = counts.bases_of(observables)
        if call.empty or not bases.wires:
            return Cost(0, 0, 0, 0, 0.0)
        corrects, request = self._primitives.mitigates, Request(shots)
        asks = (
            self._corrected(circuit, call.angles, observables, request)
            if corrects
            else self._sampling(circuit, call.angles, bases, request)
        )
        access = self._access
        return Cost(
            len(asks),
            len(bases.letters),
            sum(ask.circuits for ask in asks),
            sum(ask.executions for ask in asks),
            sum(seconds(ask, ask.placed(access), access.device) for ask in asks),
        )

    def spending(self) -> Spending:
        """Return the QPU seconds that this run and this month have taken, as the ledger has them."""
        return open_ledger(self.ledger).spending(self._run)

    @contextmanager
    def session(self) -> Iterator[Self]:
        """Keep one batch or session open inside the block, and close it at its end (after a kill: ``qlm jobs resume``).

        >>> with IBM(device="fake_lima").session() as backend:
        ...     backend.spec
        'ibm:fake_lima'
        """
        with self._courier.kept() if self._metered else nullcontext():
            yield self

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        bases = counts.bases_of(observables)
        if not (self._primitives.mitigates and bases.wires):
            return counts.expectations(self._bits(circuit, angles, bases, request), bases, observables, angles)
        shots = self.shots if request.shots is None else request.shots
        answers = self._answers(self._corrected(circuit, angles, observables, request))
        values, stderr = (np.concatenate([each[name] for each in answers]) for name in ("values", "stderr"))
        # No shot that differs does not mean no error (Laplace's rule, as where shots are counted here), and an error
        # that an extrapolation cannot give is the largest that there is.
        norms = np.array([sum(abs(c) for word, c in observable.terms if word) for observable in observables])
        stderr = np.maximum(np.where(np.isfinite(stderr), stderr, 2 * norms), 2 * norms / shots)
        spent = shots * len(bases.letters) * len(self._primitives.noise_factors)
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
        """Measure every sample in every basis: bits (b, s, t, m)."""
        shots = self.shots if request.shots is None else request.shots
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        answers = self._answers(self._sampling(circuit, angles, bases, request))
        return counts.unpack(np.concatenate([each["bits"] for each in answers]), len(bases.wires)).reshape(shape)

    def _sampling(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, request: Request) -> list[Ask]:
        """Jobs that measure every sample in every basis: one, or as many as the largest job takes."""
        shots = self.shots if request.shots is None else request.shots
        rows = bases.parameters(angles)
        size = max(1, (_MAX_EXECUTIONS if self._metered else _MAX_STRINGS) // shots)
        return [
            Ask(
                *(circuit, rows[first : first + size], shots, counts.derived_seed(request.seed, number)),
                *(self._primitives, bases.wires, bases.rotated),
            )
            for number, first in enumerate(range(0, len(rows), size))
        ]

    def _corrected(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> list[Ask]:
        """The job for corrected expectations."""
        shots = self.shots if request.shots is None else request.shots
        rows = angles.detach().cpu().double().numpy()
        seed = counts.derived_seed(request.seed, 0)
        return [Ask(circuit, rows, shots, seed, self._primitives, observables=observables)]

    def _answers(self, asks: list[Ask]) -> list[Arrays]:
        """Run jobs, through the ledger where they are paid for or counted, and return their arrays."""
        access = self._access
        if not self._metered:
            return [ask.read(access, next(iter(ask.start(access).result()))) for ask in asks]
        requests = [
            JobRequest(
                *(access.device.name, ask.body(), seconds(ask, ask.placed(access), access.device)),
                *(self._run, access.paid, self.fresh),
            )
            for ask in asks
        ]
        return [unpack(data) for data in self._courier.deliver(requests, self.allow_qpu_seconds)]


@lru_cache(maxsize=1)
def _process(number: int) -> str:
    """The name of this process's run; a forked child gets its own."""
    return f"process-{number}-{uuid4().hex[:12]}"

"""The ``ibm`` backend: circuits on IBM devices through the current primitives of qiskit-ibm-runtime.

Axis legend: b batch, a angles, k wires asked for, s bases, t shots, m measured wires.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from backends import counts, purity, tomography
from backends.base import Backend, Request
from backends.derive import pauli_words
from backends.estimate import Capabilities, Estimate
from backends.extras import require
from backends.ibm.devices import check_device, open_device
from circuits import GATES, Circuit, PauliSum, pauli_word
from circuits.interop.qiskit_circuit import measured

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_MAX_WIRES = 12
"""The device's noise is simulated on density matrices: 4**12 numbers."""
_ANGLE_DECIMALS = 12  # the local service rounds angles, by default to 1.6e-5 radians


@dataclass(frozen=True)
class IBM(Backend):
    """An IBM device: fake ones so far, with their noise, simulated on this machine; nothing touches the network.

    Each sample is measured ``shots`` times in each product basis. Circuits are transpiled once for the device
    (optimization level 1, fixed seed), with two parametrised rotations on each wire that is not always measured in Z,
    so that the whole batch in all bases is one PUB of one job. ``entropy`` is that of the noisy state and comes with
    the global purity (up to 5 wires). Raises ValueError for no device, an unknown or a real one, ImportError without
    qiskit-ibm-runtime. Cost b s (4**n ops + shots).

    >>> IBM(device="fake_lima", shots=100).spec
    'ibm:fake_lima?shots=100'
    """

    kind: ClassVar[str] = "ibm"
    argument: ClassVar[str | None] = "device"

    device: str = ""
    shots: int = 1024

    def __post_init__(self) -> None:
        if isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 1:
            raise ValueError(f"backend 'ibm' expects positive shots, got {self.shots!r}; raise them.")
        check_device(self.device)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            shots=True,
            batch=True,
            reset=True,
            max_wires=min(_MAX_WIRES, self._device.num_qubits),
            gates=frozenset(GATES),
            noisy=True,
        )

    @cached_property
    def _device(self) -> Any:
        return open_device(self.device)

    @cached_property
    def _simulator(self) -> Any:
        """The device's noise as a density-matrix simulation: the default, one trajectory a shot, is slower."""
        simulator = require("ibm", "qiskit_aer", "qiskit").AerSimulator
        return simulator.from_backend(self._device, method="density_matrix", max_parallel_experiments=0)

    @cached_property
    def _compiled(self) -> Callable[..., tuple["QuantumCircuit", list[int]]]:
        return lru_cache(maxsize=256)(partial(_compile, self._device))

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        bases = counts.bases_of(observables)
        return counts.expectations(self._bits(circuit, angles, bases, request), bases, observables, angles)

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
        """Tomography of ``wires``; the other wires are measured in the same shots, for the global purity."""
        if circuit.n_wires > purity.MAX_WIRES:
            return super()._entropy(circuit, angles, wires, kind, request)
        bases = purity.design(circuit.n_wires, wires, request.seed)
        shots = self.shots if request.shots is None else request.shots
        shared = -(-shots * 3 ** len(wires) // len(bases.letters))  # a basis of the wires comes several times
        bits = self._bits(circuit, angles, bases, Request(shared, request.seed))
        words = pauli_words(wires)
        observables = tuple(pauli_word(word, wires) for word in words)
        estimate = counts.expectations(bits, bases, observables, angles)
        value, stderr = purity.global_purity(bits, bases, request.seed)
        return replace(
            tomography.entropy(words, estimate, kind, request.seed),
            purity=value.to(angles),
            purity_stderr=stderr.to(angles),
        )

    def _bits(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, request: Request) -> counts.Bits:
        """Measure every sample in every basis: bits (b, s, t, m)."""
        shots = self.shots if request.shots is None else request.shots
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        made, columns = self._compiled(circuit, bases.wires, bases.rotated)

        def run(rows: np.ndarray, seed: int | None) -> counts.Bits:
            sampler = require("ibm", "qiskit_ibm_runtime.executor_sampler", "qiskit").Sampler
            options = {"simulator": {"seed_simulator": seed, "angle_decimals": _ANGLE_DECIMALS}}
            if columns:
                pub, repeats = (made, {tuple(made.parameters): rows[:, columns]}), 1
            else:
                pub, repeats = (made,), len(rows)  # all samples are one: more shots of it
            (answer,) = sampler(mode=self._simulator, options=options).run([pub], shots=shots * repeats).result()
            return counts.unpack(answer.data.bits.array, len(bases.wires)).reshape(len(rows), shots, -1)

        return counts.collect(run, bases.parameters(angles), shots, request.seed).reshape(shape)


def _compile(
    device: Any, circuit: Circuit, wires: tuple[int, ...], rotated: tuple[int, ...]
) -> tuple["QuantumCircuit", list[int]]:
    """Return the measured circuit in the device's gates and layout, and the parameter columns that it kept."""
    from qiskit import transpile

    made = measured(circuit, wires, rotated)
    isa = transpile(made, device, optimization_level=1, seed_transpiler=0)
    position = {parameter: column for column, parameter in enumerate(made.parameters)}
    return isa, [position[parameter] for parameter in isa.parameters]

"""The ``quimb`` backend: matrix product states, truncated, with the error that truncation may have caused.

Axis legend: b batch, a angles, o observables, t times, k wires asked for, u distinct rows of angles, w words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from backends import linalg, validate
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.extras import check_installed
from backends.tensor_network import bounds, chain
from backends.tensor_network.cost import Cost, check_memory_limit, require_fit
from backends.tensor_network.evolution import State
from backends.tensor_network.readout import Found, Words, distinct
from backends.tensor_network.schedule import final_order, rehearse, separating_bond
from circuits import GATES, Circuit, PauliSum
from circuits._suggest import unknown

METHODS = ("mps", "permmps")
_MAX_WIRES = 1000
_MAX_DENSITY_WIRES = 10

Read = Callable[[State], chain.Array | chain.Real]
"""What to read from a state."""


@dataclass(frozen=True)
class QuimbMPS(Backend):
    """Matrix product states in quimb, for wide circuits of little entanglement.

    ``method``: "mps" swaps distant wires together and back; "permmps" leaves them where they are, which halves the
    swaps of long-range circuits. ``max_bond``: largest bond dimension chi kept; ``cutoff``: Schmidt coefficients below
    this share of the largest are dropped. ``memory_limit``: bytes (None: what the machine has available); a run that
    needs more is refused. Evolved in double precision for float32 angles too, because single rounding would fill the
    bonds. A batch runs one distinct row of angles after another. Cost O(b gates chi**3).

    Each estimate tells what truncation may have done: ``infidelity`` is 1 minus the product of the kept weights, an
    estimate of 1 - F; ``truncation_error`` is a bound (``backends.tensor_network.bounds``): ``2 sum|c| T`` for an
    observable, T per probability or entry of a density matrix, Fannes-Audenaert for an entropy. Raises ImportError
    without quimb.

    >>> QuimbMPS(method="permmps", max_bond=32).spec
    'quimb:permmps?max_bond=32'
    """

    kind: ClassVar[str] = "quimb"
    argument: ClassVar[str | None] = "method"

    method: str = "mps"
    max_bond: int = 64
    cutoff: float = 1e-10
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(unknown("method of backend 'quimb'", str(self.method), (*METHODS, "exact")))
        if isinstance(self.max_bond, bool) or not isinstance(self.max_bond, int) or self.max_bond < 1:
            raise ValueError(f"backend 'quimb' expects max_bond of 1 or more, got {self.max_bond!r}; try 64.")
        if isinstance(self.cutoff, bool) or not isinstance(self.cutoff, float | int) or not 0 < self.cutoff < 1:
            raise ValueError(f"backend 'quimb' expects a cutoff between 0 and 1, got {self.cutoff!r}; try 1e-10.")
        check_memory_limit("quimb", self.memory_limit)
        check_installed("quimb", "quimb", "tensornet")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(density=True, max_wires=_MAX_WIRES, gates=frozenset(GATES))

    def rehearse(self, circuit: Circuit, observables: Sequence[PauliSum] = ()) -> Cost:
        """Return an upper bound on what one sample costs; nothing runs. Raises what ``expectations`` would.

        >>> from circuits import Op, Z
        >>> QuimbMPS().rehearse(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), (Z(0),)).bond
        2
        """
        validate.runnable(self.capabilities, circuit)
        given = validate.observables(circuit, observables) if observables else ()
        words = {word for observable in given for word, _ in observable.terms}
        cost = self._cost(circuit)
        return replace(cost, flops=cost.flops + 32 * (len(words) + 2) * circuit.n_wires * cost.bond**3)

    def _cost(self, circuit: Circuit) -> Cost:
        return rehearse(circuit, self._permutes, self.max_bond)

    @property
    def _permutes(self) -> bool:
        return self.method == "permmps"

    def _states(self, circuit: Circuit, angles: Tensor, room: int) -> tuple[list[State], Tensor]:
        """An unevolved state per distinct row of angles, and each sample's row; ``room``: numbers reading takes."""
        cost = self._cost(circuit)
        cost = replace(cost, peak_bytes=cost.peak_bytes + 16 * room)
        require_fit(cost, self.memory_limit, self.spec, "lower max_bond, ask for fewer wires")
        rows, index = distinct(angles.detach().cpu().double())
        return [State(circuit, row, self._permutes, self.max_bond, self.cutoff) for row in rows.numpy()], index

    def _read(
        self, circuit: Circuit, angles: Tensor, read: Read, times: tuple[int, ...] | None = None, room: int = 0
    ) -> Found:
        """Evolve each distinct row of angles and read its state after ``times`` ops (None: at the end)."""
        states, index = self._states(circuit, angles, room)
        values, errors = [], []
        while states:
            state = states.pop(0)  # so that one state at a time is held
            for time in (len(circuit.ops),) if times is None else times:
                state.advance(time)
                values.append(read(state))
                errors.append((state.distance, state.infidelity))
        shape = (-1,) if times is None else (len(values) // len(times), len(times))
        stacked = torch.from_numpy(np.stack(values)).reshape(*shape, *values[0].shape)
        return Found(stacked[index], torch.tensor(errors, dtype=torch.float64).reshape(*shape, 2)[index], angles)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        _refuse_shots(self, request)
        words = Words(observables)
        return words.estimate(self._read(circuit, angles, words.read))

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        _refuse_shots(self, request)
        words = Words(observables)
        return words.estimate(self._read(circuit, angles, words.read, times))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(self, request)
        room = 2 * 2 ** len(wires) * self._cost(circuit).bond ** 2
        found = self._read(
            circuit, angles, lambda state: chain.probabilities(state.tensors(), state.sites(wires)), room=room
        )
        return found.estimate(found.values, found.distance[:, None])

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(self, request)
        found = self._densities(circuit, angles, wires)
        return found.estimate(found.values, found.distance[:, None, None])

    def _densities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> Found:
        if len(wires) > _MAX_DENSITY_WIRES:
            raise ValueError(
                f"backend '{self.spec}' expects a density matrix, or the smaller side of an entropy that is no end of "
                f"the chain, of at most {_MAX_DENSITY_WIRES} wires, got {len(wires)}; ask for fewer wires."
            )
        # Wires of a narrow circuit are read from its state vector: open legs would cost 4**k chi**2.
        open_legs = 4 ** len(wires) * self._cost(circuit).bond ** 2
        narrow = 2**circuit.n_wires < open_legs

        def read(state: State) -> chain.Array:
            if not narrow:
                return chain.density(state.tensors(), state.sites(wires))
            vector = torch.from_numpy(chain.dense(state.tensors()))[None]
            return linalg.reduced_density(vector, state.sites(wires))[0].numpy()

        room = 2 * (2**circuit.n_wires if narrow else open_legs) + 4 ** len(wires)
        return self._read(circuit, angles, read, room=room)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        """From Schmidt values where the wires are one end of the chain, else from the smaller side's density matrix."""
        _refuse_shots(self, request)
        rest = tuple(wire for wire in range(circuit.n_wires) if wire not in wires)
        if not rest:
            return Estimate(angles.new_zeros(len(angles)))  # the state is pure, truncated or not
        smaller = min(wires, rest, key=len)
        cut = separating_bond(final_order(circuit, self._permutes), wires)
        if cut is None:
            found = self._densities(circuit, angles, smaller)
            found = replace(found, values=torch.linalg.eigvalsh(found.values).clamp(min=0))
        else:
            bond = self._cost(circuit).bond
            found = self._read(circuit, angles, lambda state: state.schmidt_weights(cut, bond))
        if kind == "von_neumann":
            entropies = torch.special.entr(found.values).sum(-1)
            return found.estimate(entropies, bounds.von_neumann(found.distance, 2 ** len(smaller)))
        purity = found.values.square().sum(-1).clamp(max=1.0)
        return found.estimate(-torch.log(purity), bounds.renyi2(found.distance, purity, 2 ** len(smaller)))

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        return self._sample_estimate(circuit, angles, wires, shots, seed).values

    def _sample_estimate(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Estimate:
        """Bits; their ``truncation_error`` bounds the error of the probability of any event."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)  # None: torch's own
        uniforms = torch.rand((len(angles), shots, circuit.n_wires), generator=generator, dtype=torch.float64)
        # A row of its own for each sample: equal angles draw other bits. The chain serves all samples of its row.
        states, index = self._states(circuit, angles, 4 * shots * self._cost(circuit).bond)
        bits = torch.zeros((len(angles), shots, len(wires)), dtype=torch.uint8)
        errors = torch.zeros((len(states), 2), dtype=torch.float64)
        for row in range(len(states)):
            state = states.pop(0)  # so that one state at a time is held
            state.advance(len(circuit.ops))
            errors[row] = torch.tensor((state.distance, state.infidelity))
            for entry in (index == row).nonzero()[:, 0].tolist():
                drawn = chain.sample(state.tensors(), uniforms[entry].numpy())
                bits[entry] = torch.from_numpy(drawn[:, state.sites(wires)])
        found = Found(bits, errors[index], angles)
        return replace(found.estimate(bits, found.distance[:, None, None]), shots=shots)

    def _fidelity(
        self, circuit_a: Circuit, circuit_b: Circuit, angles_a: Tensor, angles_b: Tensor, gram: bool, request: Request
    ) -> Estimate:
        """From overlaps of chains, with their sites in one order; the distances of both sides add up."""
        _refuse_shots(self, request)
        if final_order(circuit_a, self._permutes) != final_order(circuit_b, self._permutes):
            unpermuted = replace(self, method="mps")
            return unpermuted._fidelity(circuit_a, circuit_b, angles_a, angles_b, gram, request)
        sides = []
        for circuit, angles in ((circuit_a, angles_a), (circuit_b, angles_b)):
            held = 2 * circuit.n_wires * self._cost(circuit).bond ** 2 * len(angles)
            states, index = self._states(circuit, angles, held)
            for state in states:
                state.advance(len(circuit.ops))
            sides.append((states, index))
        (left, rows), (right, columns) = sides
        overlaps = np.array([[abs(chain.overlap(b.tensors(), a.tensors())) ** 2 for b in right] for a in left])
        distances = np.array([[min(1.0, a.distance + b.distance) for b in right] for a in left])
        lost = np.array([[1 - (1 - a.infidelity) * (1 - b.infidelity) for b in right] for a in left])
        pick = (rows[:, None], columns[None]) if gram else (rows, columns)
        values, distance, infidelity = (torch.from_numpy(each)[pick] for each in (overlaps, distances, lost))
        worst = infidelity.amax(-1) if gram else infidelity
        found = Found(values, torch.stack((worst, worst), -1), angles_a)
        return found.estimate(values, distance)


def _refuse_shots(backend: Backend, request: Request) -> None:
    if request.shots is not None:
        raise ValueError(
            f"backend '{backend.spec}' expects shots=None, got {request.shots}: it counts none; use samples, or 'aer'."
        )

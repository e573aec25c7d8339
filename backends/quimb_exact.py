"""The ``quimb:exact`` backend: exact contraction of a circuit's light cone, a whole batch at once, differentiable.

Axis legend: b batch, a angles, o observables, k wires asked for, w Pauli words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from backends import linalg, validate
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.extras import check_installed
from backends.tensor_network import network as networks
from backends.tensor_network.cost import Cost, check_memory_limit, require_fit
from backends.tensor_network.network import Network
from backends.tensor_network.plans import plan, price
from circuits import GATES, Circuit, PauliSum
from circuits.ir import lifted
from circuits.observables import Word
from circuits.passes import light_cone

_MAX_WIRES = 1000
_MAX_SAMPLED_WIRES = 20


@dataclass(frozen=True)
class QuimbExact(Backend):
    """Exact tensor-network contraction in torch, along plans by cotengra: for shallow circuits of any width.

    Each result contracts the light cone of what is asked for, the batch as one leg that many tensors share. complex64
    (complex128 for float64 angles); gradients of any order by autograd. ``plan_dir``: where plans of 64 tensors or more
    are kept between processes (None: in memory alone); ``memory_limit``: bytes (None: what the machine has available);
    a contraction that needs more is refused. Cost: see ``rehearse``; exponential in the tree width of the light cone.
    Raises ImportError without cotengra. Gray and Kourtis 2021, Quantum 5, 410.

    >>> QuimbExact(plan_dir=None).spec
    'quimb:exact?plan_dir=None'
    """

    kind: ClassVar[str] = "quimb:exact"

    plan_dir: str | None = "~/.cache/hybridqlm/plans"
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if not (self.plan_dir is None or isinstance(self.plan_dir, str)):
            given = type(self.plan_dir).__name__
            raise TypeError(f"backend 'quimb:exact' expects plan_dir as a string or None, got {given}; pass a path.")
        check_memory_limit(self.kind, self.memory_limit)
        check_installed("quimb:exact", "cotengra", "tensornet")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            exact=True,
            state=True,
            density=True,
            batch=True,
            autograd=True,
            max_wires=_MAX_WIRES,
            gates=frozenset(GATES),
        )

    def rehearse(
        self, circuit: Circuit, observables: Sequence[PauliSum], batch: int = 1, dtype: torch.dtype = torch.float32
    ) -> Cost:
        """Return what the expectations of a batch cost, without gradients; plans, and keeps the plan, but runs nothing.

        ``dtype``: that of the angles. Raises what ``expectations`` would.

        >>> from circuits import Op, Z
        >>> QuimbExact(plan_dir=None).rehearse(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), (Z(1),)).flops < 1000
        True
        """
        validate.runnable(self.capabilities, circuit)
        itemsize = dtype.to_complex().itemsize
        flops, peak = 0.0, 0
        for words in _by_support(validate.observables(circuit, observables)).values():
            network = _expectations(circuit, words)
            sizes = networks.sizes(network, batch)
            cost = price(network, sizes, plan(network, sizes, self.plan_dir), itemsize, kept=False)
            flops, peak = flops + cost.flops, max(peak, cost.peak_bytes)
        return Cost(flops, peak, 2)

    def _contract(self, network: Network, angles: Tensor, other: Tensor | None = None) -> Tensor:
        """Plan, refuse what would not fit, and contract: (b, ...), whether or not anything depends on the sample."""
        sizes = networks.sizes(network, len(angles), 1 if other is None else len(other))
        itemsize, remedy = angles.dtype.to_complex().itemsize, "use a smaller batch, a shallower circuit, 'quimb:mps'"
        answer = Cost(0.0, itemsize * prod(sizes[leg] for leg in network.output), 2)
        require_fit(answer, self.memory_limit, self.spec, remedy)  # spares a plan for what cannot even be returned
        path = plan(network, sizes, self.plan_dir)
        sources = [angles] if other is None else [angles, other]
        kept = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
        cost = price(network, sizes, path, itemsize, kept)
        require_fit(cost, self.memory_limit, self.spec, remedy)
        return networks.contract(networks.tensors(network, angles, other), network, path)

    def _batched(self, network: Network, angles: Tensor) -> Tensor:
        """Values (b, ...), which touch the angles even where they depend on none."""
        values = self._contract(network, angles)
        if networks.BATCH not in network.output:
            values = values.expand(len(angles), *values.shape)
        return values + 0 * angles.sum(1).reshape(-1, *[1] * (values.ndim - 1))

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        _refuse_shots(self, request)
        columns: dict[Word, Tensor] = {(): angles.new_ones(len(angles))}
        for words in _by_support(observables).values():
            found = self._batched(_expectations(circuit, words), angles).real
            columns |= dict(zip(words, found.unbind(1), strict=True))
        table = [[dict(observable.terms).get(word, 0.0) for observable in observables] for word in columns]
        return Estimate(torch.stack(list(columns.values()), 1) @ angles.new_tensor(table))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(self, request)
        return Estimate(self._batched(_probabilities(circuit, wires), angles).real.reshape(len(angles), -1))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return Estimate(self._batched(_state(circuit), angles).reshape(len(angles), -1))

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(self, request)
        values = self._batched(_density(circuit, wires), angles)
        return Estimate(values.reshape(len(angles), 2 ** len(wires), 2 ** len(wires)))

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        _refuse_shots(self, request)
        rest = tuple(wire for wire in range(circuit.n_wires) if wire not in wires)
        if not rest:
            return Estimate(0 * angles.sum(1))  # the state is pure
        smaller = min(wires, rest, key=len)  # both sides of a pure state have one spectrum
        return Estimate(linalg.entropy(self._density(circuit, angles, smaller, request).values, kind))

    def _fidelity(
        self, circuit_a: Circuit, circuit_b: Circuit, angles_a: Tensor, angles_b: Tensor, gram: bool, request: Request
    ) -> Estimate:
        """From the amplitude ``<b|a>`` as one network, with a batch leg for each side of a Gram matrix."""
        _refuse_shots(self, request)
        network = _amplitude(circuit_a, circuit_b, gram)
        found = self._contract(network, angles_a, angles_b)
        shape = (len(angles_a), len(angles_b)) if gram else (len(angles_a),)
        for axis, leg in enumerate((networks.BATCH, networks.OTHER)[: len(shape)]):
            found = found if leg in network.output else found.unsqueeze(axis)
        values = found.expand(shape)
        return Estimate(values.real.square() + values.imag.square() + 0 * (angles_a.sum() + angles_b.sum()))

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        if len(wires) > _MAX_SAMPLED_WIRES:
            raise ValueError(
                f"backend '{self.spec}' expects samples of at most {_MAX_SAMPLED_WIRES} wires, got {len(wires)}: it "
                "draws them from all probabilities; ask for fewer wires, or use 'quimb:mps'."
            )
        probabilities = self._probabilities(circuit, angles, wires, Request()).values.double().clamp(min=0).cpu()
        generator = None if seed is None else torch.Generator().manual_seed(seed)  # None: torch's own
        outcomes = torch.multinomial(probabilities, shots, replacement=True, generator=generator)
        shifts = torch.arange(len(wires) - 1, -1, -1)
        return ((outcomes[..., None] >> shifts) & 1).to(angles.device, torch.uint8)


def _by_support(observables: tuple[PauliSum, ...]) -> dict[tuple[int, ...], tuple[Word, ...]]:
    """The distinct words other than the identity, by the wires they act on: one contraction each."""
    groups: dict[tuple[int, ...], list[Word]] = {}
    for word in sorted({word for observable in observables for word, _ in observable.terms if word}):
        groups.setdefault(tuple(wire for wire, _ in word), []).append(word)
    return {wires: tuple(words) for wires, words in groups.items()}


@lru_cache(maxsize=256)
def _cone(circuit: Circuit, wires: tuple[int, ...]) -> Circuit:
    """The light cone of wires, in which angle k is input k."""
    return light_cone(lifted(circuit), wires)


@lru_cache(maxsize=1024)
def _expectations(circuit: Circuit, words: tuple[Word, ...]) -> Network:
    wires = tuple(wire for wire, _ in words[0])
    letters = tuple("".join(letter for _, letter in word) for word in words)
    return networks.expectations(_cone(circuit, wires), circuit.shared, wires, letters)


@lru_cache(maxsize=256)
def _probabilities(circuit: Circuit, wires: tuple[int, ...]) -> Network:
    return networks.probabilities(_cone(circuit, wires), circuit.shared, wires)


@lru_cache(maxsize=256)
def _density(circuit: Circuit, wires: tuple[int, ...]) -> Network:
    return networks.density(_cone(circuit, wires), circuit.shared, wires)


@lru_cache(maxsize=256)
def _state(circuit: Circuit) -> Network:
    found = networks.state(lifted(circuit), circuit.shared)
    varies = any(networks.BATCH in legs for legs in found.legs)
    return replace(found, output=((networks.BATCH,) if varies else ()) + found.output)


@lru_cache(maxsize=256)
def _amplitude(circuit_a: Circuit, circuit_b: Circuit, gram: bool) -> Network:
    return networks.amplitude(lifted(circuit_a), lifted(circuit_b), circuit_a.shared, circuit_b.shared, gram)


def _refuse_shots(backend: Backend, request: Request) -> None:
    if request.shots is not None:
        raise ValueError(
            f"backend '{backend.spec}' expects shots=None, got {request.shots}: it is exact; use samples, or 'aer'."
        )

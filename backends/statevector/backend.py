"""The ``statevector`` backend: exact and differentiable.

Axis legend: b batch, o observables, t times, k wires asked for, N = 2**n amplitudes.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from backends import linalg
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.statevector.program import Monomial, monomials
from backends.statevector.reference import advance, start
from circuits import GATES, Circuit, PauliSum
from circuits.gates import pauli_matrix
from circuits.observables import Word

_MAX_WIRES = 24


@dataclass(frozen=True)
class Statevector(Backend):
    """Exact state-vector simulation in torch, on the inputs' device, in complex64 (complex128 for float64 angles).

    Gradients of any order by autograd. Circuits with resets run exactly as density matrices (4**n instead of 2**n
    amplitudes, at most half the wires). Cost O(b ops 2**n).

    >>> Statevector().spec
    'statevector'
    """

    kind: ClassVar[str] = "statevector"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            exact=True,
            state=True,
            density=True,
            batch=True,
            autograd=True,
            reset=True,
            max_wires=_MAX_WIRES,
            gates=frozenset(GATES),
        )

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        return Estimate(_expect(circuit, _run(circuit, angles), observables))

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        density = not circuit.is_unitary
        vectors, reached, values = start(circuit, angles, density), 0, []
        for count in times:
            vectors = advance(circuit, reached, count, vectors, angles, density)
            values.append(_expect(circuit, vectors, observables))
            reached = count
        return Estimate(torch.stack(values, 1))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        full = _weights(circuit, _run(circuit, angles)).T
        batch = len(full)
        rest = [wire for wire in range(circuit.n_wires) if wire not in wires]
        axes = [0, *(wire + 1 for wire in (*wires, *rest))]
        split = full.reshape(batch, *[2] * circuit.n_wires).permute(axes)
        return Estimate(split.reshape(batch, 2 ** len(wires), -1).sum(-1))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return Estimate(_run(circuit, angles).T.contiguous())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        probabilities = self._probabilities(circuit, angles, wires, Request()).values.clamp(min=0).cpu()
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        outcomes = torch.multinomial(probabilities, shots, replacement=True, generator=generator)
        shifts = torch.arange(len(wires) - 1, -1, -1)
        return ((outcomes[..., None] >> shifts) & 1).to(angles.device, torch.uint8)

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        vectors = _run(circuit, angles).T
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
                return Estimate(torch.zeros_like(angles[:, :1]).sum(1) + 0 * angles.sum(1))
            wires = rest  # both sides of a pure state have one spectrum: take the smaller
        return Estimate(linalg.entropy(self._density(circuit, angles, wires, request).values, kind))


def _run(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the final vectors: (2**n, b), or (4**n, b) of the density matrix for circuits with resets."""
    density = not circuit.is_unitary
    if density and 2 * circuit.n_wires > _MAX_WIRES:
        raise ValueError(
            f"a circuit with resets expects at most {_MAX_WIRES // 2} wires here, got {circuit.n_wires}: it runs as a "
            "density matrix; use fewer wires."
        )
    return advance(circuit, 0, len(circuit.ops), start(circuit, angles, density), angles, density)


def _weights(circuit: Circuit, vectors: Tensor) -> Tensor:
    """Return the basis states' probabilities (2**n, b)."""
    if circuit.is_unitary:
        return vectors.real.square() + vectors.imag.square()
    size = 2**circuit.n_wires
    return vectors.reshape(size, size, -1).diagonal(dim1=0, dim2=1).real.T


@lru_cache(maxsize=4096)
def _word(word: Word, n_wires: int) -> Monomial:
    """A Pauli word on all amplitudes."""
    wires, letters = tuple(wire for wire, _ in word), "".join(letter for _, letter in word)
    return monomials(pauli_matrix(letters), wires, n_wires)[0]


def _expect(circuit: Circuit, vectors: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (b, o): diagonal words by one product with the probabilities, others one gather each."""
    words = list(dict.fromkeys(word for observable in observables for word, _ in observable.terms))
    weights = _weights(circuit, vectors)
    coefficients = weights.new_tensor([[dict(o.terms).get(word, 0.0) for word in words] for o in observables])
    diagonal = [word for word in words if all(letter == "Z" for _, letter in word)]
    columns: dict[Word, Tensor] = {}
    if diagonal:
        signs = torch.stack([torch.from_numpy(_word(word, circuit.n_wires).phase.real) for word in diagonal])
        columns.update(zip(diagonal, signs.to(weights) @ weights, strict=True))
    for word in words:
        if word not in columns:
            columns[word] = _off_diagonal(circuit, vectors, _word(word, circuit.n_wires))
    return torch.stack([columns[word] for word in words], 1) @ coefficients.T


def _off_diagonal(circuit: Circuit, vectors: Tensor, word: Monomial) -> Tensor:
    """``<psi|P|psi>``, or ``Tr P rho``, shape (b,)."""
    index = torch.from_numpy(word.index).to(vectors.device)
    phase = torch.from_numpy(word.phase).to(vectors)[:, None]
    if circuit.is_unitary:
        return (vectors.conj() * phase * vectors.index_select(0, index)).sum(0).real
    size = 2**circuit.n_wires
    flat = index * size + torch.arange(size, device=vectors.device)
    return (phase * vectors.index_select(0, flat)).sum(0).real

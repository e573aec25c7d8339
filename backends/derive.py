"""Results that follow from others, so that an adapter needs to fill in expectations and samples alone.

Axis legend: b batch, o observables, t times, k wires asked for, a angles.
"""

from dataclasses import replace
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backends import tomography, validate
from backends.estimate import Estimate
from circuits import Circuit, PauliSum, pauli_word
from circuits.ir import lifted
from circuits.passes import inverse

if TYPE_CHECKING:
    from backends.base import Backend, Request

MAX_TOMOGRAPHY_WIRES = 6
MAX_WALSH_WIRES = 10


def along_prefixes(
    backend: "Backend",
    circuit: Circuit,
    angles: Tensor,
    observables: tuple[PauliSum, ...],
    times: tuple[int, ...],
    request: "Request",
) -> Estimate:
    """One prefix circuit per time, stacked to (b, t, o)."""
    estimates = []
    for position, count in enumerate(times):
        part = circuit.prefix(count)
        seed = None if request.seed is None else request.seed + position
        estimates.append(
            backend._expectations(part, angles[:, : part.n_angles], observables, replace(request, seed=seed))
        )
    return Estimate(
        torch.stack([estimate.values for estimate in estimates], 1),
        torch.stack([estimate.stderr for estimate in estimates], 1),
        estimates[0].shots,
        torch.stack([estimate.truncation_error for estimate in estimates], 1),
        torch.stack([estimate.infidelity for estimate in estimates]).amax(0),
    )


def _words(letters: str, wires: tuple[int, ...]) -> list[str]:
    """All words of the given letters on the wires but the identity."""
    words = ["".join(word) for word in product(letters, repeat=len(wires))]
    return words[1:]


def pauli_words(wires: tuple[int, ...]) -> list[str]:
    """Return all Pauli words on the wires but the identity, in tomography's order.

    >>> pauli_words((0,))
    ['X', 'Y', 'Z']
    """
    return _words("IXYZ", wires)


def probabilities(
    backend: "Backend", circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: "Request"
) -> Estimate:
    """``p(x) = 2**-k sum_W (-1)**(W.x) <Z_W>``: a Walsh transform of the 2**k Z words, all measured in one basis."""
    if len(wires) > MAX_WALSH_WIRES:
        raise ValueError(
            f"probabilities from expectations expect at most {MAX_WALSH_WIRES} wires, got {len(wires)}: they need 2**k "
            "Pauli words; ask for fewer wires, or for samples."
        )
    words = _words("IZ", wires)
    estimate = backend._expectations(circuit, angles, tuple(pauli_word(word, wires) for word in words), request)
    signs = _hadamard(len(wires))[1:].to(estimate.values) / 2 ** len(wires)
    stderr = (estimate.stderr.square() @ signs.square()).sqrt()
    truncation = estimate.truncation_error @ signs.abs()
    values = estimate.values @ signs + 2.0 ** -len(wires)
    return Estimate(values, stderr, estimate.shots, truncation, estimate.infidelity)


def _hadamard(n_wires: int) -> Tensor:
    """``(-1)**(W.x)``, shape (2**k, 2**k)."""
    return reduce(torch.kron, [torch.tensor([[1.0, 1.0], [1.0, -1.0]])] * n_wires)


def density(
    backend: "Backend", circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: "Request"
) -> Estimate:
    """``rho = 2**-k sum_W <W> W`` over all 4**k Pauli words; where shots were used, the nearest physical state."""
    words, estimate = _pauli_expectations(backend, circuit, angles, wires, request)
    return tomography.assemble(words, estimate)


def _pauli_expectations(
    backend: "Backend", circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: "Request"
) -> tuple[list[str], Estimate]:
    if len(wires) > MAX_TOMOGRAPHY_WIRES:
        raise ValueError(
            f"tomography expects at most {MAX_TOMOGRAPHY_WIRES} wires, got {len(wires)}: it measures 4**k Pauli words; "
            "ask for fewer wires."
        )
    words = pauli_words(wires)
    return words, backend._expectations(circuit, angles, tuple(pauli_word(word, wires) for word in words), request)


def entropy(
    backend: "Backend", circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: "Request"
) -> Estimate:
    """The entropy of the density matrix where that is exact; else tomography with its bias and error estimated."""
    if backend.capabilities.density and request.shots is None:
        return tomography.exact_entropy(backend._density(circuit, angles, wires, request), kind)
    words, estimate = _pauli_expectations(backend, circuit, angles, wires, request)
    return tomography.entropy(words, estimate, kind, request.seed)


def overlap(a: Estimate, b: Estimate, gram: bool) -> Estimate:
    """``|<a|b>|^2`` of states (b, 2**n): entry by entry, or (b_a, b_b)."""
    if gram:
        return Estimate(_gram(a.values, b.values))
    amplitude = (a.values.conj() * b.values).sum(-1)
    return Estimate(amplitude.real.square() + amplitude.imag.square())


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """All pairs by two real products over rows of real and imaginary parts: half of a complex product's arithmetic."""
    left, right = torch.view_as_real(a), torch.view_as_real(b)
    turned = torch.stack((right[..., 1], -right[..., 0]), -1)  # -i b
    along, across = left.flatten(1) @ right.flatten(1).mT, left.flatten(1) @ turned.flatten(1).mT
    return along.square() + across.square()


def compute_uncompute(
    backend: "Backend",
    circuit_a: Circuit,
    circuit_b: Circuit,
    angles_a: Tensor,
    angles_b: Tensor,
    gram: bool,
    request: "Request",
) -> Estimate:
    """Probability of all zeros after ``U_b^dagger U_a``, all pairs in one batch."""
    shape = (len(angles_a), len(angles_b)) if gram else (len(angles_a),)
    if gram:
        angles_a, angles_b = (
            angles_a.repeat_interleave(len(angles_b), 0),
            angles_b.repeat(len(angles_a), 1),
        )
    forward, backward = lifted(circuit_a), inverse(lifted(circuit_b))
    # One circuit whose angle columns are a's, then b's reversed and negated, as ``inverse`` orders its slots.
    circuit = lifted(forward + backward)
    validate.runnable(backend.capabilities, circuit)  # an inverse may hold gates that the circuits do not
    flipped = backward.angles(angles_b, angles_b.new_zeros(0))
    angles = torch.cat((angles_a, flipped), 1)
    estimate = backend._probabilities(circuit, angles, tuple(range(circuit.n_wires)), request)
    return Estimate(
        estimate.values[:, 0].reshape(shape),
        estimate.stderr[:, 0].reshape(shape),
        estimate.shots,
        estimate.truncation_error[:, 0].reshape(shape),
        estimate.infidelity.reshape(shape).amax(-1) if gram else estimate.infidelity,
    )

"""Reading a matrix product state: expectations, densities, probabilities, samples, overlaps.

Axis legend: n sites; tensor k is (l, 2, r): left bond, wire, right bond; s shots, w words, k sites kept.
All states are normalised, all numbers complex128.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from circuits.gates import PAULI

Array = NDArray[np.complex128]
Real = NDArray[np.float64]
Tensors = Sequence[Array]


def _step(environment: Array, bra: Array, ket: Array) -> Array:
    """Absorb one more site from the left: environment (x, l, l') of bra and ket bonds, to (x, r, r')."""
    half = np.tensordot(environment, ket, (2, 0))  # (x, l, p, r')
    return np.tensordot(half, bra.conj(), ((1, 2), (0, 1))).swapaxes(1, 2)


def right_environments(tensors: Tensors) -> list[Array]:
    """Return the norms' right environments (r, r'), entry k of sites k, k + 1, ...; the last is 1. Cost n chi**3."""
    found = [np.ones((1, 1), dtype=complex)]
    for tensor in reversed(tensors):
        half = np.tensordot(tensor, found[-1], (2, 1))  # (l', p, r)
        found.append(np.tensordot(tensor.conj(), half, ((1, 2), (1, 2))))
    return found[::-1]


def left_environments(tensors: Tensors) -> list[Array]:
    """Return the norms' left environments (1, l, l'), entry k of sites before k; the first is 1. Cost n chi**3."""
    found = [np.ones((1, 1, 1), dtype=complex)]
    for tensor in tensors:
        found.append(_step(found[-1], tensor, tensor))
    return found


def word_expectations(tensors: Tensors, words: Sequence[Mapping[int, str]]) -> Real:
    """Return ``<W>``, shape (w,), of Pauli words given as letters by site. Cost n chi**3, then span chi**3 a word."""
    lefts, rights = left_environments(tensors), right_environments(tensors)
    found = []
    for letters in words:
        first, last = min(letters, default=0), max(letters, default=-1)
        environment = lefts[first]
        for site in range(first, last + 1):
            ket = tensors[site]
            if site in letters:
                ket = np.einsum("pq,lqr->lpr", PAULI[letters[site]], ket)
            environment = _step(environment, tensors[site], ket)
        found.append(np.sum(environment[0] * rights[last + 1]).real)
    return np.array(found)


def overlap(bra: Tensors, ket: Tensors) -> complex:
    """Return ``<bra|ket>``. Cost n chi**3."""
    environment = np.ones((1, 1, 1), dtype=complex)
    for left, right in zip(bra, ket, strict=True):
        environment = _step(environment, left, right)
    return complex(environment[0, 0, 0])


def dense(tensors: Tensors) -> Array:
    """Return the state vector (2**n,), the first site most significant."""
    vector = np.ones((1, 1), dtype=complex)
    for tensor in tensors:
        vector = np.tensordot(vector, tensor, (1, 0)).reshape(-1, tensor.shape[2])
    return vector[:, 0]


def density(tensors: Tensors, sites: Sequence[int]) -> Array:
    """Return the reduced density matrix (2**k, 2**k) of sites in the order given. Cost n chi**3 + span 4**k chi**3."""
    kept = sorted(sites)
    environment = left_environments(tensors[: kept[0]])[-1]
    for site in range(kept[0], kept[-1] + 1):
        tensor = tensors[site]
        if site not in kept:
            environment = _step(environment, tensor, tensor)
            continue
        half = np.tensordot(environment, tensor, (2, 0))  # (x, l, p, r')
        full = np.tensordot(half, tensor.conj(), (1, 0))  # (x, p, r', q, r)
        environment = full.transpose(0, 1, 3, 4, 2).reshape(-1, tensor.shape[2], tensor.shape[2])
    flat = np.tensordot(environment, right_environments(tensors)[kept[-1] + 1], ((1, 2), (0, 1)))
    axes = [2 * kept.index(site) for site in sites]
    size = 2 ** len(sites)
    return flat.reshape((2,) * (2 * len(kept))).transpose(*axes, *(axis + 1 for axis in axes)).reshape(size, size)


def probabilities(tensors: Tensors, sites: Sequence[int]) -> Real:
    """Return the outcomes' probabilities (2**k,) of sites in the order given. Cost n chi**3 + span 2**k chi**3."""
    kept = sorted(sites)
    environment = left_environments(tensors[: kept[0]])[-1]
    for site in range(kept[0], kept[-1] + 1):
        tensor = tensors[site]
        if site not in kept:
            environment = _step(environment, tensor, tensor)
            continue
        both = [_step(environment, tensor[:, bit : bit + 1], tensor[:, bit : bit + 1]) for bit in (0, 1)]
        environment = np.stack(both, 1).reshape(-1, *both[0].shape[1:])
    flat = np.tensordot(environment, right_environments(tensors)[kept[-1] + 1], ((1, 2), (0, 1))).real
    return flat.reshape((2,) * len(kept)).transpose([kept.index(site) for site in sites]).ravel()


def sample(tensors: Tensors, uniforms: Real) -> NDArray[np.uint8]:
    """Return bits (s, n) drawn site by site with uniform numbers (s, n) from [0, 1). Cost s n chi**2 + n chi**3.

    Ferris and Vidal 2012, Phys. Rev. B 85, 165146, section III: each bit is drawn conditioned on those before it.
    """
    rights = right_environments(tensors)
    bits = np.zeros(uniforms.shape, dtype=np.uint8)
    rows = np.ones((len(uniforms), 1), dtype=complex)
    shots = np.arange(len(uniforms))
    for site, tensor in enumerate(tensors):
        both = np.tensordot(rows, tensor, (1, 0))  # (s, p, r)
        weights = np.sum(both.conj() * np.tensordot(both, rights[site + 1], (2, 1)), axis=2).real.clip(0)
        bits[:, site] = uniforms[:, site] * weights.sum(1) >= weights[:, 0]
        rows = both[shots, bits[:, site]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)  # long chains would underflow
    return bits

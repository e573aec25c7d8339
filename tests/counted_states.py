"""States of a given spectrum and simulated counts of them, drawn by Born's rule."""

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from oracles import von_neumann

from backends import Estimate, counts
from backends.derive import pauli_words
from circuits import pauli_word

Matrices = NDArray[np.complex128]
# The columns of each matrix are the letter's eigenvectors, +1 first.
EIGENVECTORS = {
    "X": np.array([[1, 1], [1, -1]]) / 2**0.5,
    "Y": np.array([[1, 1], [1j, -1j]]) / 2**0.5,
    "Z": np.eye(2),
}


def spectrum_of(kind: str, entropy: float, size: int) -> NDArray[np.float64]:
    """Eigenvalues of a given entropy (nats): a depolarised pure state's, or two alone."""
    low, high = 0.0, 1.0 if kind == "depolarised" else 0.5
    rest = np.full(size, 1 / size) if kind == "depolarised" else np.eye(size)[1]
    first = np.eye(size)[0]
    for _ in range(60):
        middle = (low + high) / 2
        chances = (1 - middle) * first + middle * rest
        low, high = (middle, high) if von_neumann(np.diag(chances)) < entropy else (low, middle)
    return (1 - low) * first + low * rest


def random_states(spectrum: NDArray[np.float64], batch: int, rng: np.random.Generator) -> Matrices:
    """Random states (b, d, d) of one spectrum."""
    shape = (batch, len(spectrum), len(spectrum))
    vectors = np.linalg.qr(rng.normal(size=shape) + 1j * rng.normal(size=shape))[0]
    return ((vectors * spectrum) @ vectors.conj().swapaxes(-1, -2)).astype(np.complex128)


def basis_states(spectrum: NDArray[np.float64], batch: int) -> Matrices:
    """States (b, d, d) of one spectrum, diagonal in the computational basis, so that some counts are certain."""
    return np.repeat(np.diag(spectrum).astype(np.complex128)[None], batch, 0)


def measure(states: Matrices, bases: counts.Bases, shots: int, rng: np.random.Generator) -> counts.Bits:
    """Bits (b, s, t, k) of Born's rule, by projection on the letters' eigenvectors."""
    n_wires = len(bases.wires)
    found = []
    for letters in bases.letters:
        turn = reduce(np.kron, (EIGENVECTORS[letter] for letter in letters))
        chances = np.einsum("ij,bik,kj->bj", turn.conj(), states, turn).real.clip(0)
        counted = rng.multinomial(shots, chances / chances.sum(-1, keepdims=True))
        outcomes = [np.repeat(np.arange(2**n_wires), row) for row in counted]  # no estimate reads the shots' order
        found.append((np.array(outcomes)[..., None] >> np.arange(n_wires - 1, -1, -1)) & 1)
    return np.stack(found, 1).astype(np.uint8)


def count_words(states: Matrices, shots: int, rng: np.random.Generator) -> tuple[list[str], Estimate]:
    """The estimate that a backend would give of all words: every product basis, ``shots`` times each."""
    n_wires = len(states[0]).bit_length() - 1
    wires = tuple(range(n_wires))
    words = pauli_words(wires)
    observables = tuple(pauli_word(word, wires) for word in words)
    bases = counts.bases_of(observables)
    assert len(bases.letters) == 3**n_wires
    return words, counts.expectations(measure(states, bases, shots, rng), bases, observables, torch.zeros(1).double())

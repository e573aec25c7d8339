"""The entropy of a noisy state from counted shots, with the global purity from the same shots.

Axis legend: b batch, s bases, t shots, m measured wires, k wires asked for.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from backends import counts, purity, tomography
from backends.derive import pauli_words
from backends.estimate import Estimate
from circuits import Circuit, pauli_word

Measure = Callable[[counts.Bases, int], counts.Bits]
"""Bits (b, s, t, m) of all samples in those bases, with that many shots a basis."""


def entropy(
    measure: Measure, circuit: Circuit, like: Tensor, wires: tuple[int, ...], kind: str, shots: int, seed: int | None
) -> Estimate:
    """Return the entropy of ``wires`` by tomography (nats, shape (b,)), with the global purity and both errors.

    The other wires are measured in the same shots. ``shots`` for each of the 3**k bases of the wires, shared among the
    bases of the others. At most ``purity.MAX_WIRES`` wires in all.
    """
    bases = purity.design(circuit.n_wires, wires, seed)
    shared = -(-shots * 3 ** len(wires) // len(bases.letters))  # a basis of the wires comes several times
    bits = measure(bases, shared)
    words = pauli_words(wires)
    observables = tuple(pauli_word(word, wires) for word in words)
    value, stderr = purity.global_purity(bits, bases, seed)
    return replace(
        tomography.entropy(words, counts.expectations(bits, bases, observables, like), kind, seed),
        purity=value.to(like),
        purity_stderr=stderr.to(like),
    )

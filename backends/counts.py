"""Estimates from counted shots: which bases to measure, and means with standard errors from the bits.

Axis legend: b batch, s bases, t shots, m measured wires, r rotated wires, o observables, w words.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backends.estimate import Estimate
from circuits import PauliSum, commuting_groups
from circuits.observables import Word

Bits = NDArray[np.uint8]
_TURNS = {"Z": (0.0, 0.0), "X": (0.0, -math.pi / 2), "Y": (-math.pi / 2, -math.pi / 2)}
_MAX_STRINGS = 2**21
"""Simulators answer with one Python string a shot: this many at once keep their memory near 200 MB."""


@dataclass(frozen=True)
class Bases:
    """Product bases: ``letters[s][j]`` is the Pauli letter measured on ``wires[j]``.

    >>> Bases((0, 2), ("ZX", "ZZ")).rotated
    (2,)
    """

    wires: tuple[int, ...]
    letters: tuple[str, ...]

    @cached_property
    def rotated(self) -> tuple[int, ...]:
        """The wires that some basis measures in X or Y: the others need no gate."""
        columns = zip(self.wires, zip(*self.letters, strict=True), strict=True)
        return tuple(wire for wire, letters in columns if set(letters) != {"Z"})

    def turns(self) -> NDArray[np.float64]:
        """Return the angles (s, 2r) of the gates RZ, RY on each rotated wire that turn each basis to Z."""
        rows = [[_TURNS[word[self.wires.index(wire)]] for wire in self.rotated] for word in self.letters]
        return np.array(rows, dtype=float).reshape(len(self.letters), 2 * len(self.rotated))

    def parameters(self, angles: Tensor) -> NDArray[np.float64]:
        """Return one row of circuit parameters per sample and basis: (b * s, a + 2r), bases innermost."""
        turns = self.turns()
        samples = angles.detach().cpu().double().numpy()
        return np.hstack((np.repeat(samples, len(turns), axis=0), np.tile(turns, (len(samples), 1))))


def computational(wires: tuple[int, ...]) -> Bases:
    """Return the one basis that measures Z on the wires, in their order.

    >>> computational((2, 0))
    Bases(wires=(2, 0), letters=('ZZ',))
    """
    return Bases(wires, ("Z" * len(wires),))


def bases_of(observables: tuple[PauliSum, ...]) -> Bases:
    """Return few bases in which every word of the observables can be read; none for multiples of the identity.

    >>> from circuits import X, Z
    >>> bases_of((Z(0) + X(2), Z(0) @ Z(2)))
    Bases(wires=(0, 2), letters=('ZZ', 'ZX'))
    """
    groups = [basis for basis, _ in commuting_groups(observables) if basis]
    wires = tuple(sorted({wire for basis in groups for wire in basis}))
    return Bases(wires, tuple("".join(basis.get(wire, "Z") for wire in wires) for basis in groups))


def expectations(bits: Bits, bases: Bases, observables: tuple[PauliSum, ...], like: Tensor) -> Estimate:
    """Return the observables' means and standard errors, shape (b, o), from bits (b, s, t, m).

    A word is averaged over all bases that contain it. Each basis gives every observable one value a shot, so that the
    covariance of its words is counted; bases are independent and their variances add. The variance is that of the t
    shots and two more at the extremes +-r of the value (Laplace's rule): a word read +1 in all t shots has the standard
    error 2 / t, never 0. Cost b s t w.

    >>> from circuits import Z
    >>> same = expectations(np.zeros((1, 1, 98, 1), np.uint8), Bases((0,), ("Z",)), (Z(0),), torch.zeros(1))
    >>> same.values.item(), round(same.stderr.item(), 3)
    (1.0, 0.02)
    """
    batch, n_bases, shots = bits.shape[:3]
    words = sorted({word for observable in observables for word, _ in observable.terms if word})
    readable = [[word for word in words if _reads(bases, letters, word)] for letters in bases.letters]
    shares = {word: sum(word in members for members in readable) for word in words}
    constants = [dict(observable.terms).get((), 0.0) for observable in observables]
    values = torch.tensor(constants, dtype=torch.float64).repeat(batch, 1)
    variance = torch.zeros_like(values)
    for index, members in enumerate(readable):
        table = [[dict(o.terms).get(word, 0.0) / shares[word] for o in observables] for word in members]
        weights = torch.tensor(table, dtype=torch.float32)
        touched = weights.abs().sum(0) > 0  # the other observables read nothing in this basis
        weights = weights[:, touched]
        per_shot = _parities(bits[:, index], bases, members) @ weights
        extreme = weights.abs().sum(0).double()
        mean = per_shot.mean(1, dtype=torch.float64)
        second = per_shot.square().sum(1, dtype=torch.float64)
        smoothed = (second + 2 * extreme**2) / (shots + 2) - (mean * shots / (shots + 2)).square()
        values[:, touched] += mean
        variance[:, touched] += smoothed.clamp(min=0) / shots
    return Estimate(values.to(like), variance.sqrt().to(like), shots * n_bases)


def _reads(bases: Bases, letters: str, word: Word) -> bool:
    basis = dict(zip(bases.wires, letters, strict=True))
    return all(basis.get(wire) == letter for wire, letter in word)


def _parities(bits: Bits, bases: Bases, words: list[Word]) -> Tensor:
    """Return (-1)**(sum of the word's bits) for each shot and word, (b, t, w), from bits (b, t, m)."""
    columns = [[bases.wires.index(wire) for wire, _ in word] for word in words]
    odd = [np.bitwise_xor.reduce(bits[..., column], axis=-1) for column in columns]
    return 1 - 2 * torch.from_numpy(np.stack(odd, -1)).float()


def probabilities(bits: Bits, like: Tensor) -> Estimate:
    """Return the frequencies of the outcomes, shape (b, 2**m), from bits (b, t, m), first wire most significant.

    Standard errors are binomial at Laplace's estimate (c + 1) / (t + 2): never 0. Cost b (t + 2**m).

    >>> probabilities(np.array([[[0], [1], [1], [1]]], np.uint8), torch.zeros(1)).values.tolist()
    [[0.25, 0.75]]
    """
    shots = bits.shape[1]
    counts = torch.from_numpy(histogram(bits)).double()
    smoothed = (counts + 1) / (shots + 2)
    stderr = (smoothed * (1 - smoothed) / shots).sqrt()
    return Estimate((counts / shots).to(like), stderr.to(like), shots)


def histogram(bits: Bits) -> NDArray[np.int64]:
    """Return how often each outcome came: (..., 2**m) from bits (..., t, m), first wire most significant.

    >>> histogram(np.array([[0, 1], [0, 1]], np.uint8)).tolist()
    [0, 2, 0, 0]
    """
    *lead, shots, wires = bits.shape
    size = 2**wires
    outcome = bits.astype(np.int64) @ (1 << np.arange(wires - 1, -1, -1))
    rows = outcome.reshape(-1, shots) + size * np.arange(math.prod(lead))[:, None]
    return np.bincount(rows.ravel(), minlength=size * math.prod(lead)).reshape(*lead, size)


def collect(
    run: Callable[[NDArray[np.float64], int | None], Bits], rows: NDArray[np.float64], shots: int, seed: int | None
) -> Bits:
    """Run parameter rows (rows, p) in as few calls as memory allows and return the bits (rows, t, m).

    Each call gets its own seed, derived from ``seed`` and the call's number.
    """
    return np.concatenate([run(part, part_seed) for part, part_seed in _parts(rows, shots, seed)])


def _parts(rows: NDArray[np.float64], shots: int, seed: int | None) -> Iterator[tuple[NDArray[np.float64], int | None]]:
    size = max(1, _MAX_STRINGS // shots)
    for number, first in enumerate(range(0, len(rows), size)):
        yield rows[first : first + size], derived_seed(seed, number)


def derived_seed(seed: int | None, number: int) -> int | None:
    """Return a seed of 31 bits for the ``number``-th use of a seed of any size; None stays None.

    >>> derived_seed(None, 3) is None, derived_seed(1, 0) == derived_seed(1, 1)
    (True, False)
    """
    if seed is None:
        return None
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def unpack(packed: Bits, n_bits: int) -> Bits:
    """Return Qiskit's packed outcomes (..., bytes) as single bits (..., n_bits), most significant first.

    >>> unpack(np.array([[2]], np.uint8), 2).tolist()
    [[1, 0]]
    """
    return np.unpackbits(packed, axis=-1)[..., -n_bits:]

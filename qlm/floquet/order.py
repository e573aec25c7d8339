"""What tells a time crystal: weight at half the drive's frequency, and spin-glass order.

Axis legend: d disorder instances, t times 0 ... T, f frequencies; ... any axes.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from backends import Backend, open_backend
from circuits import PauliSum, Z
from circuits._check import integer
from circuits.library.floquet import kicked_ising
from qlm.floquet.disorder import Disorder, check_kick
from qlm.floquet.measured import Measured
from qlm.floquet.trajectories import run_along


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Frequencies (f,) in units of the drive's, 0 to 1/2, and amplitudes (..., f)."""

    frequencies: Tensor
    amplitudes: Measured


def subharmonic_weight(autocorrelator: Measured) -> Measured:
    """Return the weight at half the drive, ``(1/T) sum_{t=1}^T (-1)^t A(t)`` in [-1, 1], shape (...) from (..., t).

    1 for perfect period doubling, ``O(1/T)`` for a free precession ``cos(pi g t)`` off g = 1. Times are independent
    runs where shots are counted. Raises ValueError where there is no period. Weight alone does not tell a localised
    time crystal from a prethermal one: see ``prethermal_control``.

    >>> alternating = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    >>> subharmonic_weight(Measured(alternating, torch.zeros(5), torch.zeros(5))).values.item()
    1.0
    """
    return survival(autocorrelator).arranged(lambda part: part[..., 1:]).mean(-1)


def survival(autocorrelator: Measured) -> Measured:
    """Return ``(-1)^t A(t)``, (..., t): what a time crystal keeps; ValueError without a period.

    >>> survival(Measured(torch.tensor([1.0, -1.0]), torch.zeros(2), torch.zeros(2))).values.tolist()
    [1.0, 1.0]
    """
    n_times = autocorrelator.values.shape[-1]
    if n_times < 2:
        raise ValueError(f"an autocorrelator expects at least 1 period, got {n_times - 1}; run more.")
    signs = 1 - 2 * (torch.arange(n_times) % 2).to(autocorrelator.values)
    return Measured(autocorrelator.values * signs, autocorrelator.stderr, autocorrelator.truncation_error)


def spectrum(autocorrelator: Measured) -> Spectrum:
    """Return ``|S(nu)|, S(nu) = (1/T) sum_{t=1}^T A(t) exp(-2 pi i nu t)``, nu = 0 ... 1/2, from A of shape (..., t).

    T is even: of an odd number of periods the first is left out, so that 1/2 is one of the frequencies, where |S| is
    the absolute ``subharmonic_weight``. Errors are those of S, which |S| does not exceed. Raises ValueError for fewer
    than 2 periods.

    >>> found = spectrum(Measured(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]), torch.zeros(5), torch.zeros(5)))
    >>> found.frequencies.tolist(), found.amplitudes.values.tolist()
    ([0.0, 0.25, 0.5], [0.0, 0.0, 1.0])
    """
    periods = autocorrelator.values.shape[-1] - 1
    if periods < 2:
        raise ValueError(f"a spectrum expects at least 2 periods, got {periods}; run more.")
    kept = autocorrelator.arranged(lambda part: part[..., 1 + periods % 2 :])
    count = kept.values.shape[-1]
    amplitudes = torch.fft.rfft(kept.values, norm="forward").abs()
    error = kept.mean(-1)
    errors = (each[..., None].expand_as(amplitudes) for each in (error.stderr, error.truncation_error))
    return Spectrum(torch.fft.rfftfreq(count, dtype=amplitudes.dtype), Measured(amplitudes, *errors))


def spin_glass_order(
    disorder: Disorder,
    g: float,
    periods: int,
    backend: str | Backend = "statevector",
    initial: str | None = None,
    shots: int | None = None,
    seed: int | None = None,
) -> Measured:
    """Return the Edwards-Anderson order ``chi(t) = (1/(n-2)) sum'_{i != j} <Z_i Z_j>^2``, shape (d, t).

    The sum leaves out the ends, so chi lies in [0, n - 3]. Extensive where spins freeze in a random pattern, whatever
    the state; it sinks to O(2**-n) where the chain thermalises. Squares of counted values are too large by their
    variance, which is subtracted. Mi et al. 2022, Nature 601, 531, figure 4; Edwards and Anderson 1975, J. Phys. F 5,
    965. Raises ValueError for fewer than 4 spins.

    >>> from qlm.floquet import draw_disorder
    >>> spin_glass_order(draw_disorder(5, 2), 1.0, 3).values[:, 3].round(decimals=3).tolist()
    [2.0, 2.0]
    """
    check_kick("spin_glass_order", g)
    periods = integer("spin_glass_order", "periods", periods, 1)
    pairs = bulk_pairs(disorder.n_wires)
    circuit = kicked_ising(disorder.n_wires, periods, initial=initial)
    return glass_from_pairs(run_along(open_backend(backend), circuit, disorder.inputs(g), pairs, shots, seed))


def bulk_pairs(n_wires: int) -> tuple[PauliSum, ...]:
    """Return ``Z_i Z_j``, i < j, of all spins but the two ends; ValueError for fewer than 4 spins.

    >>> bulk_pairs(4)
    (Z(1) @ Z(2),)
    """
    if n_wires < 4:
        raise ValueError(
            f"spin-glass order expects at least 4 spins, got {n_wires}: the two ends are left out; lengthen the chain."
        )
    return tuple(Z(i) @ Z(j) for i, j in combinations(range(1, n_wires - 1), 2))


def glass_from_pairs(pairs: Measured) -> Measured:
    """Return the spin-glass order (...) from ``<Z_i Z_j>`` of p = m (m - 1) / 2 pairs, (..., p), m = n - 2 spins.

    >>> glass_from_pairs(Measured(torch.ones(3), torch.zeros(3), torch.zeros(3))).values.item()
    2.0
    """
    n_pairs = pairs.values.shape[-1]
    spins = round((1 + (1 + 8 * n_pairs) ** 0.5) / 2)
    values, stderr, bound = pairs.values, pairs.stderr, pairs.truncation_error
    squares = values.square() - stderr.square()
    # Pairs are read from the same shots: their errors may add up.
    return Measured(
        2 / spins * squares.sum(-1),
        4 / spins * (values.abs() * stderr).sum(-1),
        2 / spins * (2 * values.abs() * bound + bound.square()).sum(-1),
    )

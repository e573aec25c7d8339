"""Autocorrelators of spins along a circuit, all times in one pass.

Axis legend: d disorder instances, t times, n spins, o observables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from backends import Backend, open_backend
from circuits import Circuit, PauliSum, Z
from circuits._check import integer
from circuits.library.floquet import checked_initial, kicked_ising, period_ends
from qlm.floquet.disorder import Disorder, check_kick
from qlm.floquet.measured import Measured

_AMPLITUDES = 2**18
"""Of one call to a state-vector simulator: what a cache holds; larger batches only wait for memory."""


@dataclass(frozen=True, slots=True)
class Autocorrelators:
    """``A_i(t) = s_i <Z_i(t)>`` after t = 0 ... T periods from the bit string ``initial``, s_i = +-1 its spins.

    ``sites`` (d, t, n); ``bulk`` (d, t): the mean over i = 1 ... n - 2, measured as one observable, so that its
    standard error counts what the spins of one shot share.
    """

    initial: str
    sites: Measured
    bulk: Measured


def autocorrelators(
    disorder: Disorder,
    g: float,
    periods: int,
    backend: str | Backend = "statevector",
    initial: str | None = None,
    shots: int | None = None,
    seed: int | None = None,
) -> Autocorrelators:
    """Return every instance's autocorrelators after 0 to ``periods`` periods, in one pass where the backend can.

    ``initial`` None: all 0. Exact facts: g = 1 gives ``A(t) = (-1)^t`` for any disorder, and ``A(1) = cos(pi g)``.
    Raises TypeError for several values of g, ValueError for no period and for fewer than 3 spins: the two ends of a
    chain may keep their spin in any phase (edge modes), so that a bulk value leaves them out. Cost on a state
    vector: d periods 3n 2**n.

    >>> from qlm.floquet import draw_disorder
    >>> found = autocorrelators(draw_disorder(3, 2), g=1.0, periods=3)
    >>> found.bulk.values[0].round(decimals=4).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    check_kick("autocorrelators", g)
    periods = integer("autocorrelators", "periods", periods, 1)
    initial = checked_initial("autocorrelators", disorder.n_wires, initial)
    bulk = bulk_observable(initial)
    circuit = kicked_ising(disorder.n_wires, periods, initial=initial)
    observables = (*spin_observables(initial), bulk)
    found = run_along(open_backend(backend), circuit, disorder.inputs(g), observables, shots, seed)
    sites, bulk = found.arranged(lambda part: part[..., :-1]), found.arranged(lambda part: part[..., -1])
    return Autocorrelators(initial, sites, bulk)


def spin_observables(initial: str) -> tuple[PauliSum, ...]:
    """Return ``s_i Z_i`` of each spin.

    >>> spin_observables("01")
    (Z(0), -1.0 * Z(1))
    """
    return tuple((1.0 - 2.0 * int(bit)) * Z(wire) for wire, bit in enumerate(initial))


def bulk_observable(initial: str) -> PauliSum:
    """Return ``sum_i s_i Z_i / (n - 2)`` over all spins but the two ends; ValueError for fewer than 3.

    >>> bulk_observable("0100")
    -0.5 * Z(1) + 0.5 * Z(2)
    """
    if len(initial) < 3:
        raise ValueError(
            f"a bulk autocorrelator expects at least 3 spins, got {len(initial)}: the two ends are left out; lengthen "
            "the chain."
        )
    first, *others = (observable / (len(initial) - 2) for observable in spin_observables(initial)[1:-1])
    return sum(others, first)


def run_along(
    backend: Backend,
    circuit: Circuit,
    inputs: Tensor,
    observables: Sequence[PauliSum],
    shots: int | None = None,
    seed: int | None = None,
) -> Measured:
    """Return expectations after each period of a ``kicked_ising`` circuit, shape (d, t, o).

    A state-vector simulator gets as many instances at a time as suit a cache.
    """
    size = max(1, _AMPLITUDES >> circuit.n_wires) if backend.capabilities.state else max(1, len(inputs))
    parts = [
        Measured.of(
            backend.expectations(circuit, part, None, observables, after=period_ends(circuit), shots=shots, seed=seed)
        )
        for part in inputs.split(size)
    ]
    return Measured.joined(parts)

"""How often to amplify, and what it costs beside rejection sampling and beside a mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from circuits._check import integer
from circuits.library import (
    amplification,
    fixed_point_iterations,
    fixed_point_phases,
    fixed_point_success,
    optimal_iterations,
    success_probability,
)

Phases = tuple[tuple[float, float], ...]
"""(oracle phase, start-state phase) of each iteration, radians."""


@runtime_checkable
class Search(Protocol):
    """How a search chooses its iterations."""

    def phases(self, p_good: float) -> Phases:
        """The phases of the iterations, one oracle call each."""
        ...

    def success(self, p_good: float) -> float:
        """The probability to measure an accepted state, by the closed form."""
        ...


@dataclass(frozen=True)
class KnownShare:
    """Grover's search with the best number of iterations for a known p_good, at most ``max_iterations``.

    A simulator knows p_good; a quantum computer would have to estimate it. Raises ValueError for a negative number.

    >>> KnownShare().phases(0.25)
    ((3.141592653589793, 3.141592653589793),)
    """

    max_iterations: int = 32

    def __post_init__(self) -> None:
        integer("KnownShare", "max_iterations", self.max_iterations, 0)

    def _iterations(self, p_good: float) -> int:
        return min(optimal_iterations(p_good), self.max_iterations)

    def phases(self, p_good: float) -> Phases:
        return ((math.pi, math.pi),) * self._iterations(p_good)

    def success(self, p_good: float) -> float:
        return success_probability(p_good, self._iterations(p_good))


@dataclass(frozen=True)
class FixedPoint:
    """Fixed-point search, which need not know p_good: success of at least 1 - delta^2 wherever p_good >= ``p_least``.

    Below ``p_least`` it succeeds less often. Raises ValueError unless 0 < p_least <= 1 and 0 < delta < 1. Yoder, Low,
    Chuang 2014 (arXiv:1409.3305).

    >>> len(FixedPoint().phases(0.5)), FixedPoint().success(0.05) >= 0.91
    (4, True)
    """

    p_least: float = 0.05
    delta: float = 0.3

    def __post_init__(self) -> None:
        fixed_point_iterations(self.p_least, self.delta)  # refuses what is no share or no error

    @property
    def iterations(self) -> int:
        """Oracle calls, whatever p_good is."""
        return fixed_point_iterations(self.p_least, self.delta)

    def phases(self, p_good: float) -> Phases:
        return fixed_point_phases(self.iterations, self.delta)

    def success(self, p_good: float) -> float:
        return fixed_point_success(p_good, self.iterations, self.delta)


@dataclass(frozen=True)
class CostRow:
    """One way to draw an accepted token. ``oracle_calls`` (in superposition) and ``gates`` are those of one attempt,
    which succeeds with ``success_probability``; ``expected_calls`` is the mean number of calls until one succeeds,
    ``(oracle_calls + 1) / success_probability``: the 1 is the check of the token that was measured or drawn."""

    p_good: float
    method: str
    oracle_calls: int
    success_probability: float
    expected_calls: float
    gates: int


def cost_table(
    shares: Sequence[float], n_wires: int = 4, known: KnownShare | None = None, fixed: FixedPoint | None = None
) -> tuple[CostRow, ...]:
    """Return what Grover's search, fixed-point search, rejection sampling and the mask cost at each p_good.

    ``gates``: primitive gates of the circuit on ``n_wires`` wires with one accepted state, which a simulator multiplies
    by 2**n_wires amplitudes. Rejection sampling draws from the model and checks: 1 / p_good calls on average, no gate.
    The mask calls no oracle and succeeds always: it needs the predicate's table over the kept tokens, which the
    simulated oracle needs too. Raises ValueError unless 0 < p_good <= 1.

    >>> for row in cost_table([0.01]):
    ...     print(f"{row.method:12}{row.oracle_calls:3}{row.success_probability:7.3f}{row.expected_calls:7.1f}")
    grover        7  0.995    8.0
    fixed point   4  0.357   14.0
    rejection     0  0.010  100.0
    mask          0  1.000    0.0
    """
    searches: tuple[tuple[str, Search], ...] = (
        ("grover", KnownShare() if known is None else known),
        ("fixed point", FixedPoint() if fixed is None else fixed),
    )
    none, once = (len(amplification(n_wires, (2**n_wires - 1,), k).ops) for k in (0, 1))
    rows: list[CostRow] = []
    for p_good in shares:
        for name, search in searches:
            calls, success = len(search.phases(p_good)), search.success(p_good)
            rows.append(CostRow(p_good, name, calls, success, (calls + 1) / success, none + calls * (once - none)))
        rows.append(CostRow(p_good, "rejection", 0, p_good, 1 / p_good, 0))
        rows.append(CostRow(p_good, "mask", 0, 1.0, 0.0, 0))
    return tuple(rows)

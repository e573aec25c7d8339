"""Bits per byte of paired runs, and what a 95 % t-interval of their differences says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from qlm.intervals import Interval, t_interval

VERDICTS = ("reproduced", "partly", "not reproduced", "cannot be tested here")


@dataclass(frozen=True)
class Row:
    """A model at one length: its learning rate, its bits per byte, one for each seed, seconds of the core in training
    and telling, and whether the rate is the lowest or highest that was tried, so that one beyond may be better."""

    model: str
    length: int
    rate: float
    found: tuple[float, ...]
    seconds: float
    at_edge: bool = False

    def line(self) -> str:
        spread = f" +- {stdev(self.found):.4f}" if len(self.found) > 1 else ""
        said = f"{mean(self.found):.4f}{spread}"
        rate = f"rate {self.rate:g}{' (edge of the grid)' if self.at_edge else ''}"
        return f"{self.length:>6} {self.model:<14} {said:<20} {rate}, {self.seconds:.1f} s a run"


@dataclass(frozen=True)
class Verdict:
    """A claim, what became of it, and the figures that say so.

    >>> Verdict("gap grows", "partly", "at one length").line()
    'gap grows: partly (at one length)'
    """

    claim: str
    verdict: str
    why: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict expects one of {VERDICTS}, got {self.verdict!r}; choose one of them.")

    def line(self) -> str:
        return f"{self.claim}: {self.verdict} ({self.why})"


class Runs:
    """Rows by model and length; seeds are paired, so that differences are of equal data and equal order."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: Mapping[tuple[str, int], Row] = {(row.model, row.length): row for row in rows}
        self.lengths = sorted({row.length for row in rows})
        self.models = list(dict.fromkeys(row.model for row in rows))

    def row(self, model: str, length: int) -> Row:
        return self._rows[model, length]

    def ahead(self, model: str, other: str, length: int) -> tuple[float, ...]:
        """By how many bits per byte ``model`` is better than ``other``, seed by seed."""
        pairs = zip(self.row(model, length).found, self.row(other, length).found, strict=True)
        return tuple(theirs - mine for mine, theirs in pairs)

    def has(self, model: str, length: int) -> bool:
        return (model, length) in self._rows


def shown(differences: Sequence[float]) -> tuple[str, Interval]:
    """A mean difference with its interval, in words and as numbers."""
    interval = t_interval(list(differences))
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]", interval


def of_all(intervals: Sequence[Interval]) -> str:
    """What becomes of a claim that every difference is above 0.

    One that lies below 0, beyond its interval, contradicts it. Else all are above, some are, or none is.

    >>> of_all([Interval(0.2, 0.1, 0.3, 5), Interval(0.0, -0.1, 0.1, 5)])
    'partly'
    >>> of_all([Interval(0.2, 0.1, 0.3, 5), Interval(-0.2, -0.3, -0.1, 5)])
    'not reproduced'
    """
    if any(interval.high < 0 for interval in intervals):
        return "not reproduced"
    above = sum(interval.low > 0 for interval in intervals)
    return "reproduced" if above == len(intervals) else "partly" if above else "not reproduced"

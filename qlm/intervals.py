"""The mean of a few paired differences, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the two-sided 95 % interval around it, from n values.

    >>> Interval(0.1, -0.1, 0.3, 5).holds_zero
    True
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def holds_zero(self) -> bool:
        """Whether a difference of 0 is compatible with the values."""
        return self.low <= 0 <= self.high


def t_interval(values: Sequence[float]) -> Interval:
    """Return ``mean +- t s / sqrt(n)``, t the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom.

    Raises ValueError for fewer than 2 values.

    >>> interval = t_interval([1.0, 2.0, 3.0])
    >>> round(interval.low, 4), round(interval.high, 4)
    (-0.4841, 4.4841)
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval expects at least 2 values, got {n}; run more seeds.")
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return t with P(|T| <= t) = confidence for Student's T, by bisection of the closed form.

    Raises ValueError for fewer than 1 degree of freedom. Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.

    >>> round(t_quantile(4), 3)
    2.776
    """
    if degrees < 1:
        raise ValueError(f"Student's distribution expects at least 1 degree of freedom, got {degrees}; add values.")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, degrees) < confidence else (low, angle)
    return math.tan(low) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees % 2:
        term, total = cosine, cosine if degrees > 1 else 0.0
        for k in range(2, degrees - 1, 2):
            term *= k / (k + 1) * cosine**2
            total += term
        return 2 / math.pi * (angle + sine * total)
    term = total = 1.0
    for k in range(1, degrees - 1, 2):
        term *= k / (k + 1) * cosine**2
        total += term
    return sine * total

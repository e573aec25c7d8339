"""Waiting between repetitions: longer each time, and never in step with others who wait."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from backends.ledger.clock import Clock
from backends.ledger.transport import Unreachable

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds, each drawn from [d/2, d] with d = first, 2 first, 4 first, ... up to ``longest``.

    >>> [0.5 <= pause <= 1.0 for pause, _ in zip(Backoff(first=1.0).pauses(), range(1))]
    [True]
    """

    first: float = 0.5
    longest: float = 30.0
    repeats: int = 6

    def pauses(self) -> Iterator[float]:
        """Yield pauses without end."""
        step = self.first
        while True:
            yield random.uniform(step / 2, step)
            step = min(2 * step, self.longest)

    def repeated(self, ask: Callable[[], T], clock: Clock) -> T:
        """Return what ``ask`` returns, asked again after Unreachable up to ``repeats`` times: for safe questions alone.

        >>> Backoff().repeated(lambda: 7, Clock())
        7
        """
        for number, pause in enumerate(self.pauses()):
            try:
                return ask()
            except Unreachable:
                if number >= self.repeats:
                    raise
            clock.sleep(pause)
        raise AssertionError("pauses have no end")

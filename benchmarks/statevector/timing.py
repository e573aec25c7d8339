"""Times of steps in interleaved rounds, and what is told of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.statevector.work import BOUNDS, Result, check

T = TypeVar("T")
Clock = Callable[[], float]

PATIENCE = 120.0
"""Seconds a step may take."""
_SHARE = 20.0
"""Seconds that one comparison may take, where three rounds are quicker than that."""
_LONG = 0.5
"""Seconds of a step in a round: shorter steps are repeated, so that no clock and no cold cache is measured."""
FEWEST = 3


@dataclass(frozen=True)
class Figure:
    """One ratio of the report. ``times``: median milliseconds by name; ``goal``: what ``ratio`` must reach."""

    figure: str
    size: str
    against: str
    ratio: float | None
    goal: float | None = None
    at_most: bool = False
    times: dict[str, float] = field(default_factory=dict)
    rounds: int = 0
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without goal or ratio."""
        if self.ratio is None or self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def record(self) -> dict[str, Any]:
        return {**self.__dict__, "met": self.met}

    def line(self) -> str:
        told = "not measured" if self.ratio is None else f"{self.ratio:.2f}" if self.ratio < 10 else f"{self.ratio:.0f}"
        goal = "" if self.goal is None else f"{'<=' if self.at_most else '>='} {self.goal:g}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        times = ", ".join(f"{name} {found:.3g} ms" for name, found in self.times.items())
        told_all = (
            self.figure,
            self.size,
            self.against,
            told,
            goal,
            verdict,
            "; ".join(filter(None, (times, self.note))),
        )
        return "{:<11} {:<12} {:<20} {:>12} {:>8} {:<6} {}".format(*told_all).rstrip()


def seconds(step: Callable[[], object], repeats: int, clock: Clock) -> float:
    """Of one call, as the mean of some.

    What one candidate leaves behind would be charged to the next: its garbage, and the memory that the allocator gives
    back when it is asked again. So garbage is collected before, and not meanwhile, and quick steps begin untimed.
    """
    gc.collect()
    if repeats > 1:
        step()
    gc.disable()
    try:
        started = clock()
        for _ in range(repeats):
            step()
        return (clock() - started) / repeats
    finally:
        gc.enable()


def interleaved(
    steps: Mapping[str, Callable[[], T]], rounds: int, clock: Clock
) -> tuple[dict[str, T], dict[str, list[float]]]:
    """What each step returned at first, and its seconds in each round: three at least, fewer where they take long.

    Raises TimeoutError, with the step's name, where the first call takes longer than two minutes.
    """
    answers: dict[str, T] = {}
    first = {}
    for name, step in steps.items():
        started = clock()
        answers[name] = step()
        first[name] = clock() - started
        if first[name] > PATIENCE:
            raise TimeoutError(f"{name} takes {first[name]:.0f} s for one step")
    warm = {name: seconds(step, 1, clock) if first[name] < 5 else first[name] for name, step in steps.items()}
    repeats = {name: max(1, round(_LONG / found)) for name, found in warm.items()}
    per_round = sum(found * repeats[name] for name, found in warm.items())
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(max(FEWEST, min(rounds, int(_SHARE / per_round)))):
        for name, step in steps.items():
            times[name].append(seconds(step, repeats[name], clock))
    return answers, times


def compared(
    figure: str,
    size: str,
    steps: Mapping[str, Callable[[], Result]],
    rounds: int,
    goal: float | None = None,
    at_most: bool = False,
    note: str = "",
    bounds: tuple[float, ...] = BOUNDS,
    clock: Clock = time.process_time,
) -> Figure:
    """The ratio of medians of two steps: what a peer takes over what we take, or with ``at_most`` the other way.

    The clock counts the process's time on the core: on one thread that is the time that passes, less what other
    processes take away. Where threads are compared it must be one of the time that passes.

    Raises AssertionError, and measures nothing, unless both return the same to within ``bounds``.
    """
    mine, other = steps
    try:
        answers, times = interleaved(steps, rounds, clock)
    except TimeoutError as slow:
        return Figure(figure, size, other, None, goal, at_most, note=str(slow))
    check(answers[mine], answers[other], f"{figure}, {size}: {mine} and {other}", bounds)
    median = {name: statistics.median(found) for name, found in times.items()}
    ratio = median[mine] / median[other] if at_most else median[other] / median[mine]
    told = {name: 1e3 * found for name, found in median.items()}
    return Figure(figure, size, other, ratio, goal, at_most, told, len(times[mine]), note)

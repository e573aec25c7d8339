"""Limits on QPU seconds per call, per run and per month, checked before anything is sent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_GENEROSITY = 3.0
"""A job is stopped at this multiple of its estimate ..."""
_LEAST_CAP = 10.0
"""... or after this many QPU seconds, whichever is more, where budgets leave that much."""


class BudgetError(ValueError):
    """A request would cost more than is allowed; nothing was sent. ``left``: QPU seconds that remain.

    >>> issubclass(BudgetError, ValueError)
    True
    """

    def __init__(self, message: str, left: float = 0.0) -> None:
        super().__init__(message)
        self.left = left


@dataclass(frozen=True)
class Limits:
    """The most QPU seconds of one call and of one calendar month (UTC), kept in the ledger; None: no such limit.

    >>> Limits(call=30.0).month is None
    True
    """

    call: float | None = None
    month: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("call", self.call), ("month", self.month)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a budget per {name} expects QPU seconds from 0, got {value}; correct it.")


@dataclass(frozen=True)
class Spending:
    """What a run and a month have cost so far, open jobs and sessions counted with all that they may take.

    >>> Spending(run=2.5, month=2.5).run
    2.5
    """

    run: float
    month: float


def caps(estimates: Sequence[float], allowed: float, limits: Limits, spent: Spending, paid: bool) -> list[int]:
    """Return for each job of a call the QPU seconds after which the service is to stop it; BudgetError over a budget.

    The tightest of three budgets counts: the call's, what is left of the run's allowance, and what is left of the
    month's (paid devices alone). A job may take 3 times its estimate, at least 10 s, and at most its share of what is
    left, in whole seconds: were every job stopped at its cap, no budget would be exceeded.

    >>> caps([2.0], 60.0, Limits(), Spending(0.0, 0.0), True)
    [10]
    """
    total = sum(estimates)
    _require_any(total, allowed)
    name, left, remedy = _tightest(allowed, limits, spent, paid)
    if total > left or left < len(estimates):
        jobs = f"{len(estimates)} jobs" if len(estimates) > 1 else "one job"
        raise BudgetError(
            f"the budget of this {name} expects at most {left:.1f} more QPU seconds, got a request for {jobs} of about "
            f"{max(total, len(estimates) if total <= left else 0):.1f}; nothing was sent: use fewer shots or circuits, "
            f"or {remedy}.",
            left,
        )
    spare = left - len(estimates)  # each job gets one whole second, and its share of the rest
    shares = [spare * (each / total if total else 1 / len(estimates)) for each in estimates]
    wanted = [max(_LEAST_CAP, _GENEROSITY * each) for each in estimates]
    return [max(1, math.floor(min(most, 1 + share))) for most, share in zip(wanted, shares, strict=True)]


def session_seconds(allowed: float, limits: Limits, spent: Spending) -> int:
    """Return the longest that a session may be open, in whole seconds: it bills by the clock. BudgetError below one.

    >>> session_seconds(60.0, Limits(month=100.0), Spending(run=2.5, month=70.0))
    30
    """
    name, left, remedy = _tightest(allowed, Limits(None, limits.month), spent, paid=True)
    if left < 1:
        raise BudgetError(
            f"the budget of this {name} expects a session of at most {left:.1f} seconds, which bills by the clock, got "
            f"no whole one; none was opened: {remedy}.",
            left,
        )
    return math.floor(left)


def _tightest(allowed: float, limits: Limits, spent: Spending, paid: bool) -> tuple[str, float, str]:
    """The budget that leaves least: its name, the QPU seconds that it leaves, and how to have more."""
    budgets = [("run", allowed - spent.run, "allow more with --allow-qpu-seconds (allow_qpu_seconds)")]
    if limits.call is not None:
        budgets.append(("call", limits.call, "raise it with: qlm jobs budget --call"))
    if limits.month is not None and paid:
        budgets.append(("month", limits.month - spent.month, "raise it with: qlm jobs budget --month"))
    name, left, remedy = min(budgets, key=lambda budget: budget[1])
    return name, max(0.0, left), remedy


def _require_any(seconds: float, allowed: float) -> None:
    if not allowed:
        raise BudgetError(
            f"a device expects leave to spend QPU time, got allow_qpu_seconds=0 for a request of about {seconds:.1f} "
            "QPU seconds; nothing was sent: pass --allow-qpu-seconds N (allow_qpu_seconds) with all that a run may "
            "take."
        )


def require_leave(cap: float, allowed: float, spent: float) -> None:
    """Raise BudgetError where a job written down before, and never sent, is beyond what this run may spend.

    >>> require_leave(10, 60.0, 20.0)
    """
    _require_any(cap, allowed)
    if cap > allowed - spent:
        raise BudgetError(
            f"the budget of this run expects at most {max(0.0, allowed - spent):.1f} more QPU seconds, got a job that "
            f"waits to be sent and may take {cap:.0f}; nothing was sent: allow more with --allow-qpu-seconds "
            "(allow_qpu_seconds), or cancel it: qlm jobs cancel.",
            max(0.0, allowed - spent),
        )


def within(cap: float, limits: Limits, spent: float, paid: bool) -> None:
    """Raise BudgetError where such a job is beyond the budget per call, or what is left of the month's.

    >>> within(10, Limits(month=60.0), 20.0, True)
    """
    month = None if limits.month is None or not paid else limits.month - spent
    for name, left in (("call", limits.call), ("month", month)):
        if left is not None and cap > left:
            raise BudgetError(
                f"the budget of this {name} expects at most {max(0.0, left):.1f} more QPU seconds, got a job that "
                f"waits to be sent and may take {cap:.0f}; nothing was sent: raise it with: qlm jobs budget --{name}, "
                "or cancel the job.",
                max(0.0, left),
            )

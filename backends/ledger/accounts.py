"""What was spent, and when it counts: the charges of sendings and sessions, and a time that never runs backwards."""

import json
import sqlite3
import warnings

from backends.ledger.budget import Limits, Spending
from backends.ledger.clock import Clock, month_start

_JUMP = 3600.0
"""Seconds between two readings that should agree beyond which somebody has set the clock."""


class ClockWarning(UserWarning):
    """The wall clock was set; the budget of the month goes by the reading that renews it last.

    >>> issubclass(ClockWarning, UserWarning)
    True
    """


def reading(connection: sqlite3.Connection, clock: Clock) -> float:
    """Return the time that charges and months go by: the wall clock's, but never earlier than any the ledger has seen.

    While the machine runs it is also never later than the steady clock allows: of a clock that was set forward the
    earlier reading counts, of one that was set back the latest that was ever seen. Neither renews a budget. (A clock
    that was set forward while the machine was off cannot be told from time that has passed.)
    """
    now, boot, steady = clock.wall(), clock.boot(), clock.steady()
    known = json.loads(get(connection, "clock") or "null") or {"wall": now, "boot": boot, "steady": steady}
    latest = known.get("latest", known["wall"])
    if known["boot"] != boot:  # readings of steady clocks of two boots cannot be compared
        known, expected = {"wall": max(now, latest), "boot": boot, "steady": steady}, now
    else:
        expected = known["wall"] + steady - known["steady"]
    if now > expected + _JUMP:
        _warn_of_jump(now - expected, "it was started", "the earlier reading")
    elif now < max(expected, latest) - _JUMP:
        _warn_of_jump(now - max(expected, latest), "the ledger was last used", "the latest that the ledger has seen")
    counted = max(min(now, expected), latest)
    put(connection, "clock", json.dumps(known | {"latest": counted}))
    return counted


def _warn_of_jump(seconds: float, since: str, counts: str) -> None:
    warnings.warn(
        f"the clock of this machine jumped by {seconds / 3600:+.0f} hours since {since}; the budget of the month "
        f"counts from {counts}.",
        ClockWarning,
        stacklevel=6,
    )


def spending(connection: sqlite3.Connection, clock: Clock, run: str, without: str | None = None) -> Spending:
    """Return what a run and the month of the ledger's time have cost, a session left out.

    What was sent counts in the month in which it was sent; what waits to be sent counts in every month until it is.
    """
    since = month_start(reading(connection, clock))
    total = "SELECT coalesce(sum(seconds), 0) FROM charges WHERE tag IS NOT ?"
    (of_run,) = connection.execute(f"{total} AND run = ?", (without, run)).fetchone()
    (of_month,) = connection.execute(f"{total} AND paid AND (at IS NULL OR at >= ?)", (without, since)).fetchone()
    return Spending(float(of_run), float(of_month))


def limits(connection: sqlite3.Connection) -> Limits:
    """Return the budgets that are kept."""
    return Limits(**{name: json.loads(get(connection, f"limit.{name}") or "null") for name in ("call", "month")})


def get(connection: sqlite3.Connection, name: str) -> str | None:
    """Return a setting."""
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else row["value"]


def put(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a setting."""
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

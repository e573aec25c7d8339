"""Time: a wall clock for people, which may jump, and a steady one for waiting, which does not."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@lru_cache(maxsize=1)
def _boot() -> str:
    """What names the stretch in which steady readings can be compared: this boot, or else this process."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{uuid4()}"


def _steady() -> float:
    """Seconds since some moment, the same for all processes of one boot; sleep counts where the system knows it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Clock:
    """Readings in seconds. Steady ones may be compared between processes while ``boot`` is the same.

    >>> clock = Clock()
    >>> clock.steady() <= clock.steady()
    True
    """

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = _steady
    boot: Callable[[], str] = _boot
    sleep: Callable[[float], None] = time.sleep


def month_start(wall: float) -> float:
    """Return the first moment (UTC) of the calendar month that a wall clock's reading is in.

    >>> datetime.fromtimestamp(month_start(1.7e9), UTC).isoformat()
    '2023-11-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(wall, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()

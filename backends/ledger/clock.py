"""Time: a wall clock for people, which may jump, and a steady one for waiting, which does not."""

import os
import socket
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


def owner(pid: int | None = None) -> str:
    """Return what names a running process beyond the reuse of its number: machine, boot, number, start.

    >>> owner() == owner(), owner().count("/")
    (True, 3)
    """
    number = os.getpid() if pid is None else pid
    return "/".join((socket.gethostname().replace("/", "-"), _boot(), str(number), _started(number)))


def has_ended(name: str) -> bool:
    """Return whether a process named by ``owner`` has ended for certain; on other machines nobody here knows.

    >>> has_ended(owner())
    False
    """
    machine, boot, number, started = name.split("/")
    if machine != socket.gethostname().replace("/", "-"):
        return False
    if boot != _boot():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(number)) != started


def _started(number: int) -> str:
    """When a process started, where the system has a file that says so: its number may be another's later."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def month_start(wall: float) -> float:
    """Return the first moment (UTC) of the calendar month that a wall clock's reading is in.

    >>> datetime.fromtimestamp(month_start(1.7e9), UTC).isoformat()
    '2023-11-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(wall, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()

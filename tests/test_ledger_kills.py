"""kill -9 at twenty points of a request's way, and of those that resume it: nothing lost, nothing sent twice."""

from pathlib import Path

import kill_points
from kill_points import UNHARMED, Point
from standin import StandIn

POINTS = 20
AGAIN = (Point("recorded", 3), Point("posting", 2), Point("searching", 2), Point("polling", 3), Point("fetching", 4))
"""Where the process that resumes dies, for one kill point in two."""


def test_kill_points(tmp_path: Path) -> None:
    """From the first SQL statement to the last, with faults on the wire in one request of five."""
    verdict = kill_points.Verdict()
    with StandIn() as service:
        whole = kill_points.rehearse(tmp_path, service, 10**6)
        assert whole["heavy"] == []  # the ledger needs neither qiskit nor torch nor numpy
        assert sum(whole["events"].values()) > POINTS
        service.fault = kill_points.arranged(3)
        for number, point in enumerate(kill_points.plan(whole["events"], POINTS)):
            again = AGAIN[number // 2 % len(AGAIN)] if number % 2 else None
            kill_points.strike(verdict, tmp_path, service, number, point, again)
    assert (verdict.lost, verdict.twice, verdict.wrong) == (0, 0, 0), str(verdict)
    assert verdict.points == POINTS
    assert verdict.killed >= POINTS - 3  # a request that goes well early may be over before its event
    assert verdict.resumers_killed >= 3  # where it dies depends on what it finds
    assert verdict.left["not recorded"] <= POINTS // 10
    assert {"queued", "uncertain", "submitted"} <= set(verdict.left)


def test_the_count_would_notice(tmp_path: Path) -> None:
    """A job that is sent twice, and one that the ledger does not know, are found."""
    verdict = kill_points.Verdict()
    with StandIn() as service:
        kill_points.strike(verdict, tmp_path, service, 1, UNHARMED)
        assert (verdict.lost, verdict.twice) == (0, 0)
        payload = dict(next(iter(service.jobs.values())).payload)
        stray = {"program_id": "sampler", "tags": ["hybridqlm", "qlm-stray"]}
        service._accept(payload | stray)
        kill_points.strike(verdict, tmp_path, service, 1, UNHARMED)
    assert (verdict.lost, verdict.twice) == (1, 1)

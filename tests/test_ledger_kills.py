"""kill -9 at twenty points of a request's way to the stand-in: nothing lost, nothing sent twice."""

from pathlib import Path

import kill_points
from standin import StandIn

POINTS = 20


def test_kill_points(tmp_path: Path) -> None:
    """From the first SQL statement to the last, with faults on the wire in one request of five."""
    verdict = kill_points.Verdict()
    with StandIn() as service:
        whole = kill_points.rehearse(tmp_path, service, 10**6)
        assert whole["heavy"] == []  # the ledger needs neither qiskit nor torch nor numpy
        assert whole["events"] > POINTS
        service.fault = kill_points.arranged(3)
        for number in range(POINTS):
            kill_points.strike(verdict, tmp_path, service, number, 1 + number * whole["events"] // POINTS)
    assert (verdict.lost, verdict.twice, verdict.wrong) == (0, 0, 0), str(verdict)
    assert verdict.points == POINTS
    assert verdict.killed >= POINTS - 3  # a request that goes well early may be over before its event
    assert {"uncertain", "submitted", "not recorded"} <= set(verdict.left)


def test_the_count_would_notice(tmp_path: Path) -> None:
    """A job that is sent twice, and one that the ledger does not know, are found."""
    verdict = kill_points.Verdict()
    with StandIn() as service:
        kill_points.strike(verdict, tmp_path, service, 1, kill_points.NEVER)
        assert (verdict.lost, verdict.twice) == (0, 0)
        payload = dict(next(iter(service.jobs.values())).payload)
        stray = {"program_id": "sampler", "tags": ["hybridqlm", "qlm-stray"]}
        service._accept(payload | stray)
        kill_points.strike(verdict, tmp_path, service, 1, kill_points.NEVER)
    assert (verdict.lost, verdict.twice) == (1, 1)

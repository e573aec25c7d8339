"""What is charged, and when: every sending, in the month in which it went out, by a clock that never runs backwards."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kill_points import HurriedClock
from ledger_cases import Service, asks, carry

from backends.ledger.accounts import ClockWarning
from backends.ledger.budget import BudgetError, Limits, Spending, session_seconds
from backends.ledger.clock import Clock, has_ended, owner
from backends.ledger.courier import Undecided
from backends.ledger.job import Job
from backends.ledger.ledger import Ledger, open_ledger
from backends.ledger.sessions import SessionBook
from backends.ledger.store import APPLICATION_ID, MIGRATIONS
from backends.ledger.transport import AnswerLost, Progress, Unreachable

DAY = 86400.0


class Machine:
    """A machine whose clock can be set, and which can be started anew."""

    def __init__(self, now: datetime) -> None:
        self.now = now.replace(tzinfo=UTC).timestamp()
        self.boots = 0
        self.hurried = HurriedClock()

    def ledger(self, path: Path) -> Ledger:
        plain = self.hurried.clock()
        return open_ledger(path, Clock(lambda: self.now, plain.steady, lambda: f"boot {self.boots}", plain.sleep))


@pytest.fixture
def machine() -> Machine:
    return Machine(datetime(2026, 1, 31, 12))


@pytest.fixture
def ledger(tmp_path: Path, machine: Machine) -> Ledger:
    return machine.ledger(tmp_path / "ledger.sqlite3")


def test_a_job_counts_in_the_month_in_which_it_was_sent(ledger: Ledger, machine: Machine) -> None:
    """Recorded in January, sent in February: it is February's, and waits in both until then."""
    ledger.record([asks(0)], 60)
    (job,) = ledger.jobs()
    assert ledger.spending("r").month == job.cap == 10
    machine.now, machine.boots = machine.now + DAY, 1
    assert ledger.spending("r").month == 10
    carry(ledger, Service()).follow(job.tag)
    assert ledger.spending("r").month == 1.25
    machine.now, machine.boots = machine.now + 40 * DAY, 2
    assert ledger.spending("r") == Spending(run=1.25, month=0.0)
    assert [datetime.fromtimestamp(each.at, UTC).month for each in ledger.sendings(job.tag)] == [2]


@pytest.mark.parametrize("restarted", [True, False])
def test_a_clock_set_back_renews_no_budget(ledger: Ledger, machine: Machine, restarted: bool) -> None:
    """Neither that of the month which it is set back to, nor, when it is set right, that of the month which it is."""
    ledger.set_limits(Limits(month=12))
    courier = carry(ledger, Service())
    machine.now, machine.boots = machine.now + 10 * DAY, 1
    courier.deliver([asks(0)], 60)
    machine.now -= 35 * DAY
    machine.boots += restarted
    with pytest.warns(ClockWarning, match="jumped by -840 hours since the ledger was last used; .* the latest that"):
        courier.deliver([asks(1)], 60)  # now it is February still
    with pytest.warns(ClockWarning):
        spent = ledger.spending("another")
    assert spent == Spending(run=0, month=2.5)
    with pytest.warns(ClockWarning), pytest.raises(BudgetError, match=r"of this month expects at most 9\.5 more"):
        courier.deliver([asks(2, estimate=10.0)], 60)
    machine.now += 35 * DAY
    assert ledger.spending("r").month == 2.5
    machine.now, machine.boots = machine.now + 28 * DAY, 7
    assert ledger.spending("r").month == 0


def test_each_sending_is_charged(ledger: Ledger) -> None:
    """A lost one, and one more by consent: both, until the service says what became of the first."""
    service = Service([AnswerLost("dropped")], accepts_lost=False)
    courier = carry(ledger, service)
    with pytest.raises(Undecided, match="for up to 10 QPU seconds more"):
        courier.deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert ledger.spending("r") == Spending(10, 10)
    service.end = Progress("running")
    courier.resubmit(job.tag)
    assert ledger.spending("r") == Spending(20, 20)
    service.end = Progress("done", 1.25)
    job = courier.follow(job.tag)
    assert (job.sendings, job.used, job.charge) == (2, None, 11.25)
    assert not courier.refresh_usage(job)
    service.jobs["late"] = job.tag
    assert courier.refresh_usage(job)
    job = ledger.job(job.tag)
    assert (job.used, job.charge, ledger.spending("r").month) == (2.5, 2.5, 2.5)
    assert {each.remote_id for each in ledger.sendings(job.tag)} == {"j0", "late"}


def test_consent_is_within_the_month(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")], accepts_lost=False)
    courier = carry(ledger, service)
    ledger.set_limits(Limits(month=15))
    with pytest.raises(Undecided):
        courier.deliver([asks()], 60)
    (job,) = ledger.jobs()
    with pytest.raises(BudgetError, match=r"of this month expects at most 5\.0 more QPU seconds, got a job .* take 10"):
        courier.resubmit(job.tag)
    assert service.sent == 1


def test_all_jobs_under_a_tag_are_charged(ledger: Ledger) -> None:
    """Something between here and the service sent it twice: both are found, named and charged."""

    class Doubles(Service):
        def submit(self, job: Job) -> str:
            self.jobs["twin"] = job.tag
            return super().submit(job)

    service = Doubles([AnswerLost("dropped")], end=Progress("done"))
    courier = carry(ledger, service)
    courier.deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert (job.sendings, job.charge) == (2, 2 * job.cap)
    assert any(reason == "2 jobs bear this tag: twin, j1" for _, _, reason in ledger.history(job.tag))
    service.end = Progress("done", 1.25)
    assert courier.refresh_usage(job)
    assert ledger.spending("r").month == 2.5


def test_what_was_not_taken_costs_nothing(ledger: Ledger) -> None:
    """Refused for the moment four times, then out of patience: it waits, charged once, as what waits is."""
    service = Service([Unreachable("HTTP 429")] * 4)
    with pytest.raises(Unreachable, match="HTTP 429"):
        carry(ledger, service).deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert (job.state, job.reason, job.sendings) == ("queued", "not sent: HTTP 429", 4)
    assert ledger.spending("r").run == job.cap
    assert carry(ledger, service).follow(job.tag).charge == 1.25


def test_a_request_that_waits_becomes_its_new_runs(ledger: Ledger) -> None:
    for number in range(2):
        ledger.record([asks(number, run="gone")], 60)
    with pytest.raises(BudgetError, match=r"at most 15\.0 more QPU seconds, got a job .* may take 20"):
        ledger.record([asks(0), asks(1)], 15)
    ledger.record([asks(0), asks(1)], 20)
    assert (ledger.spending("r").run, ledger.spending("gone").run) == (20, 0)


def test_a_session_is_charged_in_place_of_its_jobs(ledger: Ledger) -> None:
    """It may last as long as budgets leave, its jobs' own shares included; they cost nothing beside it."""
    book = SessionBook(ledger)
    ledger.set_limits(Limits(month=50))
    carry(ledger, Service()).deliver([asks(9)], 60)
    waiting = ledger.record([asks(0)], 60)
    session = book.begin("session", "ibm_x", waiting, 60)
    assert (session.longest, session.state) == (48, "opening")
    assert ledger.claim(waiting[0], session.name) is not None
    assert ledger.spending("r") == Spending(49.25, 49.25)
    (inside,) = ledger.record([asks(1)], 60, session.name)
    assert ledger.claim(inside, session.name) is not None
    with pytest.raises(BudgetError, match=r"at most 0\.8 more"):
        ledger.record([asks(2)], 60)
    book.move(session, "closed", used=20.5)
    assert ledger.spending("r") == Spending(21.75, 21.75)
    batch = book.begin("batch", "ibm_x", waiting, 60)
    assert (batch.longest, ledger.spending("r").run) == (0, 21.75)
    with pytest.raises(BudgetError, match=r"of this run expects a session of at most 0\.4 seconds, which bills by"):
        session_seconds(10.0, Limits(), Spending(9.6, 9.6))


def test_whose_sessions_are_nobodys(ledger: Ledger) -> None:
    """Those of processes that have ended, on this machine; of others nobody knows."""
    session = SessionBook(ledger).begin("batch", "ibm_x", ledger.record([asks()], 60), 60)
    assert not session.is_abandoned
    machine, boot, number, started = owner().split("/")
    assert not has_ended(owner())
    assert has_ended("/".join((machine, "an earlier boot", number, started)))
    assert has_ended("/".join((machine, boot, number, "another process of that number")))
    assert has_ended("/".join((machine, boot, str(2**22 + 1), started)))
    assert not has_ended("/".join(("elsewhere", "an earlier boot", number, started)))
    assert SessionBook(ledger).move(session, "closing").is_abandoned


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    path.touch(0o600)
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    rows = (("a", "done", 1.25, "boot"), ("b", "queued", None, None), ("c", "uncertain", None, "boot"))
    for tag, state, used, boot in (*rows, ("d", "failed", 0.0, "boot")):
        connection.execute(
            "INSERT INTO jobs VALUES "
            "(?, ?, 'ibm_x', ?, '{}', 'r', 1, 2.0, 10, ?, 'j', NULL, 5.0, 5.0, ?, 1.0, 0, NULL)",
            (tag, tag, state, used, boot),
        )
        if boot:
            connection.execute("INSERT INTO changes VALUES (?, 6.0, 'uncertain', NULL)", (tag,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    ledger = open_ledger(path)
    assert [(job.tag, job.used, job.charge) for job in ledger.jobs()] == [
        *(("a", 1.25, 1.25), ("b", None, 10.0), ("c", None, 10.0), ("d", 0.0, 0.0)),
    ]
    assert ledger.sendings("a")[0].at == 6.0
    assert ledger.spending("r") == Spending(21.25, 10.0)

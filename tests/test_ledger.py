"""The ledger: states, budgets, two processes at once, a search that asks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kill_points import HurriedClock
from ledger_cases import QUICK, Service, asks, carry

from backends.ledger.budget import BudgetError, Limits
from backends.ledger.courier import SEARCH_SECONDS, JobFailed, Undecided
from backends.ledger.job import Job
from backends.ledger.ledger import Ledger, open_ledger
from backends.ledger.states import FINAL, FOLLOWERS, check_change
from backends.ledger.transport import AnswerLost, NotSent, Progress, Refused, Unreachable


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "state" / "ledger.sqlite3", HurriedClock().clock())


def test_the_table_of_states_is_whole() -> None:
    assert set(FOLLOWERS) == {"queued", "uncertain", "submitted", "running", "done", "failed", "cancelled"}
    assert set().union(*FOLLOWERS.values()) == set(FOLLOWERS)  # each can be reached
    assert {"done", "failed", "cancelled"} == FINAL
    assert "submitted" not in FOLLOWERS["queued"]  # never without having been written down as on its way
    for before, followers in FOLLOWERS.items():
        for after in set(FOLLOWERS) - followers:
            with pytest.raises(ValueError, match=f"a job that is {before} expects"):
                check_change(before, after)


def test_a_request_is_written_before_it_is_sent(ledger: Ledger) -> None:
    seen: list[tuple[str, str]] = []

    class Watching(Service):
        def submit(self, job: Job) -> str:
            (row,) = ledger.jobs()
            seen.append((row.state, row.tag))
            return super().submit(job)

    service = Watching()
    (result,) = carry(ledger, service).deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert seen == [("uncertain", job.tag)]
    assert result == job.tag.encode() == ledger.job(job.tag[:12]).result
    assert [state for _, state, _ in ledger.history(job.tag)] == ["queued", "uncertain", "submitted", "done"]
    assert (job.used, ledger.spending("r").run) == (1.25, 1.25)


def test_an_identical_request_is_answered_unless_fresh(ledger: Ledger) -> None:
    service = Service()
    first = carry(ledger, service).deliver([asks(), asks(1), asks()], 60)
    assert first[0] == first[2] != first[1]
    assert carry(ledger, service).deliver([asks()], 0) == first[:1]  # costs nothing: needs no leave
    assert service.sent == 2
    fresh = carry(ledger, service).deliver([asks(fresh=True)], 60)
    assert fresh != first[:1]
    assert service.sent == 3


def test_a_lost_answer_is_looked_for(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")])
    carry(ledger, service).deliver([asks()], 60)
    assert (service.sent, len(service.jobs)) == (1, 1)


def test_what_cannot_be_found_is_asked_about(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")], accepts_lost=False)
    courier = carry(ledger, service)
    began = ledger.clock.steady()
    with pytest.raises(Undecided, match="--resubmit qlm-"):
        courier.deliver([asks()], 60)
    assert SEARCH_SECONDS <= ledger.clock.steady() - began < SEARCH_SECONDS + 60
    assert service.sent == 1
    (job,) = ledger.jobs()
    assert job.state == "uncertain"
    assert job.lookups > 10
    assert ledger.spending("r").run == job.cap  # counted at its dearest until it is known
    courier.resubmit(job.tag)
    assert (service.sent, courier.follow(job.tag).state) == (2, "done")


def test_a_search_keeps_no_other_job_waiting(ledger: Ledger) -> None:
    """The second's answer is lost for good: the others are fetched at once, and it is asked about in the end."""
    began = ledger.clock.steady()
    ended: list[float] = []

    class Noting(Service):
        def result(self, job: Job) -> bytes:
            ended.append(ledger.clock.steady() - began)
            return super().result(job)

    service = Noting([None, AnswerLost("dropped"), None], accepts_lost=False)
    with pytest.raises(Undecided) as caught:
        carry(ledger, service).deliver([asks(0), asks(1), asks(2)], 60)
    assert caught.value.__notes__ == ["2 of 3 results are kept in the ledger."]
    assert len(ended) == 2
    assert max(ended) < 5
    assert ledger.clock.steady() - began >= SEARCH_SECONDS


def test_without_waiting_one_looks_once(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")], accepts_lost=False)
    courier, began = carry(ledger, service), ledger.clock.steady()
    (job,) = ledger.record([asks()], 60)
    assert courier.follow(job.tag, wait=False).state == "uncertain"
    assert ledger.job(job.tag).lookups == 1
    assert courier.follow(job.tag, wait=False).lookups == 2
    service.submissions = [Unreachable("no network")]
    (other,) = ledger.record([asks(1)], 60)
    with pytest.raises(Unreachable):
        courier.follow(other.tag, wait=False)
    assert ledger.clock.steady() - began < 5  # nothing was slept through
    assert service.sent == 2


def test_consent_looks_once_more(ledger: Ledger) -> None:
    """The first one turns up after ten minutes: it is adopted, and nothing is sent again."""
    service = Service([AnswerLost("slow")], accepts_lost=False)
    courier = carry(ledger, service)
    with pytest.raises(Undecided):
        courier.deliver([asks()], 60)
    (job,) = ledger.jobs()
    service.jobs["late"] = job.tag
    assert courier.resubmit(job.tag).remote_id == "late"
    assert service.sent == 1


@pytest.mark.parametrize("problem", [Unreachable("no network"), NotSent("cannot be prepared")])
def test_what_never_left_stays_queued(ledger: Ledger, problem: Exception) -> None:
    service = Service([problem] * 9)
    with pytest.raises(type(problem)):
        carry(ledger, service).deliver([asks()], 60)
    assert service.sent == (1 if isinstance(problem, NotSent) else QUICK.repeats + 1)
    assert [job.state for job in ledger.jobs()] == ["queued"]
    service.submissions.clear()
    carry(ledger, service).deliver([asks()], 60)
    assert len(service.jobs) == 1


def test_a_refusal_is_final_and_free(ledger: Ledger) -> None:
    service = Service([Refused("HTTP 400")])
    with pytest.raises(JobFailed, match="got failed: HTTP 400"):
        carry(ledger, service).deliver([asks()], 60)
    assert ledger.spending("r").run == 0
    carry(ledger, service).deliver([asks()], 60)
    assert [job.state for job in ledger.jobs()] == ["failed", "done"]
    assert len({job.tag for job in ledger.jobs()}) == 2


def test_partial_results_are_kept(ledger: Ledger) -> None:
    service = Service([None, Refused("HTTP 400"), None])
    with pytest.raises(JobFailed) as caught:
        carry(ledger, service).deliver([asks(0), asks(1), asks(2)], 60)
    assert caught.value.__notes__ == ["2 of 3 results are kept in the ledger."]
    assert len(carry(ledger, service).deliver([asks(0), asks(1), asks(2)], 60)) == 3
    assert service.sent == 4


def test_budgets_refuse_with_the_figure(ledger: Ledger) -> None:
    service = Service()
    courier = carry(ledger, service)
    with pytest.raises(BudgetError, match=r"leave to spend QPU time, got allow_qpu_seconds=0 .* about 2\.0 QPU"):
        courier.deliver([asks()], 0)
    with pytest.raises(BudgetError, match=r"of this run expects at most 1\.5 more QPU seconds, got .* about 2\.0"):
        courier.deliver([asks()], 1.5)
    ledger.set_limits(Limits(call=3))
    with pytest.raises(BudgetError, match=r"of this call expects at most 3\.0 .* 2 jobs of about 4\.0"):
        courier.deliver([asks(1), asks(2)], 60)
    ledger.set_limits(Limits(month=3))
    courier.deliver([asks(3)], 60)
    with pytest.raises(BudgetError, match=r"of this month expects at most 1\.8 more"):
        courier.deliver([asks(4, run="another")], 60)
    courier.deliver([asks(5, run="another", paid=False)], 60)  # a fake device bills nobody
    assert service.sent == 2
    assert len(ledger.jobs()) == 2


def test_caps_never_add_up_to_more_than_is_left(ledger: Ledger) -> None:
    jobs = ledger.record([asks(n, estimate=e) for n, e in enumerate((2.0, 5.0, 0.5))], 20)
    assert sum(job.cap for job in jobs) <= 20
    assert all(job.cap >= 1 for job in jobs)
    with pytest.raises(BudgetError):
        ledger.record([asks(9, estimate=20 - sum(job.cap for job in jobs) + 0.5)], 20)


def test_two_at_once_send_once(ledger: Ledger) -> None:
    service = Service()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: carry(ledger, service).deliver([asks()], 60), range(8)))
    assert len({result[0] for result in results}) == 1
    assert (service.sent, len(ledger.jobs())) == (1, 1)


def test_cancelling(ledger: Ledger) -> None:
    service = Service(end=Progress("running"))
    courier = carry(ledger, service)
    (queued,) = ledger.record([asks(0)], 60)
    assert courier.cancel(queued.tag).state == "cancelled"
    assert service.sent == 0
    (job,) = ledger.record([asks(1)], 60)
    courier.follow(job.tag, wait=False)
    assert courier.cancel(job.tag).state == "cancelled"
    assert ledger.spending("r").run == 0
    with pytest.raises(ValueError, match="is cancelled; leave it"):
        courier.cancel(job.tag)


def test_what_waits_to_be_sent_needs_leave_again(ledger: Ledger) -> None:
    service = Service(submissions=[NotSent("no device")])
    with pytest.raises(NotSent):
        carry(ledger, service).deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert job.state == "queued"
    sent = service.sent
    with pytest.raises(BudgetError, match="got allow_qpu_seconds=0 for a request"):
        carry(ledger, service).deliver([asks()], 0)
    with pytest.raises(BudgetError, match="got a job that waits to be sent and may take 10"):
        carry(ledger, service).deliver([asks()], 5)
    ledger.set_limits(Limits(month=5.0))
    with pytest.raises(BudgetError, match=r"the budget of this month expects at most 5\.0 more"):
        carry(ledger, service).follow(job.tag)
    assert service.sent == sent
    ledger.set_limits(Limits())
    assert carry(ledger, service).follow(job.tag).state == "done"


@pytest.mark.parametrize("paid", [True, False])
def test_until_usage_is_reported_all_that_a_job_may_take_is_charged(ledger: Ledger, paid: bool) -> None:
    service = Service(end=Progress("done", None))
    carry(ledger, service).deliver([asks(paid=paid)], 60)
    (job,) = ledger.jobs()
    assert job.charge == (job.cap if paid else job.estimate)
    assert ledger.spending("r").run == job.charge

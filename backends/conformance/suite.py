"""The suite: all checks, how to run them, and the table."""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from backends.base import Backend
from backends.conformance import contract, results, statistics
from backends.conformance.judge import Failure, Measured, NotApplicable
from backends.registry import open_backend

Check = Callable[[Backend], Measured]
"""A check takes a backend and returns what it measured; it raises Failure or NotApplicable with a sentence."""

checks: tuple[Check, ...] = (*contract.CHECKS, *results.CHECKS, *statistics.CHECKS)
"""Every check, in the order of the table: the contract, the values, chance."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one check: its name and verdict, what it measured (None without a number), a sentence, seconds."""

    name: str
    verdict: Literal["pass", "fail", "skip"]
    measured: Measured | None
    sentence: str
    seconds: float


def verify(check: Check, backend: Backend) -> Measured:
    """Return what a check measured; raise ``Failure`` beyond its bound, ``NotApplicable`` where it says nothing.

    >>> verify(checks[0], open_backend("statevector")).passed
    True
    """
    measured = check(backend)
    if not measured.passed:
        raise Failure(
            f"{_title(check)} expects a deviation of at most {measured.bound:.3g} {measured.unit}".rstrip()
            + f", got {measured.deviation:.3g}."
        )
    return measured


def run(backend: str | Backend, chosen: Sequence[Check] = checks) -> Iterator[Outcome]:
    """Yield the outcome of each check as it ends; a check that crashes has failed. Works on a Backend or its string.

    A remote backend is refused with ValueError: the suite would spend its owner's money. Runs in seconds on a
    simulator, under a minute on a fake device.

    >>> [outcome.verdict for outcome in run("statevector", checks[:2])]
    ['pass', 'pass']
    """
    opened = open_backend(backend)
    if opened.capabilities.remote:
        raise ValueError(f"conformance expects a backend on this machine, got the remote '{opened.spec}'; run a fake.")
    return (_outcome(check, opened) for check in chosen)


def _outcome(check: Check, backend: Backend) -> Outcome:
    start = time.perf_counter()

    def ended(verdict: Literal["pass", "fail", "skip"], measured: Measured | None, sentence: str = "") -> Outcome:
        return Outcome(_title(check), verdict, measured, sentence, time.perf_counter() - start)

    try:
        measured = check(backend)
    except NotApplicable as reason:
        return ended("skip", None, str(reason))
    except Failure as failure:
        return ended("fail", None, str(failure))
    except Exception as error:  # noqa: BLE001 -- whatever an adapter throws is its failure, and the table goes on
        return ended("fail", None, f"{type(error).__name__}: {error}")
    return ended("pass" if measured.passed else "fail", measured)


def _title(check: Check) -> str:
    return check.__name__.replace("_", " ")


def _line(outcome: Outcome) -> str:
    text = outcome.sentence
    if outcome.measured is not None:
        found = outcome.measured
        text = f"{found.deviation:9.2e} of {found.bound:.2e} {found.unit}".rstrip()
    return f"{outcome.verdict:4}  {outcome.name:34}  {outcome.seconds:6.2f} s  {text}"


def print_outcomes(backend: str | Backend) -> int:
    """Print the table of a backend's outcomes as they end; return how many failed. ValueError as in ``run``."""
    opened = open_backend(backend)
    outcomes = run(opened)
    can = opened.capabilities
    flags = ", ".join(field.name for field in fields(can) if getattr(can, field.name) is True)
    print(f"{opened.spec}: {flags}; {can.max_wires} wires; gates {' '.join(sorted(can.gates))}")
    verdicts = []
    for outcome in outcomes:
        print(_line(outcome), flush=True)
        verdicts.append(outcome.verdict)
    failed = verdicts.count("fail")
    print(f"{verdicts.count('pass')} passed, {failed} failed, {verdicts.count('skip')} not applicable: {opened.spec}")
    return failed


def main(arguments: Sequence[str]) -> int:
    """Print the table for the backend named on the command line; return 0 if all passed, 1 if not, 2 on bad usage."""
    parser = ArgumentParser(
        prog="python -m backends.conformance", description="Prove what a backend declares, check by check."
    )
    parser.add_argument("backend", help="a backend's string, such as statevector, aer or ibm:fake_manila")
    name = parser.parse_args(arguments).backend
    try:
        return 1 if print_outcomes(name) else 0
    except (ValueError, ImportError) as error:
        parser.error(str(error))

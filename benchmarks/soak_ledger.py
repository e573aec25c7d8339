"""Kill -9 at 200 points of a request's way to a stand-in service: nothing lost, nothing sent twice without consent.

    python -m benchmarks.soak_ledger                # 200 points, a few minutes
    python -m benchmarks.soak_ledger --points 1000 --seed 1

It goes on until that many processes have died while they carried a job. Half are to kill themselves at a numbered SQL
statement or step of the request: one in ten before it is written down, the others before it is sent, on the wire,
before the answer is noted, while it is asked about, and while its result is fetched. The other half are killed from
outside, at a random time after it was written down. Of the processes that resume such a job every second one is killed
too. In one request of five to the stand-in, something goes wrong on the wire: a delay, a 429 or 5xx, a connection
dropped before or after the request was accepted. In the end the job is resumed, as a person would who consents when
asked, and the same is asked again; then the service's jobs are counted.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

_LONGEST = 0.06
"""Seconds within which most processes that have written their request down have its result."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import kill_points
    from kill_points import Point
    from standin import StandIn

    dice, verdict, start = random.Random(arguments.seed), kill_points.Verdict(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name, StandIn() as service:
        folder = Path(name)
        events = kill_points.rehearse(folder, service, 10**6)["events"]
        inside = kill_points.plan(events, arguments.points // 2)
        resuming = [point for point in inside if point.phase != "recording"]
        resuming += [Point("searching", 1 + number % events["polling"]) for number in range(len(inside) // 5)]
        service.fault = kill_points.arranged(arguments.seed)
        number = -1
        while verdict.killed < arguments.points:  # a process that was over before its time does not count
            number += 1
            point = Point(seconds=dice.uniform(0.0, _LONGEST)) if number % 2 else inside[number // 2 % len(inside)]
            again = dice.choice(resuming) if number // 2 % 2 else None
            kill_points.strike(verdict, folder, service, number, point, again)
    print(f"{verdict}; {time.perf_counter() - start:.0f} s")
    return int(bool(verdict.lost or verdict.twice or verdict.wrong))


if __name__ == "__main__":
    sys.exit(main())

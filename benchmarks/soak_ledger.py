"""Kill -9 at 200 points of a request's way to a stand-in service: nothing lost, nothing sent twice without consent.

    python -m benchmarks.soak_ledger                # 200 points, a few minutes
    python -m benchmarks.soak_ledger --points 1000 --seed 1

It goes on until that many processes have died. Half are to kill themselves at a numbered SQL statement or step of the
request, in turn; the others are killed from outside after a random time. In one request of five to the stand-in,
something goes wrong on the wire: a delay, a 5xx, a connection dropped before or after the request was accepted. After
each kill the job is resumed, as a person would who consents when asked, and the same is asked again; then the service's
jobs are counted.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import kill_points
    from standin import StandIn

    dice, verdict, start = random.Random(arguments.seed), kill_points.Verdict(), time.perf_counter()
    with tempfile.TemporaryDirectory() as name, StandIn() as service:
        folder = Path(name)
        began = time.perf_counter()
        events = kill_points.rehearse(folder, service, 10**6)["events"]
        longest = time.perf_counter() - began
        service.fault = kill_points.arranged(arguments.seed)
        number = -1
        while verdict.killed < arguments.points:  # a process that was over before its time does not count
            number += 1
            if number % 2:
                kill_points.strike(verdict, folder, service, number, kill_points.NEVER, dice.uniform(0.0, longest))
            else:
                kill_points.strike(verdict, folder, service, number, 1 + number % events)
    print(f"{verdict}; {time.perf_counter() - start:.0f} s")
    return int(bool(verdict.lost or verdict.twice or verdict.wrong))


if __name__ == "__main__":
    sys.exit(main())

"""TT-linear against dense: reconstruct or contract, and how good the counted rule is at choosing.

    python -m benchmarks.tt_linear            # ratios to the dense layer, and how often the rule picks the faster form
    python -m benchmarks.tt_linear --fit      # time every plan, and scan the one number of the rule (minutes)

All contestants of a shape are timed in one process, in interleaved rounds, after their results were compared; the
figure is the median over rounds of wall time, forward only (`infer`) or forward and backward (`train`), one thread.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tensornet.contraction import Choice, Plan, Work, choose, multiply, possible_plans, reconstruct
from tensornet.factorise import bond_ranks

SHAPES = (  # rows, columns
    ((8, 4, 4), (4, 4, 8)),
    ((16, 8), (8, 16)),
    ((8, 8, 4), (4, 8, 8)),
    ((16, 16), (16, 16)),
    ((4, 4, 4, 4), (4, 4, 4, 4)),
    ((8, 8, 8), (8, 8, 8)),
    ((16, 8, 8), (8, 8, 8)),
    ((16, 8, 8), (8, 8, 16)),
    ((32, 32), (32, 32)),
)
RANKS = (2, 4, 8, 16)
TOKENS = (1, 16, 256, 2048)
CLEAR = 1.25  # forms whose times differ by more than this factor are a clear case
FIT_NUMBERS = 2**17  # inputs of more numbers are left out of the fit, which runs up to sixteen plans of each case

Sites = tuple[tuple[int, int, int, int], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="time every plan and scan FLOPS_PER_BYTE")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.fit:
        fit(arguments.rounds)
    else:
        compare(arguments.rounds)


def compare(rounds: int) -> None:
    """Print times over the dense layer's, and the record of the rule."""
    print(
        f"{'rows x columns':34} {'rank':>4} {'tokens':>6} {'mode':5} "
        f"{'dense us':>9} {'reconstr.':>9} {'contract':>9} rule"
    )
    records: list[tuple[float, float, str]] = []
    for sites, n_tokens, training in cases():
        choice = choose(sites, n_tokens)
        if choice.contract is None:
            continue
        dense, rebuilt, contracted = time_plans(sites, n_tokens, training, rounds, both_forms(choice))
        records.append((rebuilt, contracted, choice.form))
        rows, columns = tuple(s[1] for s in sites), tuple(s[2] for s in sites)
        right = (rebuilt <= contracted) == (choice.form == "reconstruct")
        print(
            f"{f'{rows} x {columns}':34} {sites[0][3]:4} {n_tokens:6} {'train' if training else 'infer':5} "
            f"{1e6 * dense:9.0f} {rebuilt / dense:9.2f} {contracted / dense:9.2f} "
            f"{choice.form}{'' if right else '  <- slower'}",
            flush=True,
        )
    report(records)


def report(records: Sequence[tuple[float, float, str]]) -> None:
    """Print how often the rule is right, and what it and the two constant rules cost over the faster form."""
    right = [(rebuilt <= contracted) == (form == "reconstruct") for rebuilt, contracted, form in records]
    clear = [max(a, b) > CLEAR * min(a, b) for a, b, _ in records]
    print(f"rule picks the faster form: {sum(right)} of {len(right)}; ", end="")
    print(f"of clear cases (over {CLEAR}x): {sum(itertools.compress(right, clear))} of {sum(clear)}")
    picked = [(a if form == "reconstruct" else b) / min(a, b) for a, b, form in records]
    for name, ratios in (
        ("the rule", picked),
        ("always reconstruct", [a / min(a, b) for a, b, _ in records]),
        ("always contract", [b / min(a, b) for a, b, _ in records]),
    ):
        print(f"time over the faster form, {name}: mean {geometric_mean(ratios):.3f}, worst {max(ratios):.2f}")


def fit(rounds: int) -> None:
    """Time all plans of all shapes; print, for each price of a byte, the cost of the rule's picks over the fastest."""
    timed: list[list[tuple[Work, float]]] = []
    for sites, n_tokens, training in cases():
        if n_tokens * math.prod(site[2] for site in sites) > FIT_NUMBERS:
            continue
        plans = affordable(possible_plans(sites, n_tokens))
        times = time_plans(sites, n_tokens, training, rounds, plans)[1:]
        timed.append([(plan.work, seconds) for plan, seconds in zip(plans, times, strict=True)])
    print(f"{sum(map(len, timed))} timings of {len(timed)} cases; time of the pick over that of the fastest plan:")
    for price in (0, 2, 4, 8, 12, 16, 20, 30, 60, 120):
        ratios = []
        for group in timed:
            pick = min(group, key=lambda timing: timing[0].flops + price * timing[0].bytes)
            ratios.append(pick[1] / min(seconds for _, seconds in group))
        worst = sorted(ratios)[int(0.95 * len(ratios))]
        print(f"flops per byte {price:4}: mean {geometric_mean(ratios):.3f}, 95th percentile {worst:.2f}")


def cases() -> Iterator[tuple[Sites, int, bool]]:
    """Core shapes, number of tokens, and whether gradients are taken."""
    for (rows, columns), rank, n_tokens, training in itertools.product(SHAPES, RANKS, TOKENS, (False, True)):
        bonds = bond_ranks([m * n for m, n in zip(rows, columns, strict=True)], rank)
        yield tuple(zip(bonds[:-1], rows, columns, bonds[1:], strict=True)), n_tokens, training


def both_forms(choice: Choice) -> list[Plan]:
    assert choice.contract is not None
    return [choice.reconstruct, choice.contract]


def affordable(plans: Sequence[Plan]) -> list[Plan]:
    """Without the plans that count over four times the fewest flops: nobody would pick them, and they take hours."""
    fewest = min(plan.work.flops for plan in plans)
    return [plan for plan in plans if plan.work.flops <= 4 * fewest + 1e7]


def time_plans(sites: Sites, n_tokens: int, training: bool, rounds: int, plans: Sequence[Plan]) -> list[float]:
    """Median seconds of the dense product and of each plan; raises where a plan's result is not the dense one."""
    cores = [torch.randn(site, requires_grad=training) for site in sites]
    x = torch.randn(n_tokens, math.prod(site[2] for site in sites), requires_grad=training)
    weight = reconstruct(cores).detach().requires_grad_(training)
    expected = F.linear(x, weight).detach()
    scale = expected.abs().max()

    def dense() -> Tensor:
        return F.linear(x, weight)

    def planned(plan: Plan) -> Callable[[], Tensor]:
        return lambda: multiply(x, cores, plan)

    contestants = [(dense, [x, weight]), *((planned(plan), [x, *cores]) for plan in plans)]
    for run, _ in contestants:
        assert torch.allclose(run() / scale, expected / scale, rtol=0, atol=1e-5)
    seconds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for (run, leaves), record in zip(contestants, seconds, strict=True):
            start = time.perf_counter()
            if training:
                y = run()
                torch.autograd.grad(y, leaves, torch.ones_like(y))
            else:
                with torch.no_grad():
                    run()
            record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in seconds]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


if __name__ == "__main__":
    main()

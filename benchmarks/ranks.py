"""Tokens at their own ranks: counted and measured flops, and time, against full rank and against a dense layer.

    python -m benchmarks.ranks                # sizes below, on one thread

Grouped ranks are compared with the mask on the bonds first (1e-6 in float32). Then all contestants of a size take turns
in one process, round after round; times are medians over rounds of one forward call of the feed-forward pair (up, gelu,
down), ratios are medians of ratios within a round. "flops": by torch's counter, checked against the layer's own count.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from qlm.blocks.base import Context
from qlm.blocks.tt_feed_forward import TTFeedForward, TTFeedForwardConfig

SIZES = (  # d_model, ranks, tokens
    (128, (4, 8, 12, 16), 2048),
    (128, (1, 2, 3, 4), 2048),
    (512, (2, 4, 8, 16), 512),
    (1024, (1, 2, 4, 8), 256),
    (1024, (1, 2, 4, 8), 2048),
)
ROUNDS = 7


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'d_model':>7} {'ranks':>15} {'tokens':>6} {'mean rank':>9}   flops: dense full scheduled   ms: the same")
    for d_model, ranks, n_tokens in SIZES:
        compare(d_model, ranks, n_tokens)


def compare(d_model: int, ranks: Sequence[int], n_tokens: int) -> None:
    """Print one size: hardness uniform on [0, 1]; and with all tokens easy, the most that a schedule can save."""
    block = TTFeedForward(d_model, TTFeedForwardConfig(ranks=tuple(ranks))).eval()
    dense = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))
    hidden = torch.randn(1, n_tokens, d_model)
    hardness = torch.rand(1, n_tokens)
    check(block, hidden, hardness)
    for name, hard in (("uniform", hardness), ("easy", torch.zeros(1, n_tokens))):
        calls: list[Callable[[], object]] = [
            lambda: hidden + dense(block.norm(hidden)),
            lambda: block(hidden, Context()),
            lambda hard=hard: block(hidden, Context(hardness=hard)),
        ]
        flops = [measured_flops(call) for call in calls]
        report = block.report
        assert report is not None
        assert (flops[1], flops[2]) == (report.full_flops, report.flops)
        times = take_turns(calls)
        print(
            f"{d_model:7} {ranks!s:>15} {n_tokens:6} {report.mean_rank:9.2f}   "
            f"{'  '.join(f'{count / 1e6:8.1f}M' for count in flops)}   "
            f"{'  '.join(f'{1e3 * statistics.median(column):7.2f}' for column in times)}   "
            f"scheduled/full {ratio(times[2], times[1]):.2f}, scheduled/dense {ratio(times[2], times[0]):.2f} ({name})",
            flush=True,
        )


@torch.no_grad()
def check(block: TTFeedForward, hidden: Tensor, hardness: Tensor) -> None:
    """Assert that grouped tokens equal masked bonds to 1e-6 of the largest entry."""
    table = torch.tensor(block.config.ranks)
    ranks = table[((len(table) - 1) * hardness).round().long()]
    inner = functional.gelu(block.up.forward_masked(block.norm(hidden), ranks))
    masked = block.down.forward_masked(inner, ranks)
    grouped = block(hidden, Context(hardness=hardness)).hidden - hidden
    error = float((masked - grouped).abs().max() / masked.abs().max().clamp(min=1.0))
    if error > 1e-6:
        raise AssertionError(f"grouped and masked ranks differ by {error:.1e}")


def measured_flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


@torch.no_grad()
def take_turns(calls: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Seconds of each call in each round."""
    for call in calls:
        call()
    rounds = [[seconds(call) for call in calls] for _ in range(ROUNDS)]
    return [list(column) for column in zip(*rounds, strict=True)]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(mine: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


if __name__ == "__main__":
    main()

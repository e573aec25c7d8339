"""The fused selective scan, its matrix form and the short convolution, against their alternatives.

    python -m benchmarks.selective_scan --rounds 5

float32, one thread, forward and backward unless said otherwise; candidates take turns, and what counts is the process's
own time on the core. The floor of the fused scan is one exponential for each element of the state, as compiled here,
in the cache. Alternatives: the same with `scan` on states in memory, mambapy's `pscan` the same way (where installed),
and `torch.nn.functional.conv1d` for the convolution. "ssd" is the matrix form where one decay a head serves both, P
channels a head and N states: `classical_kernels.prefers_ssd` is read off these rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.scan import Step, measure, named, pscan, ratio, write
from benchmarks.statevector.timing import Figure
from classical_kernels import causal_convolution, prefers_ssd, scan, selective_scan, ssd
from classical_kernels.exponential import exp

OUT = Path(__file__).resolve().parent / "results" / "selective_scan.json"
SHAPE = (1, 1024, 768, 16)  # batch, sequence, channels, states
HEADS = (  # L, P, N
    (4, 64, 16), (16, 64, 16), (64, 16, 16), (64, 32, 16), (64, 64, 16), (64, 32, 32), (64, 8, 128), (64, 16, 64),
    (1024, 16, 16), (1024, 32, 32), (1024, 64, 64),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the candidates take turns")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = [*fused(arguments.rounds), *against_states_in_memory(arguments.rounds)]
    for length, width, states in HEADS:
        figures.append(forms(length, width, states, arguments.rounds))
    write(arguments.out, [*figures, *convolutions(arguments.rounds)])


def fused(rounds: int) -> list[Figure]:
    """Forward alone, and with the gradient, over one exponential an element."""
    operands = draw(*SHAPE)
    x = np.linspace(-20, 0, 4096, dtype=np.float32)
    out, repeats = np.empty_like(x), int(np.prod(SHAPE)) // 4096
    with torch.no_grad():
        steps: dict[str, Step] = {
            "forward": lambda: forward_alone(operands),
            "both": train(selective_scan, operands),
            "zoh": train(lambda *o: selective_scan(*o, discretization="zoh"), operands),
            "exponentials": lambda: _exponentials(x, out, repeats),
        }
    times, size = measure(steps, rounds), named(SHAPE)
    return [
        ratio("fused, forward", size, times, "forward", "exponentials"),
        ratio("fused, forward and backward", size, times, "both", "exponentials"),
        ratio("zero-order hold, both", size, times, "zoh", "exponentials"),
    ]


def against_states_in_memory(rounds: int) -> list[Figure]:
    """What models do without a fused kernel: all states in memory, by our scan and by mambapy's."""
    shape = (1, 1024, 256, 16)
    operands = draw(*shape)
    parallel = pscan()

    def ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
        a, b = torch.exp(delta.unsqueeze(-1) * A), (delta * u).unsqueeze(-1) * B.unsqueeze(2)
        return (torch.einsum("bldn,bln->bld", scan(a, b)[0], C),)

    def theirs(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
        from mambapy.pscan import pscan as peer  # pyright: ignore[reportMissingImports] (no dependency of ours)

        a, b = torch.exp(delta.unsqueeze(-1) * A), (delta * u).unsqueeze(-1) * B.unsqueeze(2)
        return (torch.einsum("bldn,bln->bld", peer(a, b), C),)

    figures = []
    for name, peer in (("scan in memory", ours), ("mambapy pscan", parallel if isinstance(parallel, str) else theirs)):
        if isinstance(peer, str):
            figures.append(Figure("fused", named(shape), name, None, note=peer))
            continue
        figures.append(versus("fused", named(shape), selective_scan, name, peer, operands, rounds))
    return figures


def forms(length: int, width: int, states: int, rounds: int) -> Figure:
    """The matrix form over the fused scan, on 1024 channels in heads of `width`."""
    heads = 1024 // width
    delta = torch.rand(1, length, heads)
    x, B, C = torch.randn(1, length, heads, width), *(torch.randn(1, length, states) for _ in range(2))
    A = -torch.rand(heads)

    def matrix(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
        return (ssd(x * delta.unsqueeze(-1), delta * A, B.unsqueeze(2), C.unsqueeze(2))[0],)

    def recurrent(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
        wide = delta.repeat_interleave(width, 2)
        states_A = A.repeat_interleave(width).unsqueeze(1).expand(-1, states)
        return (selective_scan(x.flatten(2), wide, states_A, B, C)[0].unflatten(2, (heads, width)),)

    size = f"L {length}, P {width}, N {states}"
    made = versus("ssd", size, matrix, "fused", recurrent, (x, delta, A, B, C), rounds)
    chosen = "ssd" if prefers_ssd(length, width, states) else "fused"
    print(f"    the rule says {chosen}")
    return made


def convolutions(rounds: int) -> list[Figure]:
    """Four taps on 1024 channels, beside PyTorch's own on the same layout."""
    operands = (torch.randn(1, 2048, 1024), torch.randn(1024, 4), torch.randn(1024))

    def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        padded = functional.pad(x.mT, (3, 0))
        return (functional.conv1d(padded, weight.unsqueeze(1), bias, groups=weight.shape[0]).mT,)

    return [versus("convolution", "1 x 2048 x 1024", causal_convolution, "conv1d", theirs, operands, rounds)]


def versus(
    figure: str, size: str, ours: Callable[..., Any], name: str, theirs: Callable[..., Any],
    operands: tuple[Tensor, ...], rounds: int,
) -> Figure:  # fmt: skip
    """The time of another way over ours, after their gradients were compared."""
    mine, other = train(ours, operands), train(theirs, operands)
    for left, right in zip(mine(), other(), strict=True):
        assert (left - right).norm() <= 1e-3 * right.norm()
    return ratio(figure, size, measure({figure: mine, name: other}, rounds), name, figure)


def draw(batch: int, length: int, channels: int, states: int) -> tuple[Tensor, ...]:
    """u, delta, A, B, C."""
    wide, narrow = (batch, length, channels), (batch, length, states)
    u, delta, A = torch.randn(wide), torch.rand(wide) / 10, -torch.rand(channels, states) * states
    return u, delta, A, torch.randn(narrow), torch.randn(narrow)


def forward_alone(operands: tuple[Tensor, ...]) -> Tensor:
    u, delta, A, B, C = operands
    with torch.no_grad():
        return selective_scan(u, delta, A, B, C)[0]


def train(function: Callable[..., Any], operands: tuple[Tensor, ...]) -> Step:
    """A call that runs `function` forward and backward and returns the gradients."""
    leaves = [operand.clone().requires_grad_() for operand in operands]

    def step() -> tuple[Tensor, ...]:
        with torch.enable_grad():
            y = function(*leaves)[0]
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    return step


@numba.njit(nogil=True)
def _exponentials(x, out, repeats):
    for _ in range(repeats):
        for i in range(x.size):
            out[i] = exp(x[i])


if __name__ == "__main__":
    main()

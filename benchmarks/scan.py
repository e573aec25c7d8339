"""The linear recurrence against the time to copy the bytes it must touch, and against a Python loop.

    python -m benchmarks.scan

One thread, float32. Floors: a copy that reads and writes as many bytes as the scan must: 12 an element forward (a, b,
h), 20 more backward (a, h, grad_h, grad_a, grad_b). The candidates of a shape take turns, round after round, and each
ratio is the median over the rounds of the ratio within a round, so that a neighbour's load falls on both sides. The
kernels write to memory they have written before; the operator, like the loop, gets fresh memory at every call, which
costs more than the scan once an output reaches 32 MiB (glibc then maps it anew each time): "fresh outputs alone" shows
how much. `THP_MEM_ALLOC_ENABLE=1`, a setting of PyTorch, asks for huge pages and takes most of that away.
Goal: kernel forward within 1.5 of its floor. A copy of this size writes past the cache, which compiled loops do not:
they read each line before they write it, so that 16 / 12 forward and 28 / 20 backward is the least to expect.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from classical_kernels import scan, scan_reference
from classical_kernels.linear_scan.kernels import backward_blocks, forward_blocks

SHAPES = ((4, 4096, 512), (1, 16384, 1024))  # batch, sequence, channels
ROUNDS = 9
LOOP_ROUNDS = 3


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for shape in SHAPES:
        measure(shape)


def measure(shape: tuple[int, int, int]) -> None:
    """Assert, time and print everything for one shape."""
    a, b, h0 = torch.rand(shape), torch.randn(shape), torch.randn(shape[0], shape[2])
    grad_h = torch.randn(shape)
    check(a, b, h0, grad_h)
    forward, backward = kernels(a, b, h0, grad_h)
    forward_floor, backward_floor = copy(12 * a.numel()), copy(20 * a.numel())
    both_floor = copy(32 * a.numel())
    print(f"{shape[0]} x {shape[1]} x {shape[2]}, float32, one thread, {torch.__version__}")
    report("kernel forward / copy", compare(forward, forward_floor, ROUNDS))
    report("kernel backward / copy", compare(backward, backward_floor, ROUNDS))
    report("operator forward+backward / copy", compare(train(scan, a, b, h0, grad_h), both_floor, ROUNDS))
    report("fresh outputs alone / copy", compare(fill(shape), both_floor, ROUNDS))
    report("loop forward+backward / copy", compare(train(scan_reference, a, b, h0, grad_h), both_floor, LOOP_ROUNDS))


def check(a: Tensor, b: Tensor, h0: Tensor, grad_h: Tensor) -> None:
    """Assert that the operator equals the loop bit for bit, with its gradients."""
    for ours, theirs in zip(scan(a, b, h0), scan_reference(a, b, h0), strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = train(scan, a, b, h0, grad_h)(), train(scan_reference, a, b, h0, grad_h)()
    assert all(map(torch.equal, ours, theirs))


def kernels(a: Tensor, b: Tensor, h0: Tensor, grad_h: Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two compiled kernels on memory that is there already; their results are those of the operator."""
    batch, seq_len, n_channels = a.shape
    h, grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(a), torch.zeros_like(a)
    h_last, grad_last, grad_h0 = (torch.zeros_like(h0) for _ in range(3))
    marks = torch.empty(0, dtype=torch.uint8)
    sizes = (seq_len, n_channels, False, n_channels, 0, batch)
    ahead = [*(t.view(-1).numpy() for t in (a, b, h0, marks, h, h_last)), *sizes]
    back = [*(t.view(-1).numpy() for t in (a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0)), *sizes]

    def forward() -> None:
        forward_blocks(*ahead)

    def backward() -> None:
        backward_blocks(*back)

    forward()
    backward()
    assert torch.equal(h, scan(a, b, h0)[0])
    assert all(map(torch.equal, (grad_a, grad_b, grad_h0), train(scan, a, b, h0, grad_h)()))
    return forward, backward


def train(function: Callable[..., tuple[Tensor, Tensor]], a: Tensor, b: Tensor, h0: Tensor, grad_h: Tensor):
    """A call that runs `function` forward and backward and returns the gradients for a, b, h0."""
    leaves = [operand.clone().requires_grad_() for operand in (a, b, h0)]
    return lambda: torch.autograd.grad(function(*leaves)[0], leaves, grad_h)


def copy(n_bytes: int) -> Callable[[], object]:
    """A call that reads and writes `n_bytes` in all."""
    source = np.ones(n_bytes // 8, dtype=np.float32)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def fill(shape: tuple[int, int, int]) -> Callable[[], object]:
    """A call that does nothing but allocate and write what the operator returns: h, grad_a, grad_b."""
    return lambda: [torch.ones(shape) for _ in range(3)]


def compare(ours: Callable[[], object], floor: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median ratio, and median seconds of both, over rounds in which the two take turns."""
    ours()
    floor()
    times = [(seconds(ours), seconds(floor)) for _ in range(rounds)]
    return (
        statistics.median(mine / least for mine, least in times),
        statistics.median(mine for mine, _ in times),
        statistics.median(least for _, least in times),
    )


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report(name: str, result: tuple[float, float, float]) -> None:
    ratio, ours, floor = result
    print(f"  {name:34} {ratio:7.2f}   ({ours * 1e3:8.1f} ms / {floor * 1e3:6.1f} ms)", flush=True)


if __name__ == "__main__":
    main()

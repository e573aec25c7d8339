"""The linear recurrence against the time to copy the bytes it must touch, and against its peers.

    python -m benchmarks.scan --rounds 9
    python -m benchmarks.scan --out scan.json

float32, one thread but where two are compared with one. Floor: a copy that reads and writes as many bytes as the scan
must, 12 an element forward (a, b, h) and 20 more backward (a, h, grad_h, grad_a, grad_b). Candidates take turns, and
what counts is the process's own time on the core, so that other work on the machine matters little. (Two threads: the
slower one's own time, which is the time that passes where both cores are free, beside the time that did pass.) Kernels
write to memory they have written before; operators, like the peers, get fresh memory at every call. Peers: a Python
loop, `torch._higher_order_ops.associative_scan` compiled, mambapy's `pscan` and accelerated-scan's reference (`pip
install --no-deps mambapy accelerated-scan`); one that is missing or fails is named with its reason.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.statevector.timing import Figure, interleaved
from classical_kernels import scan, scan_reference
from classical_kernels.linear_scan.kernels import backward_blocks, forward_blocks
from classical_kernels.memory import flat_array, fresh
from classical_kernels.threads import run_blocks

SHAPES = ((4, 4096, 512), (1, 16384, 1024))  # batch, sequence, channels
OUT = Path(__file__).resolve().parent / "results" / "scan.json"
Step = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which the candidates take turns")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for shape in SHAPES:
        figures += against_copies(shape, arguments.rounds)
    figures += against_peers(SHAPES[0], arguments.rounds)
    figures += variants(arguments.rounds)
    write(arguments.out, figures)


def against_copies(shape: tuple[int, int, int], rounds: int) -> list[Figure]:
    """Kernels and operator over the floor, after their results were compared with the loop's."""
    operands, grad_h = draw(shape)
    check(operands, grad_h)
    forward, backward = kernels(operands, grad_h)
    n = grad_h.numel()
    steps = {
        "forward": forward, "backward": backward, "operator": train(scan, operands, grad_h),
        "outputs": lambda: [torch.ones(shape) for _ in range(3)],
        "copy 12": copy(12 * n), "copy 20": copy(20 * n), "copy 32": copy(32 * n),
    }  # fmt: skip
    size, times = named(shape), measure(steps, rounds)
    return [
        ratio("kernel, forward", size, times, "forward", "copy 12", goal=1.2),
        ratio("kernel, backward", size, times, "backward", "copy 20"),
        ratio("operator, forward and backward", size, times, "operator", "copy 32", goal=3.0),
        ratio("writing three fresh tensors", size, times, "outputs", "copy 32"),
    ]


def against_peers(shape: tuple[int, int, int], rounds: int) -> list[Figure]:
    """Forward and backward of each peer over ours."""
    operands, grad_h = draw(shape)
    ours = train(scan, operands, grad_h)
    size, figures = named(shape), []
    peers = {
        "loop": scan_reference, "associative_scan": associative(), "mambapy pscan": pscan(),
        "accelerated-scan, reference": tree(),
    }  # fmt: skip
    for name, peer in peers.items():
        if isinstance(peer, str):
            figures.append(Figure("peer", size, name, None, 4.0, note=peer))
            continue
        theirs = train(peer, operands, grad_h)
        for mine, other in zip(ours()[:2], theirs()[:2], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)
        times = measure({"ours": ours, name: theirs}, min(rounds, 5))
        figures.append(ratio("peer", size, times, name, "ours", goal=4.0, at_most=False))
    return figures


def variants(rounds: int) -> list[Figure]:
    """Complex and bfloat16 against float32, two threads against one."""
    shape = (2, 4096, 512)
    real, complex_, low = (draw(shape, dtype) for dtype in (torch.float32, torch.complex64, torch.bfloat16))
    steps = {}
    for name, (operands, grad_h) in {"real": real, "complex": complex_, "bfloat16": low}.items():
        forward, backward = kernels(operands, grad_h)
        steps[name] = lambda forward=forward, backward=backward: (forward(), backward())
    times = measure(steps, rounds)
    steps, slowest = threaded(draw((2, 4096, 1024)))
    wall, own = measure(steps, rounds, time.perf_counter), measure(steps, rounds, slowest)
    return [
        ratio("complex64 / float32", named(shape), times, "complex", "real", goal=2.2),
        ratio("bfloat16 / float32", named(shape), times, "bfloat16", "real"),
        ratio("two threads, slowest's own time", named((2, 4096, 1024)), own, "one", "two", goal=1.7, at_most=False),
        ratio("two threads, time passed", named((2, 4096, 1024)), wall, "one", "two", goal=1.7, at_most=False),
    ]


def threaded(drawn: tuple[tuple[Tensor, Tensor, Tensor], Tensor]) -> tuple[dict[str, Step], Callable[[], float]]:
    """The kernels, forward and backward, on one and on two threads, and a clock of the slowest thread's own time."""
    operands, grad_h = drawn
    batch, seq_len, n_channels = grad_h.shape
    ahead, back = arrays(operands, grad_h)
    sizes = (seq_len, n_channels, False, n_channels)
    passed = [0.0]

    def timed(kernel: Callable[..., None], operands: list[Any], n_threads: int) -> None:
        found: list[float] = []

        def task(first: int, last: int) -> None:
            started = time.thread_time()
            kernel(*operands, *sizes, first, last)
            found.append(time.thread_time() - started)

        run_blocks(task, batch, n_threads)
        passed[0] += max(found)

    def step(n_threads: int) -> None:
        timed(forward_blocks, ahead, n_threads)
        timed(backward_blocks, back, n_threads)

    return {"one": lambda: step(1), "two": lambda: step(2)}, lambda: passed[0]


def draw(
    shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """a, b, h0, and the gradient for h."""
    base = dtype if dtype.is_complex else torch.float32
    state = dtype if dtype.is_complex else torch.float32
    a, b, grad_h = (torch.randn(shape, dtype=base) for _ in range(3))
    return ((a / (1 + a.abs())).to(dtype), b.to(dtype), torch.randn(shape[0], shape[2], dtype=state)), grad_h.to(dtype)


def check(operands: tuple[Tensor, Tensor, Tensor], grad_h: Tensor) -> None:
    """Assert that the operator equals the loop bit for bit, with its gradients, on the first 256 steps."""
    a, b, h0 = operands
    part = (a[:, :256], b[:, :256], h0)
    assert all(map(torch.equal, scan(*part), scan_reference(*part)))
    ours, theirs = (train(function, part, grad_h[:, :256])() for function in (scan, scan_reference))
    assert all(map(torch.equal, ours, theirs))


def arrays(operands: tuple[Tensor, Tensor, Tensor], grad_h: Tensor) -> tuple[list[Any], list[Any]]:
    """What the two kernels take, with results in memory that is there already."""
    a, b, h0 = operands
    h, grad_a, grad_b = (fresh(a.shape, a.dtype).zero_() for _ in range(3))
    h_last, grad_last, grad_h0 = (torch.zeros_like(h0) for _ in range(3))
    marks = torch.zeros(0, dtype=torch.uint8)
    ahead = [flat_array(one) for one in (a, b, h0, marks, h, h_last)]
    return ahead, [flat_array(one) for one in (a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0)]


def kernels(operands: tuple[Tensor, Tensor, Tensor], grad_h: Tensor) -> tuple[Step, Step]:
    """The two compiled kernels on one thread."""
    batch, seq_len, n_channels = grad_h.shape
    ahead, back = arrays(operands, grad_h)
    sizes = (seq_len, n_channels, False, n_channels, 0, batch)
    return lambda: forward_blocks(*ahead, *sizes), lambda: backward_blocks(*back, *sizes)


def train(function: Callable[..., Any], operands: tuple[Tensor, Tensor, Tensor], grad_h: Tensor) -> Step:
    """A call that runs `function` forward and backward and returns the gradients for a, b, h0."""
    leaves = [operand.clone().requires_grad_() for operand in operands]
    return lambda: torch.autograd.grad(function(*leaves)[0], leaves, grad_h, materialize_grads=True)


def associative() -> Callable[..., tuple[Tensor, ...]] | str:
    """PyTorch's own scan, compiled for the CPU, which takes no initial state: that enters with the first step."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] * y[0], x[1] * y[0] + y[1]

    @torch.compile(dynamic=False)
    def run(a: Tensor, b: Tensor, h0: Tensor) -> tuple[Tensor]:
        b = torch.cat((b[:, :1] + a[:, :1] * h0.unsqueeze(1), b[:, 1:]), 1)
        return (associative_scan(combine, (a, b), dim=1, combine_mode="generic")[1],)

    (a, b, h0), grad_h = draw((1, 8, 4))
    try:
        train(run, (a, b, h0), grad_h)()
    except Exception as failure:  # noqa: BLE001 (whatever a peer fails with is its figure)
        return f"{type(failure).__name__}: {str(failure).splitlines()[0]}"
    return run


def pscan() -> Callable[..., tuple[Tensor, ...]] | str:
    """mambapy's parallel scan, on (batch, seq, channels, 1)."""
    try:
        from mambapy.pscan import pscan as peer  # pyright: ignore[reportMissingImports] (no dependency of ours)
    except ImportError as missing:
        return str(missing)

    def run(a: Tensor, b: Tensor, h0: Tensor) -> tuple[Tensor]:
        b = torch.cat((b[:, :1] + a[:, :1] * h0.unsqueeze(1), b[:, 1:]), 1)
        return (peer(a.unsqueeze(-1), b.unsqueeze(-1)).squeeze(-1),)

    return run


def tree() -> Callable[..., tuple[Tensor, ...]] | str:
    """accelerated-scan's reference in PyTorch, on (batch, channels, seq)."""
    try:
        from accelerated_scan.ref import scan as peer  # pyright: ignore[reportMissingImports] (no dependency of ours)
    except ImportError as missing:
        return str(missing)

    def run(a: Tensor, b: Tensor, h0: Tensor) -> tuple[Tensor]:
        b = torch.cat((b[:, :1] + a[:, :1] * h0.unsqueeze(1), b[:, 1:]), 1)
        return (peer(a.mT.contiguous(), b.mT.contiguous()).mT,)

    return run


def copy(n_bytes: int) -> Step:
    """A call that reads and writes `n_bytes` in all."""
    source = np.ones(n_bytes // 8, dtype=np.float32)
    target = np.zeros_like(source)
    return lambda: np.copyto(target, source)


def measure(steps: Mapping[str, Step], rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, Any]:
    """Seconds of each step in each round."""
    for step in steps.values():
        step()  # compiles what has to be compiled
    return interleaved(steps, rounds, clock)[1]


def ratio(
    figure: str, size: str, times: Mapping[str, list[float]], upper: str, lower: str, goal: float | None = None,
    at_most: bool = True,
) -> Figure:  # fmt: skip
    """The median over the rounds of a ratio within a round, printed."""
    found = float(np.median(np.array(times[upper]) / np.array(times[lower])))
    told = {name: 1e3 * float(np.median(times[name])) for name in (upper, lower)}
    made = Figure(figure, size, f"{upper} / {lower}", found, goal, at_most, told, len(times[upper]))
    print(made.line(), flush=True)
    return made


def named(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def write(out: Path, figures: list[Figure]) -> None:
    """The figures and the machine they hold for, as JSON."""
    machine = {"platform": platform.platform(), "processor": platform.machine(), "torch": torch.__version__}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"machine": machine, "figures": [figure.record() for figure in figures]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()

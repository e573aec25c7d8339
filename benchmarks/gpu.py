"""The Triton kernels on a GPU: right first, then as a share of the bandwidth of the card's own copy.

    python -m benchmarks.gpu --rounds 9
    python -m benchmarks.gpu --out gpu.json

Every operator is compared, with all its gradients, with the loops in double precision on the CPU, at odd lengths and in
every dtype; one that is wrong ends the run. Then each kernel takes turns with `copy_` of as many bytes as it must move
at the least (`classical_kernels.costs`), timed by CUDA events, launches included; what counts is the median over the
rounds of the ratio within a round. Both variants of the linear scan are timed at every shape: the rule that picks one,
`classical_kernels.linear_scan.cuda.plan`, is reasoned and wants these figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from unittest.mock import Mock, patch

import torch
from torch import Tensor
from torch.nn import functional

from classical_kernels import (
    causal_convolution,
    causal_convolution_reference,
    scan,
    scan_reference,
    selective_scan,
    selective_scan_reference,
)
from classical_kernels.convolution import cuda as convolution
from classical_kernels.costs import causal_convolution_cost, scan_cost, selective_scan_cost
from classical_kernels.launch import Launch
from classical_kernels.linear_scan import cuda as linear
from classical_kernels.selective import cuda as selective

OUT = Path(__file__).resolve().parent / "results" / "gpu.json"
LENGTHS, WIDTHS = (1, 5, 67, 1025), (37, 64)  # 64 channels are read 128 bits at a time
SHAPES = ((4, 4096, 512), (1, 16384, 1024), (16, 4096, 4096))  # batch, sequence, channels
SELECTIVE = (4, 4096, 1536, 16)
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
_REPEATS = 10
Function = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A launch, and the bytes that it must move at the least."""

    name: str
    launch: Launch
    bytes: int


@dataclass(frozen=True)
class Figure:
    """Median milliseconds of a kernel and of a copy of as many bytes, and how many times the copy the kernel takes."""

    name: str
    milliseconds: float
    copy: float
    ratio: float
    gigabytes_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which kernel and copy take turns")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            f"expected a CUDA device, got none with torch {torch.__version__}: "
            "run this where there is an NVIDIA GPU, with a CUDA build of torch and the extra 'triton'."
        )
    device = torch.device("cuda")
    print(f"{verify(device, LENGTHS, WIDTHS)} comparisons with the loops: equal to rounding.", flush=True)
    figures = []
    for case in cases(device):
        figures.append(measure(case, arguments.rounds))
        print("{name:52}{milliseconds:9.3f} ms{ratio:7.2f} x copy{gigabytes_per_second:8.0f} GB/s".format(
            **asdict(figures[-1])), flush=True)  # fmt: skip
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "platform": platform.platform()}
    found = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def verify(device: torch.device, lengths: Sequence[int], widths: Sequence[int]) -> int:
    """Compare operators and gradients on `device` with the loops, at all lengths and numbers of channels; count them.

    Raises AssertionError at the first that differ by more than rounding.
    """
    torch.manual_seed(0)
    count = 0
    for length, width in product(lengths, widths):
        for ours, oracle, operands, options in _questions(length, width):
            dtype = next(iter(operands.values())).dtype
            for how in _plans(dtype) if ours is scan else (None,):
                with patch.object(linear, "plan", Mock(return_value=how)):
                    _compare(ours, oracle, operands, options, device)
                count += 1
    return count


def _plans(dtype: torch.dtype) -> tuple[linear.Plan, linear.Plan]:
    """Both variants of the linear scan, each from a shape for which the rule picks it."""
    return linear.plan((1, 1, 1), dtype), linear.plan((1, 1024, 1), dtype)


def _questions(length: int, width: int) -> Iterator[tuple[Function, Function, dict[str, Tensor], dict[str, object]]]:
    resets, mask = torch.rand(2, length) < 0.1, torch.rand(2, length) < 0.9
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex128, torch.complex64):
        state = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
        a, b = torch.randn(2, length, width, dtype=state), torch.randn(2, length, width, dtype=state)
        operands = {"a": (a / (1 + a.abs())).to(dtype), "b": b.to(dtype), "h0": torch.randn(2, width, dtype=state)}
        yield scan, scan_reference, operands, {}
        yield scan, scan_reference, operands, {"reverse": True, "resets": resets, "mask": mask}
    for dtype in (torch.float64, torch.float32):
        x = torch.randn(2, length, width, dtype=dtype)
        for n_states in (1, 16, 20):
            rows = {name: torch.randn(2, length, n_states, dtype=dtype) for name in ("B", "C")}
            rates = {"delta": functional.softplus(torch.randn_like(x)), "A": -torch.rand(width, n_states, dtype=dtype)}
            rest = {"D": torch.randn(width, dtype=dtype), "z": torch.randn_like(x)}
            operands = {"u": x, **rates, **rows, **rest, "h0": torch.randn(2, width, n_states, dtype=dtype)}
            yield selective_scan, selective_scan_reference, operands, {}
            options: dict[str, object] = {"discretization": "zoh", "resets": resets, "mask": mask}
            yield selective_scan, selective_scan_reference, operands, options
        filters = {"weight": torch.randn(width, 4, dtype=dtype), "bias": torch.randn(width, dtype=dtype)}
        operands = {"x": x, **filters, "state": torch.randn(2, 3, width, dtype=dtype)}
        yield causal_convolution, causal_convolution_reference, operands, {"resets": resets}


def _compare(
    ours: Function,
    oracle: Function,
    operands: Mapping[str, Tensor],
    options: Mapping[str, object],
    device: torch.device,
) -> None:
    dtype = next(iter(operands.values())).dtype
    tolerance = _TOLERANCE[dtype.to_real() if dtype.is_complex else dtype]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    moved = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in options.items()}
    got = _results(ours, {name: one.to(device) for name, one in operands.items()}, moved)
    expected = _results(oracle, {name: one.to(wide) for name, one in operands.items()}, options)
    for index, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        error = (mine.cpu().to(wide) - theirs).abs().max().item() / (1 + theirs.abs().max().item())
        if not error <= tolerance:
            raise AssertionError(
                f"{ours.__name__}, {dtype}, {tuple(operands[next(iter(operands))].shape)}, {sorted(options)}: expected "
                f"an error of at most {tolerance:g}, got {error:.2g} in result {index}; please report it."
            )


def _results(function: Function, operands: Mapping[str, Tensor], options: Mapping[str, object]) -> list[Tensor]:
    """Both results, and the gradients of the sum of their real parts' squares for all operands."""
    leaves = {name: operand.detach().requires_grad_() for name, operand in operands.items()}
    outputs = function(**leaves, **options)
    loss = sum(output.abs().to(torch.float64).square().mean() for output in outputs)
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return [*(output.detach() for output in outputs), *grads]


def cases(device: torch.device) -> Iterator[Case]:
    """What is timed, one at a time, since operands are large; a star marks the variant that ships at that shape."""
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16, torch.complex64):
            yield from _linear(shape, dtype, device)
    yield from _selective(device)
    yield from _convolution(device)


def _linear(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    state = torch.float32 if dtype == torch.bfloat16 else dtype
    a, b, grad = (torch.rand(shape, dtype=dtype, device=device) / 2 for _ in range(3))
    h0, h, marks = torch.rand(shape[0], shape[2], dtype=state, device=device), torch.zeros_like(a), a.new_empty(0)
    last, grad_a, grad_b, marks = h0.clone(), torch.zeros_like(a), torch.zeros_like(a), marks.real.to(torch.uint8)
    shipped = linear.plan(shape, dtype)
    for how in _plans(dtype):
        name = f"{'x'.join(map(str, shape))} {dtype} by {'steps' if how.by_steps else 'tiles'}".replace("torch.", "")
        name += " *" if how == shipped else ""
        forward = linear.forward_launch((a, b, h0, marks, h, last), False, how)
        yield Case(f"scan {name}", forward, scan_cost(shape, dtype).bytes)
        backward = linear.backward_launch((a, h0, marks, h, grad, last, grad_a, grad_b, last), False, how)
        yield Case(f"its gradient {name}", backward, scan_cost(shape, dtype, backward=True).bytes)


def _selective(device: torch.device) -> Iterator[Case]:
    batch, seq_len, n_channels, n_states = SELECTIVE
    u, delta, z, grad = (torch.rand(batch, seq_len, n_channels, device=device) for _ in range(4))
    B, C = (torch.rand(batch, seq_len, n_states, device=device) for _ in range(2))
    A, D, none = -torch.rand(n_states, n_channels, device=device), torch.rand(n_channels, device=device), u.new_empty(0)
    y, made_u, made_delta, made_z = (torch.zeros_like(u) for _ in range(4))
    state = torch.zeros(batch, n_states, n_channels, device=device)
    saved = torch.zeros(
        batch, -(-seq_len // selective.forward_tile(n_states).steps), n_states, n_channels, device=device
    )
    tile = selective.backward_tile(n_states, u.dtype, False)
    slices = [torch.zeros(batch, -(-n_channels // tile.width), seq_len, n_states, device=device) for _ in range(2)]
    given = (u, delta, A, B, C, D, z, none.to(torch.uint8))
    made = (made_u, made_delta, state.clone(), *slices, torch.zeros(batch, n_channels, device=device), made_z)
    name, shape = "x".join(map(str, SELECTIVE)), u.shape
    floors = [selective_scan_cost(shape, n_states, u.dtype, gated=True, backward=back).bytes for back in (False, True)]
    yield Case(
        f"selective scan {name}", selective.forward_launch((*given, state, y, state.clone(), saved), False), floors[0]
    )
    operands = (*given, saved, grad, state, *made, state.clone())
    yield Case(f"its gradient {name}", selective.backward_launch(operands, False), floors[1])


def _convolution(device: torch.device) -> Iterator[Case]:
    shape = SELECTIVE[:3]
    x, grad, y = (torch.rand(shape, device=device) for _ in range(3))
    weight, bias = torch.rand(4, shape[2], device=device), torch.rand(shape[2], device=device)
    state, since = torch.zeros(shape[0], 3, shape[2], device=device), torch.zeros(0, dtype=torch.int64, device=device)
    tiles = shape[0] * -(-shape[1] // convolution.tile_for(x.dtype)[0])
    shares = (torch.zeros(tiles, 4, shape[2], device=device), torch.zeros(tiles, shape[2], device=device))
    name, floors = (
        "x".join(map(str, shape)),
        [causal_convolution_cost(shape, 4, x.dtype, back).bytes for back in (False, True)],
    )
    yield Case(f"convolution {name}", convolution.forward_launch((x, weight, bias, state, since, y)), floors[0])
    made = (torch.zeros_like(x), *shares, state.clone())
    yield Case(f"its gradient {name}", convolution.backward_launch((x, weight, state, since, grad, *made)), floors[1])


def measure(case: Case, rounds: int) -> Figure:
    """Kernel and copy in turns."""
    source = torch.zeros(case.bytes // 8, device="cuda")  # read once and written once
    target = torch.empty_like(source)
    steps = {"kernel": case.launch.run, "copy": lambda: target.copy_(source)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(_milliseconds(step))
    kernel, copy = (times[name][1:] for name in steps)  # the first round compiles
    ratio = statistics.median(mine / theirs for mine, theirs in zip(kernel, copy, strict=True))
    found = statistics.median(kernel)
    return Figure(case.name, found, statistics.median(copy), ratio, case.bytes / found / 1e6)


def _milliseconds(step: Callable[[], object]) -> float:
    """Of one call, as the mean of some, by the GPU's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(_REPEATS):
        step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / _REPEATS


if __name__ == "__main__":
    main()

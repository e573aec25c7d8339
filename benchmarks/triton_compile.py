"""The Triton kernels as compiled for GPUs that need not be there: registers, memory, width of accesses, bytes moved.

    python -m benchmarks.triton_compile
    python -m benchmarks.triton_compile --architectures 90 --out triton_compile.json

Compute capabilities 8.0 (A100), 9.0 (H100) and 10.0 (B200), by the assembler that comes with Triton. A row is one call
of `classical_kernels`, with the operands it would have on a GPU. Wide: the share of bytes that 128-bit instructions
move, counted as they stand in the PTX. Bytes: what the loads and stores of the innermost loop move for each element (of
a, u or x), counted in Triton's intermediate code; floor: each operand read once, each result written once. What is
above it is read again from a cache (taps of the convolution; B and C, shared by all channels) or is written for the
gradient (states before each chunk, gradients for B and C by blocks of channels). It says nothing about time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from classical_kernels.convolution import cuda as convolution
from classical_kernels.costs import causal_convolution_cost, scan_cost, selective_scan_cost
from classical_kernels.launch import Launch
from classical_kernels.linear_scan import cuda as linear_scan
from classical_kernels.selective import cuda as selective

ARCHITECTURES = (80, 90, 100)
MAX_REGISTERS = {"linear_scan": 200, "convolution": 176, "selective": 255}
"""Of a thread: more than two programs of 128 threads to a multiprocessor for the first two, two for the third."""
MAX_SHARED = 64 * 1024
"""Bytes of a program: two to a multiprocessor at least."""
OUT = Path(__file__).resolve().parent / "results" / "triton_compile.json"
_NAMES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.uint8: "u8",
    torch.int64: "i64",
}  # fmt: skip
_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i8": 1, "i64": 8}
_SHAPE = (2, 4096, 1536)  # batch, sequence, channels
_STATES, _TAPS = 16, 4


@dataclass(frozen=True)
class Case:
    """A call, the number of elements a pass of its innermost loop computes, and the floor of bytes an element."""

    name: str
    launch: Launch
    tile: int
    floor: float


@dataclass(frozen=True)
class Row:
    """What the compiler says of a case."""

    name: str
    family: str
    kernel: str
    architecture: int
    registers: int
    spilled: int
    shared: int
    wide: float
    bytes: float
    floor: float


def _meta(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def linear_cases(dtype: torch.dtype, by_steps: bool, marked: bool = False, reverse: bool = False) -> list[Case]:
    """The linear scan and its gradient; few channels make it go by tiles of steps."""
    batch, seq_len, n_channels = _SHAPE[0] * (64 if by_steps else 1), *_SHAPE[1:]
    state_dtype = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    x, state = _meta(batch, seq_len, n_channels, dtype=dtype), _meta(batch, n_channels, dtype=state_dtype)
    marks = _meta(*((batch, seq_len) if marked else (0,)), dtype=torch.uint8)
    how = linear_scan.plan(x.shape, dtype)
    name = f"scan {dtype}{' marks' if marked else ''}{' reverse' if reverse else ''}".replace("torch.", "")
    forward = linear_scan.forward_launch((x, x, state, marks, x, state), reverse, how)
    backward = linear_scan.backward_launch((x, state, marks, x, x, state, x, x, state), reverse, how)
    floors = (scan_cost(x.shape, dtype, backward=back).bytes / x.numel() for back in (False, True))
    return [
        Case(name, call, how.steps * how.width, floor) for call, floor in zip((forward, backward), floors, strict=True)
    ]


def selective_cases(dtype: torch.dtype, held: bool = False, marked: bool = False) -> list[Case]:
    """The selective scan with skip and gate, and its gradient."""
    batch, seq_len, n_channels = _SHAPE
    x, narrow = _meta(*_SHAPE, dtype=dtype), _meta(batch, seq_len, _STATES, dtype=dtype)
    A, skip = _meta(_STATES, n_channels, dtype=dtype), _meta(n_channels, dtype=dtype)
    state, saved = _meta(batch, _STATES, n_channels, dtype=dtype), _meta(batch, 1, _STATES, n_channels, dtype=dtype)
    marks = _meta(*((batch, seq_len) if marked else (0,)), dtype=torch.uint8)
    given = (x, x, A, narrow, narrow, skip, x, marks)
    forward = selective.forward_launch((*given, state, x, state, saved), held)
    made = (x, x, state, narrow, narrow, skip, x, state)
    backward = selective.backward_launch((*given, saved, x, state, *made), held)
    name = f"selective {dtype}{' zoh' if held else ''}{' marks' if marked else ''}".replace("torch.", "")
    floors = (selective_scan_cost(_SHAPE, _STATES, dtype, True, back).bytes / x.numel() for back in (False, True))
    return [
        Case(name, call, call.constants["T"] * call.constants["W"], floor)
        for call, floor in zip((forward, backward), floors, strict=True)
    ]


def convolution_cases(dtype: torch.dtype, marked: bool = False) -> list[Case]:
    """The causal convolution of four taps, and its gradient."""
    batch, seq_len, n_channels = _SHAPE
    x, weight, bias = (_meta(*shape, dtype=dtype) for shape in (_SHAPE, (_TAPS, n_channels), (n_channels,)))
    state = _meta(batch, _TAPS - 1, n_channels, dtype=dtype)
    since = _meta(*((batch, seq_len) if marked else (0,)), dtype=torch.int64)
    forward = convolution.forward_launch((x, weight, bias, state, since, x))
    backward = convolution.backward_launch((x, weight, state, since, x, x, weight, bias, state))
    name = f"convolution {dtype}{' resets' if marked else ''}".replace("torch.", "")
    floors = (causal_convolution_cost(_SHAPE, _TAPS, dtype, back).bytes / x.numel() for back in (False, True))
    tile = forward.constants["T"] * forward.constants["W"]
    return [Case(name, call, tile, floor) for call, floor in zip((forward, backward), floors, strict=True)]


def all_cases() -> Iterator[Case]:
    """Every dtype, both variants of the linear scan, with and without each option."""
    for dtype in (
        torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128
    ):  # fmt: skip
        for by_steps in (True, False):
            yield from linear_cases(dtype, by_steps)
            yield from linear_cases(dtype, by_steps, marked=True, reverse=True)
    for dtype in (torch.float32, torch.float64):
        for held, marked in ((False, False), (True, False), (False, True), (True, True)):
            yield from selective_cases(dtype, held, marked)
        for marked in (False, True):
            yield from convolution_cases(dtype, marked)


def compile_case(case: Case, architecture: int) -> tuple[Row, dict[str, str]]:
    """Compile for one architecture; returns the row of the table, and the code by stage ("ttir", "ptx")."""
    function = case.launch.function()
    names = iter(function.arg_names)
    signature: dict[str, str] = {}
    constants, attributes = dict(case.launch.constants), {}
    for position, (name, operand) in enumerate(
        zip(names, case.launch.operands, strict=False)
    ):  # the rest are constants
        if isinstance(operand, Tensor):
            signature[name] = "*" + _NAMES[operand.dtype]
        else:
            signature[name] = "i32" if operand < 2**31 else "i64"
        if isinstance(operand, Tensor) or operand % 16 == 0:  # as a launch would find it
            attributes[(position,)] = [["tt.divisibility", 16]]
    signature |= dict.fromkeys(names, "constexpr")
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(function, {name: signature[name] for name in function.arg_names}, constants, attributes)
    options = {"num_warps": case.launch.num_warps, "enable_fp_fusion": True}
    log = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        knobs.cache.dir = folder  # what is in the cache is not assembled again, and the assembler says nothing of it
        knobs.nvidia.dump_ptxas_log = True
        compiled: Any = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        code = {stage: str(compiled.asm[stage]) for stage in ("ttir", "ptx")}
    registers = int(_found(r"Used (\d+) registers", log.getvalue())[0])
    spilled = sum(map(int, _found(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log.getvalue())))
    row = Row(
        case.name, case.launch.family, case.launch.kernel, architecture, registers, spilled, compiled.metadata.shared,
        wide_share(code["ptx"]), moved_bytes(code["ttir"]) / case.tile, case.floor,
    )  # fmt: skip
    return row, code


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"expected {pattern!r} in the assembler's log, got {text!r}: another version of Triton?")
    return match.groups()


def wide_share(ptx: str) -> float:
    """The share of bytes in global loads and stores that 128-bit instructions move, each instruction counted once."""
    widths = [16] * len(re.findall(r"cp\.async\.cg\.shared\.global", ptx))
    widths += [int(size) for size in re.findall(r"cp\.async\.ca\.shared\.global[^,]*, \[[^]]*\], (?:0x)?(\d+)", ptx)]
    for count, bits in re.findall(r"(?:ld|st)\.global(?:\.(?!v\d|b\d)[\w:]+)*(?:\.v(\d))?\.b(\d+)", ptx):
        widths.append(int(count or 1) * int(bits) // 8)
    return sum(width for width in widths if width == 16) / sum(widths)


def moved_bytes(ttir: str) -> int:
    """Bytes that the loads and stores of the innermost loop (of the whole kernel where it has none) move in a pass."""
    by_depth: dict[int, int] = {}
    loops: list[int] = []
    for line in ttir.splitlines():
        indent = len(line) - len(line.lstrip())
        while loops and indent <= loops[-1] and line.strip():
            loops.pop()
        if "scf.for" in line:
            loops.append(indent)
        match = re.search(r"tt\.(?:load|store) .*tensor<([\dx]+)x!tt\.ptr<(\w+)>", line)
        if match:
            size = _BYTES[match[2]]
            for length in match[1].split("x"):
                size *= int(length)
            by_depth[len(loops)] = by_depth.get(len(loops), 0) + size
    return by_depth[max(by_depth)]


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    columns = {"sm": 4, "registers": 10, "spilled": 8, "shared": 8, "wide": 6, "bytes": 8, "floor": 8}
    head = f"{'case':32}{'kernel':17}" + "".join(f"{name:>{width}}" for name, width in columns.items())
    lines = [
        f"{row.name:32}{row.kernel:17}{row.architecture:4}{row.registers:10}{row.spilled:8}{row.shared:8}"
        f"{row.wide:6.0%}{row.bytes:8.1f}{row.floor:8.1f}"
        for row in rows
    ]
    return "\n".join((head, *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, help="compute capability x 10")
    parser.add_argument("--out", type=Path, default=OUT, help="where the table goes, as JSON")
    arguments = parser.parse_args()
    rows = []
    for case in all_cases():
        for architecture in arguments.architectures:
            row, _ = compile_case(case, architecture)
            rows.append(row)
            print(table([row]).splitlines()[-1] if len(rows) > 1 else table([row]), flush=True)
    arguments.out.write_text(
        json.dumps({"triton": triton.__version__, "shape": _SHAPE, "rows": [asdict(row) for row in rows]}, indent=1)
        + "\n"
    )
    over = [row for row in rows if row.spilled or row.registers > MAX_REGISTERS[row.family] or row.shared > MAX_SHARED]
    if over:
        raise SystemExit(
            f"expected no spills, {MAX_REGISTERS} registers and {MAX_SHARED} bytes at most, got:\n{table(over)}"
        )


if __name__ == "__main__":
    main()

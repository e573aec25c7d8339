"""The Triton kernels as compiled for GPUs that need not be there; `python -m benchmarks.triton_compile` has all."""

import re

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is missing: pip install -c constraints.txt -e '.[triton]'")

from benchmarks.triton_compile import (
    MAX_REGISTERS,
    MAX_SHARED,
    Case,
    compile_case,
    convolution_cases,
    linear_cases,
    moved_bytes,
    selective_cases,
    wide_share,
)

PLAIN = (
    *linear_cases(torch.float32, by_steps=False), *linear_cases(torch.bfloat16, by_steps=True),
    linear_cases(torch.complex64, by_steps=False)[0], convolution_cases(torch.float32)[0],
    selective_cases(torch.float32)[1],
)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "architecture"),
    [*((case, 90) for case in PLAIN), (PLAIN[3], 80), (PLAIN[4], 100)],
    ids=lambda value: value if isinstance(value, int) else f"{value.name} {value.launch.kernel}",
)
def test_kernel_fits(case: Case, architecture: int) -> None:
    """No spills, bounded memory, 128-bit accesses, 64-bit offsets, and no byte above what the algorithm needs."""
    row, code = compile_case(case, architecture)
    assert row.spilled == 0
    assert row.registers <= MAX_REGISTERS[case.launch.family]
    assert row.shared <= MAX_SHARED
    family = case.launch.family
    if family != "selective":  # there a thread owns one element of a row of (T, W)
        assert row.wide >= 0.9
    if family == "linear_scan":
        assert row.bytes == pytest.approx(row.floor)
        assert row.registers <= 160  # three programs of 128 threads to a multiprocessor, or more
    offsets = re.findall(r"tt\.addptr .*: tensor<\d+x(?:\d+x)+!tt\.ptr<\w+>>, tensor<[\dx]+x(i\d+)>", code["ttir"])
    assert offsets
    assert set(offsets) == {"i64"}


def test_counts_of_accesses() -> None:
    """By hand: 16 + 16 of 40 bytes wide; loads and stores of the innermost loop alone."""
    ptx = """
    ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    @%p1 st.global.L1::evict_last.v2.b64 [ %rd2 + 0 ], { %rd3, %rd4 };
    ld.global.b32 { %r5 }, [ %rd5 + 0 ];
    st.global.v2.b16 [ %rd6 + 0 ], { %rs1, %rs2 };
    """
    assert wide_share(ptx) == pytest.approx(32 / 40)
    assert wide_share("cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;") == 1
    ttir = """
    %0 = tt.load %a : tensor<4x!tt.ptr<f32>>
    scf.for %i = %c0 to %L step %c1  : i32 {
      %1 = tt.load %b, %m, %o : tensor<4x8x!tt.ptr<bf16>>
      tt.store %c, %1, %m : tensor<4x8x!tt.ptr<f32>>
    }
    tt.store %d, %0 : tensor<4x!tt.ptr<f32>>
    """
    assert moved_bytes(ttir) == 4 * 8 * (2 + 4)

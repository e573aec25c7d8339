"""The CUDA side of the recurrences, without a GPU: interpreted, registered, and refused without Triton."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import gpu
from classical_kernels.convolution.cuda import convolve_cuda
from classical_kernels.linear_scan.cuda import scan_backward_cuda, scan_cuda
from classical_kernels.selective.cuda import selective_scan_cuda

ROOT = Path(__file__).resolve().parent.parent


def test_interpreted_kernels_equal_the_loops() -> None:
    """In a process of its own: Triton interprets or compiles as the environment says when it is imported."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed: pip install -c constraints.txt -e '.[triton]'")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/triton_interpreted.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("name", ["scan", "selective_scan", "causal_convolution"])
@pytest.mark.parametrize("suffix", ["", "_backward"])
def test_operators_know_cuda(name: str, suffix: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"classical_kernels::{name}{suffix}", "CUDA")


def test_states_kept_on_cuda_are_of_every_16th_step() -> None:
    """What a graph is traced with has the shapes that the kernels write."""
    with FakeTensorMode():
        shapes = ((2, 33, 4), (3, 4), (2, 33, 3), (2, 3, 4), (0,))
        row, A, narrow, state, none = (torch.empty(shape, device="cuda") for shape in shapes)
        marks = torch.empty(0, dtype=torch.uint8, device="cuda")
        operands = (row, row, A, narrow, narrow, none, none, state, marks)
        _, _, saved = torch.ops.classical_kernels.selective_scan(*operands, False, True)
    assert (saved.device.type, saved.shape) == ("cuda", (2, 3, 3, 4))


def test_missing_triton_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for family in ("linear_scan", "selective", "convolution"):
        monkeypatch.delitem(sys.modules, f"classical_kernels.{family}.triton_kernels", raising=False)
    row, state, none = torch.ones(1, 2, 3), torch.ones(1, 3), torch.empty(0)
    calls = (
        lambda: scan_cuda(row, row, state, none.byte(), False),
        lambda: scan_backward_cuda(row, state, none.byte(), row, row, state, False),
        lambda: selective_scan_cuda(row, row, row[0], row, row, none, none, row, none.byte(), False, False),
        lambda: convolve_cuda(row, row[0], row[0, 0], row[:, :1], none.long()),
    )
    for call in calls:
        with pytest.raises(ImportError, match=r"expect the package 'triton'.*pip install 'hybridqlm\[triton\]'\.$"):
            call()


def test_gpu_benchmark_checks_before_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its comparisons, here of the CPU's operators with the loops; its launches, built on no memory; its refusal."""
    assert gpu.verify(torch.device("cpu"), lengths=(3,), widths=(5,)) == 38
    found = list(gpu.cases(torch.device("meta")))
    assert len(found) == 3 * 3 * 4 + 4
    assert found[0].bytes == 3 * 4 * 4096 * 512 * 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="expected a CUDA device, got none with torch"):
        gpu.main()
    monkeypatch.setattr(gpu, "scan_reference", lambda a, b, h0, **options: (a * 1 + h0.sum(), b[:, -1] * 1))
    with pytest.raises(AssertionError, match=r"expected an error of at most 1e-12, got"):
        gpu.verify(torch.device("cpu"), lengths=(3,), widths=(5,))

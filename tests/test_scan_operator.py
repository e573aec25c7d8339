"""The linear recurrence as a PyTorch operator: registration, compilation, dispatch by device, errors, its name."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from numba import types
from scan_cases import Operands, draw, gradients, leaves
from torch.utils.flop_counter import FlopCounterMode

from classical_kernels import scan, scan_reference
from classical_kernels.costs import scan_cost
from classical_kernels.linear_scan.cpu import _scan_backward, scan_channels
from classical_kernels.linear_scan.kernels import backward_blocks, forward_blocks


def test_second_derivative_is_refused_with_a_remedy() -> None:
    operands = draw(1, 4, 2)
    first = gradients(scan, operands, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"use classical_kernels\.scan_reference"):
        torch.autograd.backward(first, first)
    wanted = leaves(*draw(1, 3, 2))
    assert torch.autograd.gradgradcheck(scan_reference, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_operators_pass_opcheck(dtype: torch.dtype) -> None:
    for shape in ((2, 5, 3), (2, 0, 3)):
        operands = leaves(*draw(*shape, dtype=dtype))
        for marks in (torch.empty(0, dtype=torch.uint8), torch.randint(3, shape[:2], dtype=torch.uint8)):
            torch.library.opcheck(scan_channels, (*operands, marks, True))
            a, b, h0 = (operand.detach() for operand in operands)
            torch.library.opcheck(_scan_backward, (a, h0, marks, scan(a, b, h0)[0], b, h0, False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_operations_are_counted(dtype: torch.dtype) -> None:
    """By hand: a product and a sum an element forward, two and one backward; complex, 6 and 2 real ones each."""
    wanted = leaves(*draw(2, 5, 3, dtype=dtype))
    with FlopCounterMode(display=False) as counter:
        h, _ = scan(*wanted)
        assert counter.get_total_flops() == 30 * (8 if dtype.is_complex else 2)
        h.abs().sum().backward()
    assert counter.get_total_flops() == 30 * (22 if dtype.is_complex else 5)
    assert scan_cost((2, 5, 3), dtype) == (30 * (8 if dtype.is_complex else 2), 90 * dtype.itemsize)
    assert scan_cost((2, 5, 3), dtype, backward=True).bytes == 150 * dtype.itemsize


def test_indices_have_64_bits() -> None:
    """More than 2**31 elements need no other kernel: sizes are intp, and numba's integers never narrow."""
    gradients(scan, draw(1, 3, 2))
    for kernel, n_arrays in ((forward_blocks, 6), (backward_blocks, 9)):
        for signature in kernel.signatures:
            *sizes, reverse = (*signature[n_arrays : n_arrays + 2], *signature[-3:], signature[n_arrays + 2])
            assert set(sizes) == {types.intp}
            assert reverse == types.boolean
            assert str(types.intp) == "int64"


@pytest.mark.parametrize("length", [1, 7])
def test_compiles_to_one_graph(length: int) -> None:
    operands = draw(2, length, 3, dtype=torch.float32)
    compiled = torch.compile(lambda a, b, h0: scan(a, b, h0), fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, compiled(*operands), scan(*operands)))
    assert all(map(torch.equal, gradients(compiled, operands), gradients(scan, operands)))
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(operands[0].bfloat16(), operands[1], operands[2])[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda a, b, h0: (a.double(), b, h0), TypeError, r"one dtype, got torch\.float64 and torch\.float32: cast"),
        (lambda a, b, h0: (a + 0j, b, h0), TypeError, r"one dtype, got torch\.complex64 and torch\.float32: cast"),
        (lambda a, b, h0: (a.long(), b, h0), TypeError, r"a must be floating-point or complex, got torch\.int64: cast"),
        (lambda a, b, h0: (a, b.bool(), h0), TypeError, r"b must be floating-point or complex, got torch\.bool: cast"),
        (lambda a, b, h0: (a, b, h0.double()), TypeError, r"h0 must be torch\.float32.*got torch\.float64: cast"),
        (lambda a, b, h0: (a, b, h0 + 0j), TypeError, r"h0 must be torch\.float32.*got torch\.complex64: cast"),
        (lambda a, b, h0: (a[:, :1], b, h0), ValueError, r"one shape .*got \(2, 1, 4\) and \(2, 3, 4\): expand"),
        (lambda a, b, h0: (a[0], b[0], h0), ValueError, r"one shape .*got \(3, 4\) and \(3, 4\): expand"),
        (lambda a, b, h0: (a, b, h0[:1]), ValueError, r"h0 must have shape .*\(2, 4\), got \(1, 4\): expand"),
        (lambda a, b, h0: (a.tolist(), b, h0), TypeError, r"must be torch tensors .*got list, Tensor, Tensor: pass"),
        (lambda a, b, h0: (a, b.numpy(), None), TypeError, r"must be torch tensors .*got Tensor, ndarray, NoneType"),
        (lambda a, b, h0: (a, b, h0.numpy()), TypeError, r"must be torch tensors .*got Tensor, Tensor, ndarray: pass"),
        (lambda a, b, h0: (a, None, h0), TypeError, r"must be torch tensors .*got Tensor, NoneType, Tensor: pass"),
        (lambda a, b, h0: (a.to("meta"), 0.5, h0), TypeError, r"must be torch tensors .*got Tensor, float, Tensor"),
        (lambda a, b, h0: (a, b.to("meta"), h0), ValueError, r"one device, got cpu, meta and cpu: move"),
        (lambda a, b, h0: (a, b, h0.to("meta")), ValueError, r"one device, got cpu, cpu and meta: move"),
    ],
)
@pytest.mark.parametrize("function", [scan, scan_reference])
def test_bad_operands_are_refused(
    function: Callable[..., object],
    change: Callable[..., Operands],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        function(*change(*draw(2, 3, 4, dtype=torch.float32)))


def test_autocast_does_not_hide_a_complex_mistake() -> None:
    a, b, h0 = draw(2, 3, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(TypeError, match="one dtype"):
            scan(a, b + 0j)
        with pytest.raises(TypeError, match="h0 must be"):
            scan(a, b, h0 + 0j)


def test_other_devices_run_the_reference() -> None:
    a, b, h0 = (operand.to("meta") for operand in draw(2, 3, 4))
    h, h_last = scan(a, b, h0)
    assert (h.device.type, h.shape, h_last.shape) == ("meta", (2, 3, 4), (2, 4))


@pytest.mark.parametrize("first", ["classical_kernels.linear_scan.dispatch", "classical_kernels.threads"])
def test_the_name_is_the_function_whatever_is_imported_first(first: str) -> None:
    code = (
        f"import {first}, classical_kernels\n"
        "from classical_kernels import scan, scan_reference\n"
        "assert callable(classical_kernels.scan) and classical_kernels.scan is scan\n"
        "import importlib, pkgutil\n"
        "names = [m.name for m in pkgutil.walk_packages(classical_kernels.__path__, 'classical_kernels.')]\n"
        "for name in names:\n"
        "    if not name.endswith('.triton_kernels'): importlib.import_module(name)  # an optional dependency\n"
        "assert classical_kernels.scan is scan and classical_kernels.scan_reference is scan_reference\n"
        "from classical_kernels.linear_scan import kernels\n"
        "assert not kernels.forward_blocks.signatures and not kernels.backward_blocks.signatures  # nothing compiled\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

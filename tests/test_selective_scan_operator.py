"""The fused selective scan as a PyTorch operator: registration, compilation, threads, costs, memory, refusals."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from numba import types
from test_selective_scan import Operands, draw, run
from torch.utils.flop_counter import FlopCounterMode

from classical_kernels import selective_scan, selective_scan_reference, selective_step
from classical_kernels.costs import selective_scan_cost
from classical_kernels.selective.cpu import _backward, selective_scan_fused
from classical_kernels.selective.kernels import CHUNK, backward_groups, forward_groups


@pytest.mark.parametrize("held", [False, True])
def test_operators_pass_opcheck(held: bool) -> None:
    for length in (34, 0):
        u, delta, A, B, C, D, h0, z = draw(2, length, 3, 2)
        for marks in (torch.empty(0, dtype=torch.uint8), torch.randint(2, (2, length), dtype=torch.uint8)):
            operands = (u, delta, A.detach().mT.contiguous().requires_grad_(), B, C, D, z, h0.detach().mT.contiguous())
            torch.library.opcheck(selective_scan_fused, (*operands, marks, held, True))
            plain = [operand.detach() for operand in operands]
            y, last, saved = selective_scan_fused(*plain, marks, held, True)
            torch.library.opcheck(_backward, (plain, marks, saved, y, last, held))


@pytest.mark.parametrize("discretization", ["euler", "zoh"])
def test_compiles_to_one_graph(discretization: str) -> None:
    operands = draw(2, 40, 5, 3, torch.float32)
    compiled: Any = torch.compile(selective_scan, fullgraph=True, backend="aot_eager")
    ours, theirs = (run(function, operands, discretization=discretization) for function in (compiled, selective_scan))
    assert all(map(torch.equal, ours, theirs))


def test_second_derivative_is_refused_with_a_remedy() -> None:
    operands = draw(1, 4, 2, 2)
    first = torch.autograd.grad(selective_scan(*operands)[0].sum(), operands, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"use classical_kernels\.selective_scan_reference"):
        torch.autograd.backward(first, first)


def test_threads_change_no_bit() -> None:
    before = torch.get_num_threads()
    try:
        for shape in ((1, 90, 600, 8), (3, 200, 40, 16)):
            operands = draw(*shape, torch.float32)
            results = []
            for n_threads in (1, 2, 3):
                torch.set_num_threads(n_threads)
                results.append(run(selective_scan, operands))
            assert all(map(torch.equal, results[0], results[1]))
            assert all(map(torch.equal, results[0], results[2]))
    finally:
        torch.set_num_threads(before)


def test_indices_have_64_bits() -> None:
    run(selective_scan, draw(1, 2, 2, 2))
    for kernel in (forward_groups, backward_groups):
        for signature in kernel.signatures:
            *_, sizes, _, first, last = signature
            assert sizes == types.UniTuple(types.uint64, 3)
            assert first == last == types.intp


def test_states_are_never_in_memory() -> None:
    """For the gradient every 32nd state is kept, without one none."""
    operands = draw(1, 320, 4, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda one: one
    ):
        selective_scan(*operands)
    assert 320 // int(CHUNK) * 4 * 16 in kept
    assert max(kept) == operands.B.numel()
    u, delta, A, B, C, D, h0, z = (operand.detach() for operand in operands)
    marks = torch.empty(0, dtype=torch.uint8)
    assert selective_scan_fused(u, delta, A.mT, B, C, D, z, h0.mT, marks, False, False)[2].numel() == 0


def test_operations_are_counted() -> None:
    operands = draw(2, 5, 3, 4, torch.float32)
    forward, backward = (selective_scan_cost((2, 5, 3), 4, torch.float32, backward=back) for back in (False, True))
    with FlopCounterMode(display=False) as counter:
        y, _ = selective_scan(*operands)
        assert counter.get_total_flops() == forward.flops == 120 * 22
        y.sum().backward()
    assert counter.get_total_flops() == forward.flops + backward.flops
    assert forward.bytes == 4 * (3 * 30 + 2 * 40)  # u, delta, y; B, C
    assert backward.bytes == 4 * (5 * 30 + 4 * 40)  # u, delta, grad_y, two gradients; B, C and theirs


def test_other_devices_run_the_reference() -> None:
    y, h_last = selective_scan(*Operands(*(operand.to("meta") for operand in draw(2, 3, 4, 5))))
    assert (y.device.type, y.shape, h_last.shape) == ("meta", (2, 3, 4), (2, 4, 5))


Change = Callable[[Operands], Any]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda o: o._replace(u=o.u[0]), ValueError, r"u and A must have shapes .*got \(3, 4\) and \(4, 5\): reshape"),
        (lambda o: o._replace(A=o.A.mT), ValueError, r"u and A must have shapes .*got \(2, 3, 4\) and \(5, 4\): resh"),
        (lambda o: o._replace(delta=o.delta[:, :1]), ValueError, r"delta must have shape \(2, 3, 4\).*got \(2, 1, 4\)"),
        (lambda o: o._replace(B=o.B[..., :1]), ValueError, r"B must have shape \(2, 3, 5\), got \(2, 3, 1\): expand"),
        (lambda o: o._replace(h0=o.h0.mT), ValueError, r"h0 must have shape \(2, 4, 5\), got \(2, 5, 4\): expand"),
        (lambda o: o._replace(D=o.D[:2]), ValueError, r"D must have shape \(4,\), got \(2,\): expand"),
        (lambda o: o._replace(z=o.z[0]), ValueError, r"z must have shape \(2, 3, 4\), got \(3, 4\): expand"),
        (lambda o: o._replace(C=o.C.to("meta")), ValueError, "C must be on the device of u, cpu, got meta: move"),
        (lambda o: o._replace(C=o.C.float()), TypeError, "float64 all or none .* got float64 for u, delta, A, B, D, z"),
        (lambda o: o._replace(u=o.u.long()), TypeError, r"u must be real and floating-point, got torch\.int64: cast"),
        (
            lambda o: o._replace(B=o.B + 0j),
            TypeError,
            r"B must be real and floating-point, got torch\.complex128: cast",
        ),
        (lambda o: o._replace(A=None), TypeError, "A must be a torch tensor, got NoneType: pass torch.as_tensor"),
        (lambda o: o._replace(h0=0.0), TypeError, "h0 must be a torch tensor, got float: pass torch.as_tensor"),
    ],
)
@pytest.mark.parametrize("function", [selective_scan, selective_scan_reference])
def test_bad_operands_are_refused(
    function: Callable[..., object], change: Change, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        function(*change(draw(2, 3, 4, 5)))


def test_bad_options_are_refused() -> None:
    operands = draw(2, 3, 4, 5)
    for function in (selective_scan, selective_scan_reference):
        with pytest.raises(ValueError, match="discretization must be one of euler, zoh, got 'exact': name one"):
            function(*operands, discretization="exact")
        with pytest.raises(ValueError, match=r"resets must have shape \(batch, seq\) = \(2, 3\), got \(3,\)"):
            function(*operands, resets=torch.ones(3, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"mask must have shape \(batch, seq\) = \(2, 3\), got \(3,\)"):
            function(*operands, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="u and A must have shapes"):
        selective_step(*operands[:5], operands.h0)

"""Read-outs within the compiled program against torch on the states, and spectra against LAPACK.

Axis legend: b batch, k wires read, d = 2**k.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import Estimate, linalg, open_backend
from backends.statevector import compiled, executor, spectra
from backends.statevector.lowering import lower_read
from backends.statevector.structure import structure
from circuits import Circuit, Input, Op, Weight
from circuits.library import angle_encoding, reuploading

STATEVECTOR = open_backend("statevector")
Case = tuple[Circuit, tuple[Tensor, Tensor], tuple[int, ...]]


def case(number: int, dtype: torch.dtype = torch.float64, batch: int | None = None) -> Case:
    """A random circuit of 2 to 7 wires, its data, and some of its wires in some order, at most half of them."""
    rng = np.random.default_rng((11, number))
    n_wires = int(rng.integers(2, 8))
    circuit = random_circuit(rng, n_wires, int(rng.integers(4, 20)))
    ends = (Op("rx", (0,), (Weight(0),)), Op("ry", (n_wires - 1,), (Input(0),)), Op("cx", (0, n_wires - 1)))
    circuit = Circuit(n_wires, ends) + circuit
    data = random_data(rng, circuit, int(rng.integers(1, 6)) if batch is None else batch)
    kept = rng.permutation(n_wires)[: int(rng.integers(1, n_wires // 2 + 1))]
    inputs, weights = (torch.tensor(values, dtype=dtype, requires_grad=True) for values in data)
    return circuit, (inputs, weights), tuple(int(wire) for wire in kept)


def compared(circuit: Circuit, angles: Tensor, wires: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Each read-out, compiled and by torch from the states."""
    states = executor.run(circuit, angles).T
    rho = linalg.reduced_density(states, wires)
    chances = executor.marginals(states.real.square() + states.imag.square(), wires)
    found = [(compiled.probabilities(circuit, angles, wires), chances), (compiled.density(circuit, angles, wires), rho)]
    return found + [
        (compiled.entropy(circuit, angles, wires, kind), linalg.entropy(rho, kind))
        for kind in ("von_neumann", "renyi2")
    ]


def slopes(values: Tensor, of: tuple[Tensor, ...]) -> Tensor:
    """The gradient of a fixed random combination of the values."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    drawn = torch.randn(parts.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.autograd.grad((parts * drawn.to(parts)).sum(), of, allow_unused=True, retain_graph=True)
    return torch.cat([(torch.zeros_like(x) if g is None else g).flatten() for x, g in zip(of, found, strict=True)])


@pytest.mark.parametrize("first", range(0, 24, 12))
def test_values_and_gradients_are_torch_s(first: int) -> None:
    for number in range(first, first + 12):
        circuit, data, wires = case(number)
        for found, expected in compared(circuit, circuit.angles(*data), wires):
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
            torch.testing.assert_close(slopes(found, data), slopes(expected, data), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("number", range(6))
def test_single_precision_is_near_double(number: int) -> None:
    circuit, data, wires = case(number)
    single = tuple(part.detach().float().requires_grad_() for part in data)
    near, exact = (compared(circuit, circuit.angles(*given), wires) for given in (single, data))
    for (found, _), (truth, _) in zip(near, exact, strict=True):
        assert found.dtype in (torch.float32, torch.complex64)
        torch.testing.assert_close(found.to(truth.dtype), truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 7, 129, 300])
@pytest.mark.parametrize("read", ["probabilities", "density", "entropy"])
def test_samples_do_not_see_their_neighbours_nor_the_number_of_threads(read: str, batch: int) -> None:
    circuit, data, wires = case(4, batch=batch)
    call = lambda inputs: getattr(STATEVECTOR, read)(circuit, inputs, data[1], wires=wires).values  # noqa: E731 -- short
    whole, threads = call(data[0]), torch.get_num_threads()
    alone = torch.cat([call(row[None]) for row in data[0][:: max(1, batch // 5)]])
    torch.testing.assert_close(whole[:: max(1, batch // 5)], alone, atol=1e-14, rtol=0)
    try:
        torch.set_num_threads(1 + threads % 2)
        torch.testing.assert_close(slopes(call(data[0]), data), slopes(whole, data), atol=1e-11, rtol=0)
    finally:
        torch.set_num_threads(threads)


def test_inputs_that_are_not_contiguous_and_empty_batches() -> None:
    circuit, (inputs, weights), wires = case(2, batch=6)
    strided = inputs.detach().T.contiguous().T.requires_grad_()
    assert not strided.is_contiguous() or circuit.n_inputs == 1
    for read in (STATEVECTOR.probabilities, STATEVECTOR.density, STATEVECTOR.entropy):
        plain, other = (read(circuit, given, weights, wires=wires).values for given in (inputs, strided))
        assert torch.equal(plain, other)
        assert torch.equal(slopes(plain, (inputs,)), slopes(other, (strided,)))
        assert len(read(circuit, inputs[:0], weights, wires=wires).values) == 0


@pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, math.pi / 2, math.pi])
def test_gradients_are_finite_where_states_are_products_or_spectra_degenerate(
    angle: float, dtype: torch.dtype, kind: str
) -> None:
    for circuit in (reuploading(4, 2), angle_encoding(4), angle_encoding(4) + Circuit(4, (Op("cx", (0, 3)),))):
        inputs = torch.full((3, 4), angle, dtype=dtype, requires_grad=True)
        weights = torch.full((circuit.n_weights,), angle, dtype=dtype, requires_grad=True)
        entropy = STATEVECTOR.entropy(circuit, inputs, weights, wires=(0, 1), kind=kind).values
        assert bool(torch.isfinite(slopes(entropy, (inputs, weights))).all())
        assert float(entropy.detach().min()) >= 0
        assert not bool(torch.signbit(entropy).any())


@pytest.mark.parametrize("read", [STATEVECTOR.probabilities, STATEVECTOR.entropy])
def test_second_derivatives_are_those_of_finite_differences(read: Callable[..., Estimate]) -> None:
    circuit = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("rxx", (0, 1), (Weight(0),)), Op("ry", (1,), (Input(1),))))
    torch.manual_seed(3)
    data = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 2), (1,)))
    assert torch.autograd.gradgradcheck(lambda *given: read(circuit, *given, wires=(0,)).values, data)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 33])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectra_are_lapack_s(size: int, dtype: type) -> None:
    rng, lanes, eps = np.random.default_rng(size), 9, np.finfo(dtype).eps
    a = rng.normal(size=(lanes, size, size)) + 1j * rng.normal(size=(lanes, size, size))
    a[1], a[2, :, 1:], a[3] = np.eye(size), 0, np.diag(np.arange(size) >= size // 2)  # flat, pure, half of it flat
    a[4] *= 10.0 ** -np.arange(size)[:, None]  # graded
    a[5], a[6] = np.diag(10.0 ** -np.arange(size, dtype=float)), a[6].real  # diagonal already, real
    a[7] = np.kron(a[7, : -(-size // 2), : -(-size // 2)], np.eye(2))[:size, :size]  # pairs
    a[8, :, 0] += 1e-20 * a[0, :, 0]
    rho = a @ a.conj().transpose(0, 2, 1)
    rho /= np.trace(rho, axis1=1, axis2=2)[:, None, None]
    planes = np.ascontiguousarray(np.stack((rho.real, rho.imag)).transpose(2, 3, 0, 1), dtype=dtype)
    vectors, alone = np.empty_like(planes), planes.copy()
    spectra.diagonalise(alone, vectors[:0, :0])
    given = (planes[:, :, 0] + 1j * planes[:, :, 1]).transpose(2, 0, 1).astype(complex)
    spectra.diagonalise(planes, vectors)
    values = np.array([planes[i, i, 0] for i in range(size)]).T.astype(float)
    found = (vectors[:, :, 0] + 1j * vectors[:, :, 1]).transpose(2, 1, 0).astype(complex)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(given), atol=20 * eps, rtol=0)
    np.testing.assert_allclose(np.sort([alone[i, i, 0] for i in range(size)], 0).T, np.sort(values), atol=20 * eps)
    np.testing.assert_allclose(
        found.conj().transpose(0, 2, 1) @ found, np.tile(np.eye(size), (lanes, 1, 1)), atol=60 * eps
    )
    again = (found * values[:, None]) @ found.conj().transpose(0, 2, 1)
    np.testing.assert_allclose(again, given, atol=20 * eps)


def test_what_cannot_change_a_read_out_is_left_out() -> None:
    local = Circuit(
        4, (Op("cx", (1, 2)), Op("rx", (0,), (Weight(0),)), Op("rzz", (0, 1), (Weight(1),)), Op("cx", (2, 3)))
    )
    given = structure(local)[0]
    assert len(lower_read(given, (0, 1), False, True).code) == 0  # the CNOT across is a permutation of the order
    assert len(lower_read(given, (2,), False, False).code) < len(lower_read(given, (0,), False, False).code)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fidelities_of_all_pairs(dtype: torch.dtype) -> None:
    circuit, (inputs, weights), _ = case(5, dtype, batch=6)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    states = executor.run(circuit, circuit.angles(inputs, weights)).T
    overlaps = states.conj() @ states.mT
    expected = overlaps.real.square() + overlaps.imag.square()
    for other in (inputs, inputs * 1):
        found = STATEVECTOR.fidelity(circuit, inputs, circuit, other, weights_a=weights, weights_b=weights, gram=True)
        torch.testing.assert_close(found.values, expected, atol=tolerance, rtol=0)
        data = inputs, weights
        torch.testing.assert_close(slopes(found.values, data), slopes(expected, data), atol=20 * tolerance, rtol=0)

"""The state-vector simulator against dense numpy matrices, in both precisions, with and without resets."""

import math
from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import Backend, linalg, open_backend
from backends.statevector import narrow
from circuits import Circuit, Input, Op, PauliSum, Reset, Weight, X, Y, Z, pauli_word

BACKEND: Backend = open_backend("statevector")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
KINDS = pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
ENTROPIES: dict[str, Callable[[oracles.Complex], float]] = {
    "von_neumann": oracles.von_neumann,
    "renyi2": oracles.renyi2,
}
BELL = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))


def ghz(n_wires: int) -> Circuit:
    return Circuit(n_wires, (Op("h", (0,)), *(Op("cx", (0, wire)) for wire in range(1, n_wires))))


def random_observables(rng: np.random.Generator, n_wires: int) -> tuple[PauliSum, ...]:
    """Three sums of words, the first diagonal."""

    def word(letters: str) -> PauliSum:
        return float(rng.normal()) * pauli_word("".join(rng.choice(list(letters), n_wires)), range(n_wires))

    return (word("IZ") + word("Z"), word("IXYZ") + word("IXYZ") + 0.5, word("XY"))


def tensors(inputs: oracles.Real, weights: oracles.Real, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.tensor(inputs, dtype=dtype), torch.tensor(weights, dtype=dtype)


@pytest.fixture(params=["narrow", "reference"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each executor by itself, whatever the width."""
    monkeypatch.setattr(narrow, "MAX_AMPLITUDES", 0 if request.param == "reference" else 4**5)
    return request.param


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("block", range(4))
def test_200_random_circuits_equal_dense_matrices(block: int) -> None:
    rng = np.random.default_rng(100 + block)
    for number in range(50):
        n_wires = 1 + number % 4
        circuit = random_circuit(rng, n_wires, 10)
        # The oracle and both precisions get the same angles.
        x, w = tensors(*random_data(rng, circuit, 1 + number % 3), torch.float32)
        observables = random_observables(rng, n_wires)
        truth = oracles.expectations(circuit, x.double().numpy(), w.double().numpy(), observables)
        one_norm = max(observable.one_norm for observable in observables)
        for dtype, tolerance in TOLERANCE.items():
            values = BACKEND.expectations(circuit, x.to(dtype), w.to(dtype), observables).values
            assert values.dtype == dtype
            assert np.abs(values.double().numpy() - truth).max() < 5 * tolerance * one_norm, circuit


@DTYPES
@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("n_wires", [1, 2, 3])
def test_resets_equal_kraus_maps(n_wires: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(n_wires)
    for _ in range(10):
        circuit = random_circuit(rng, n_wires, 14, resets=True)
        inputs, weights = random_data(rng, circuit, 2)
        x, w = tensors(inputs, weights, dtype)
        observables = random_observables(rng, n_wires)
        rhos = [oracles.density(circuit, row, w.double().numpy()) for row in x.double().numpy()]
        wires = tuple(int(wire) for wire in rng.permutation(n_wires)[: max(1, n_wires - 1)])
        values = BACKEND.expectations(circuit, x, w, observables).values
        truth = oracles.expectations(circuit, x.double().numpy(), w.double().numpy(), observables)
        np.testing.assert_allclose(values.double().numpy(), truth, atol=TOLERANCE[dtype] * 50)
        density = BACKEND.density(circuit, x, w, wires).values
        reduced = [oracles.reduced(rho, wires) for rho in rhos]
        np.testing.assert_allclose(density.numpy(), reduced, atol=TOLERANCE[dtype] * 5)
        probabilities = BACKEND.probabilities(circuit, x, w, wires).values
        diagonals = [matrix.diagonal().real for matrix in reduced]
        np.testing.assert_allclose(probabilities.double().numpy(), diagonals, atol=TOLERANCE[dtype] * 5)


@DTYPES
def test_states_probabilities_and_densities_keep_the_callers_order_of_wires(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    for n_wires in (3, 4):
        circuit = random_circuit(rng, n_wires, 20)
        inputs, weights = random_data(rng, circuit, 3)
        x, w = tensors(inputs, weights, dtype)
        states = BACKEND.state(circuit, x, w).values.numpy()
        for row, state in zip(x.double().numpy(), states, strict=True):
            column = oracles.unitary(circuit, row, w.double().numpy())[:, 0]
            assert abs(np.vdot(column, state)) == pytest.approx(1, abs=TOLERANCE[dtype])
        for wires in ((2, 0), (1,), (0, 2, 1)):
            rhos = [oracles.density(circuit, row, w.double().numpy()) for row in x.double().numpy()]
            reduced = np.stack([oracles.reduced(rho, wires) for rho in rhos])
            density = BACKEND.density(circuit, x, w, wires).values
            np.testing.assert_allclose(density.numpy(), reduced, atol=TOLERANCE[dtype])
            diagonal = np.diagonal(reduced, axis1=1, axis2=2).real
            probabilities = BACKEND.probabilities(circuit, x, w, wires).values
            np.testing.assert_allclose(probabilities.numpy(), diagonal, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("n_wires", [3, 6, 7])
def test_batches_of_any_size_agree_with_single_calls(n_wires: int) -> None:
    """Small batches on wide circuits apply gate by gate, large ones on narrow circuits multiply matrices."""
    rng = np.random.default_rng(n_wires)
    circuit = random_circuit(rng, n_wires, 25)
    x, w = tensors(*random_data(rng, circuit, 70), torch.float64)
    observables = random_observables(rng, n_wires)
    together = BACKEND.expectations(circuit, x, w, observables).values
    for batch in (1, 3, 40):
        part = BACKEND.expectations(circuit, x[5 : 5 + batch], w, observables).values
        torch.testing.assert_close(part, together[5 : 5 + batch], atol=1e-12, rtol=0)


@pytest.mark.usefixtures("executor")
def test_values_along_the_circuit_equal_prefixes() -> None:
    rng = np.random.default_rng(11)
    for resets in (False, True):
        circuit = random_circuit(rng, 3, 10, resets=resets)
        x, w = tensors(*random_data(rng, circuit, 2), torch.float64)
        times = (0, 2, 2, len(circuit.ops) // 2, len(circuit.ops))
        along = BACKEND.expectations(circuit, x, w, (Z(0), X(1) @ Y(2)), after=times).values
        for position, time in enumerate(times):
            truth = oracles.expectations(circuit.prefix(time), x.numpy(), w.numpy(), (Z(0), X(1) @ Y(2)))
            np.testing.assert_allclose(along[:, position].numpy(), truth, atol=1e-12)


def test_samples_have_the_born_frequencies_and_their_seed_repeats_them() -> None:
    circuit = Circuit(3, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 2)), Op("x", (1,))))
    inputs = torch.tensor([[0.4], [2.0]])
    bits = BACKEND.samples(circuit, inputs, wires=(2, 1), shots=20000, seed=3).values
    assert bits.dtype == torch.uint8
    assert bits.shape == (2, 20000, 2)
    assert bool((bits[..., 1] == 1).all())
    p = torch.sin(inputs[:, 0] / 2) ** 2
    errors = (bits[..., 0].float().mean(1) - p).abs() / (p * (1 - p) / 20000).sqrt()
    assert bool((errors < 5).all())
    again, other = (BACKEND.samples(circuit, inputs, wires=(2, 1), shots=20000, seed=seed).values for seed in (3, 4))
    assert torch.equal(bits, again)
    assert not torch.equal(bits, other)


@KINDS
def test_entropy_of_products_is_zero_and_of_bell_and_ghz_states_log_2(kind: str) -> None:
    product = Circuit(3, tuple(Op("ry", (wire,), (0.3 + wire,)) for wire in range(3)))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        x = torch.zeros((1, 0), dtype=dtype)
        assert abs(BACKEND.entropy(product, x, wires=(1,), kind=kind).values.item()) < tolerance
        bell = BACKEND.entropy(BELL, x, wires=(1,), kind=kind).values.item()
        assert bell == pytest.approx(math.log(2), abs=tolerance)
        for cut in ((0,), (3,), (0, 1), (2, 4), (0, 1, 2), (4, 0, 2, 1)):
            value = BACKEND.entropy(ghz(5), x, wires=cut, kind=kind).values.item()
            assert value == pytest.approx(math.log(2), abs=tolerance), cut
        assert BACKEND.entropy(ghz(5), x, wires=range(5), kind=kind).values.item() == 0


@KINDS
def test_entropies_equal_the_oracle_and_obey_their_bounds(kind: str) -> None:
    rng = np.random.default_rng(2)
    for resets in (False, True):
        circuit = random_circuit(rng, 4, 30, resets=resets)
        x, w = tensors(*random_data(rng, circuit, 3), torch.float64)
        for wires in ((0,), (3, 1), (0, 1, 2), (0, 1, 2, 3)):
            values = BACKEND.entropy(circuit, x, w, wires, kind).values
            rhos = [oracles.reduced(oracles.density(circuit, row, w.numpy()), wires) for row in x.numpy()]
            np.testing.assert_allclose(values.numpy(), [ENTROPIES[kind](rho) for rho in rhos], atol=1e-10)
            assert bool((values >= 0).all())
            assert bool((values <= len(wires) * math.log(2)).all())
            von_neumann = BACKEND.entropy(circuit, x, w, wires).values
            renyi = BACKEND.entropy(circuit, x, w, wires, "renyi2").values
            assert bool((von_neumann >= renyi - 1e-12).all())


def test_mean_entropy_of_gaussian_states_is_pages() -> None:
    """Page 1993, Phys. Rev. Lett. 71, 1291: sum_{k=n+1}^{mn} 1/k - (m - 1)/(2n) for dimensions m <= n."""
    torch.manual_seed(0)
    amplitudes = torch.randn(2000, 64, dtype=torch.complex128)
    states = amplitudes / amplitudes.norm(dim=1, keepdim=True)
    for k in (1, 2, 3):
        m, n = 2**k, 2 ** (6 - k)
        page = sum(1 / j for j in range(n + 1, m * n + 1)) - (m - 1) / (2 * n)
        values = linalg.entropy(linalg.reduced_density(states, range(k)), "von_neumann")
        error = values.std().item() / math.sqrt(len(values))
        assert abs(values.mean().item() - page) < 4 * error
        rebuilt = states[:20, :, None] * states[:20, None, :].conj()
        torch.testing.assert_close(
            linalg.partial_trace(rebuilt, range(k)), linalg.reduced_density(states[:20], range(k)), rtol=0, atol=1e-14
        )


@KINDS
@DTYPES
def test_entropy_gradients_are_finite_at_product_and_maximally_mixed_states(kind: str, dtype: torch.dtype) -> None:
    circuit = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("rz", (1,), (Weight(0),))))
    inputs = torch.tensor([[0.0], [math.pi], [math.pi / 2], [1.0]], dtype=dtype, requires_grad=True)
    weights = torch.zeros(1, dtype=dtype, requires_grad=True)
    values = BACKEND.entropy(circuit, inputs, weights, (0,), kind).values
    x, w = torch.autograd.grad(values.sum(), (inputs, weights))
    assert bool(torch.isfinite(x).all())
    assert bool(torch.isfinite(w).all())
    p = math.cos(0.5) ** 2
    slope = {"von_neumann": math.log((1 - p) / p), "renyi2": -2 * (2 * p - 1) / (p**2 + (1 - p) ** 2)}[kind]
    # dS/dp times dp/dt, with p = cos(t/2)**2
    assert x[3].item() == pytest.approx(slope * -math.sin(1.0) / 2, rel=1e-5)
    assert abs(x[2].item()) < 1e-5
    assert abs(w.item()) < 1e-6


@KINDS
def test_second_derivatives_of_entropies_are_right(kind: str) -> None:
    def entropy(angle: Tensor) -> Tensor:
        circuit = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
        return BACKEND.entropy(circuit, angle, None, (0,), kind).values

    angle = torch.tensor([[0.8], [2.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(entropy, (angle,))


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("angle", [0.0, math.pi, math.pi / 2, -math.pi, 4 * math.pi])
def test_no_gradient_is_nan_at_special_angles(angle: float) -> None:
    rng = np.random.default_rng(3)
    circuit = random_circuit(rng, 3, 40)
    inputs = torch.full((2, circuit.n_inputs), angle, requires_grad=True)
    weights = torch.full((circuit.n_weights,), angle, requires_grad=True)
    values = BACKEND.expectations(circuit, inputs, weights, (Z(0), X(1) @ Y(2))).values
    density = BACKEND.density(circuit, inputs, weights, (1, 2)).values
    entropy = BACKEND.entropy(circuit, inputs, weights, (1,)).values
    total = values.sum() + density.abs().square().sum() + entropy.sum()
    for gradient in torch.autograd.grad(total, (inputs, weights)):
        assert bool(torch.isfinite(gradient).all())


def test_results_under_autocast_and_from_half_precision_are_float32_accurate() -> None:
    rng = np.random.default_rng(4)
    circuit = random_circuit(rng, 3, 15)
    x, w = tensors(*random_data(rng, circuit, 80), torch.float32)
    w.requires_grad_()
    truth = BACKEND.expectations(circuit, x.double(), w.double(), (Z(0), X(1))).values
    (exact,) = torch.autograd.grad(truth.sum(), w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = BACKEND.expectations(circuit, x, w, (Z(0), X(1))).values
        (gradient,) = torch.autograd.grad(cast.sum(), w)
        entropy = BACKEND.entropy(circuit, x, w, (0,)).values
    assert cast.dtype == torch.float32
    assert entropy.dtype == torch.float32
    torch.testing.assert_close(cast.double(), truth, atol=2e-5, rtol=0)
    torch.testing.assert_close(gradient, exact, atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(
        entropy.double(), BACKEND.entropy(circuit, x.double(), w.double(), (0,)).values, atol=5e-5, rtol=0
    )
    for half in (torch.float16, torch.bfloat16):
        coarse, coarse_w = x.to(half), w.detach().to(half)
        values = BACKEND.expectations(circuit, coarse, coarse_w, (Z(0),)).values
        same = BACKEND.expectations(circuit, coarse.float(), coarse_w.float(), (Z(0),)).values
        assert values.dtype == half
        assert torch.equal(values, same.to(half))


def test_wide_words_and_wide_circuits_need_no_wide_matrices() -> None:
    """The parity of 16 wires: 4**16 entries would not fit any memory."""
    circuit = Circuit(16, tuple(Op("ry", (wire,), (Input(0),)) for wire in range(16)))
    parity = pauli_word("Z" * 16, range(16))
    mixed = pauli_word("XZ" * 8, range(16))
    angle = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    values = BACKEND.expectations(circuit, angle, None, (parity, mixed)).values
    cos, sin = torch.cos(angle[:, 0]), torch.sin(angle[:, 0])
    torch.testing.assert_close(values, torch.stack((cos**16, (sin * cos) ** 8), 1), atol=1e-12, rtol=0)


def test_what_is_too_large_is_refused_with_a_remedy() -> None:
    reset = Circuit(13, Reset(0))
    with pytest.raises(ValueError, match="at most 12 wires here, got 13"):
        BACKEND.expectations(reset, None, None, (Z(0),))
    with pytest.raises(ValueError, match="at most 12 wires here, got 13"):
        BACKEND.expectations(reset, None, None, (Z(0),), after=(0,))
    with pytest.raises(ValueError, match="a density matrix expects at most 12 wires here, got 13"):
        BACKEND.density(Circuit(14), wires=range(13))
    with pytest.raises(ValueError, match="at most 26 wires, got 27, a state of 1 GiB"):
        BACKEND.probabilities(Circuit(27))
    with pytest.raises(ValueError, match="shots=None, got 10: it is exact"):
        BACKEND.expectations(BELL, None, None, (Z(0),), shots=10)

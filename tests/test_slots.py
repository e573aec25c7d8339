"""Slots as values, and the gather that turns them into angles, on numpy and torch, with gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import random_circuit, random_data, slot_value, slots_strategy

from circuits import Circuit, Input, Op, Product, Slot, Weight
from circuits.slots import as_slot, evaluate, leaves, scaled

NAN, INF = float("nan"), float("inf")

# The same constructors without their types, to be called wrongly.
LooseInput: Any = Input
LooseWeight: Any = Weight
LooseProduct: Any = Product


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: LooseInput(-1), ValueError, "Input expects an index of 0 or more, got -1; number Inputs from 0"),
        (lambda: LooseWeight(1.0), ValueError, "Weight expects an index of 0 or more, got 1.0; number Weights from 0"),
        (lambda: LooseWeight(True), ValueError, "Weight expects an index of 0 or more, got True"),
        (lambda: LooseInput(0, scale=NAN), ValueError, "Input expects a finite scale, got nan; drop the NaN"),
        (lambda: LooseProduct(Input(0), 1.0, shift=INF), ValueError, "Product expects a finite shift, got inf; drop"),
        (lambda: LooseWeight(0, scale="2"), TypeError, "Weight expects a number as scale, got str; pass a float"),
        (lambda: LooseProduct("x", 1.0), TypeError, "a slot expects Input, Weight, Product or a number, got str; data"),
        (lambda: as_slot("1.5"), TypeError, "a slot expects .* got str; data enter as Input"),
        (lambda: as_slot(True), TypeError, "a slot expects .* got bool; data enter"),
        (lambda: as_slot(torch.tensor(0.5)), TypeError, "a slot expects .* got Tensor; data enter .* Weight"),
        (lambda: as_slot(-INF), ValueError, "a slot expects a finite angle in radians, got -inf; drop the NaN"),
        (lambda: as_slot(10**400), ValueError, "a slot expects a finite angle in radians, got inf; drop"),
        (lambda: LooseWeight(0, 10**400), ValueError, "Weight expects a finite scale, got inf; drop"),
        (lambda: scaled(1e300, 1e300), ValueError, "a slot expects a finite angle in radians, got inf; drop"),
    ],
)
def test_slots_refuse(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()


def test_slots_store_plain_numbers_whatever_came() -> None:
    slot = LooseProduct(LooseInput(np.int64(1), scale=np.float32(2)), np.float64(0.5), shift=3)
    assert repr(slot) == "Product(Input(1, scale=2.0), 0.5, shift=3.0)"
    assert type(slot.shift) is float
    assert isinstance(slot.left, Input)
    assert (type(slot.left.index), type(slot.left.scale)) == (int, float)
    assert as_slot(np.int8(3)) == 3.0


@given(slots_strategy(), st.floats(-8, 8))
def test_scaled_multiplies_the_value(slot: Slot, factor: float) -> None:
    inputs, weights = np.array([0.3, -1.2, 2.5]), np.array([0.7, -0.1, 1.9, -2.2])
    expected = factor * slot_value(slot, inputs, weights)
    assert slot_value(scaled(slot, factor), inputs, weights) == pytest.approx(expected, rel=1e-12, abs=1e-9)
    assert leaves(scaled(slot, 1.0)) == leaves(slot)


def test_leaves_of_nested_products_stand_left_to_right() -> None:
    slot = Product(Product(Input(2), Weight(1)), Product(0.5, Product(Input(0), Input(2))))
    assert leaves(slot) == (Input(2), Weight(1), Input(0), Input(2))


# --- Angles -------------------------------------------------------------------------------------------------------

SEEDS = range(12)


def slow_angles(circuit: Circuit, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.array([[slot_value(slot, row, weights) for slot in circuit.slots] for row in inputs])


@pytest.mark.parametrize("seed", SEEDS)
def test_angles_equal_the_per_slot_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 4, 45, resets=bool(seed % 2))
    assert len({op.name for op in circuit.ops}) > 15
    inputs, weights = random_data(rng, circuit, 5)
    expected = slow_angles(circuit, inputs, weights)
    np.testing.assert_allclose(circuit.angles(inputs, weights), expected, rtol=1e-14, atol=1e-14)
    single = circuit.angles(torch.tensor(inputs, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=2e-5, atol=2e-5)
    wide = circuit.angles(np.pad(inputs, ((0, 0), (0, 2))), np.pad(weights, (0, 3)))  # more columns than are read
    np.testing.assert_array_equal(wide, circuit.angles(inputs, weights))


@given(st.lists(slots_strategy(), min_size=1, max_size=6))
def test_evaluate_equals_the_per_slot_oracle(slots: list[Slot]) -> None:
    inputs, weights = np.array([[0.3, -1.2, 2.5], [1.0, 0.0, -0.4]]), np.array([0.7, -0.1, 1.9, -2.2])
    expected = [[slot_value(slot, row, weights) for slot in slots] for row in inputs]
    np.testing.assert_allclose(evaluate(tuple(slots), inputs, weights), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_flow_through_shared_scaled_and_product_slots(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    circuit = random_circuit(rng, 3, 30)
    inputs, weights = random_data(rng, circuit, 3)
    x, w = torch.tensor(inputs, requires_grad=True), torch.tensor(weights, requires_grad=True)
    cotangent = rng.normal(size=(3, circuit.n_angles))
    circuit.angles(x, w).backward(torch.tensor(cotangent))

    def loss(shift_x: np.ndarray, shift_w: np.ndarray) -> float:
        return float((cotangent * slow_angles(circuit, inputs + shift_x, weights + shift_w)).sum())

    step = 1e-5  # angles are polynomials of low degree: central differences are exact to rounding here
    for tensor, at in ((x, 0), (w, 1)):
        numeric = np.zeros(tensor.shape)
        for where in np.ndindex(*tensor.shape):
            shifts = [np.zeros_like(inputs), np.zeros_like(weights)]
            shifts[at][where] = step
            numeric[where] = (loss(*shifts) - loss(*(-shift for shift in shifts))) / (2 * step)
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), numeric, rtol=1e-6, atol=1e-6)


def test_second_derivatives_of_a_product() -> None:
    slots = (Product(Input(0, scale=2.0), Product(Input(0), Weight(0), scale=3.0)),)
    assert torch.autograd.gradcheck(lambda x, w: evaluate(slots, x, w), tuple(_leaf(n) for n in ((2, 1), (1,))))
    assert torch.autograd.gradgradcheck(lambda x, w: evaluate(slots, x, w), tuple(_leaf(n) for n in ((2, 1), (1,))))


def _leaf(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.linspace(0.3, 0.9, int(np.prod(shape)), dtype=torch.float64).reshape(shape).requires_grad_()


@pytest.mark.parametrize("make", [np.zeros, torch.zeros], ids=["numpy", "torch"])
def test_a_batch_of_0_a_circuit_without_angles_and_one_of_numbers(make: Any) -> None:
    circuit = random_circuit(np.random.default_rng(1), 3, 40)
    weights = make(circuit.n_weights)
    assert tuple(circuit.angles(make((0, circuit.n_inputs)), weights).shape) == (0, circuit.n_angles)
    assert tuple(Circuit(1, (Op("h", (0,)),)).angles(make((4, 0)), make(0)).shape) == (4, 0)
    numbers = Circuit(1, (Op("rx", (0,), (0.5,)), Op("ry", (0,), (Product(2.0, 0.25),)))).angles(make((2, 0)), make(0))
    assert numbers.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("inputs", "weights", "kind", "message"),
    [
        (np.zeros(2), np.zeros(1), ValueError, r"expects inputs \(batch, 2\) and weights \(1,\), got shapes \(2,\)"),
        (np.zeros((1, 2)), np.zeros((1, 1)), ValueError, r"got shapes \(1, 2\) and \(1, 1\); reshape"),
        (np.zeros((1, 1)), np.zeros(1), ValueError, "expects at least 2 inputs and 1 weights, got 1 and 1; pass"),
        (np.zeros((1, 2)), np.zeros(0), ValueError, "expects at least 2 inputs and 1 weights, got 2 and 0; pass"),
        (np.zeros((1, 2), dtype=int), np.zeros(1), TypeError, "one floating dtype, got int64 and float64; convert"),
        (np.zeros((1, 2), dtype=np.float32), np.zeros(1), TypeError, "got float32 and float64; convert"),
    ],
)
def test_angles_refuse(inputs: Any, weights: Any, kind: type[Exception], message: str) -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Input(1),)), Op("ry", (0,), (Weight(0),))))
    with pytest.raises(kind, match=message):
        circuit.angles(inputs, weights)

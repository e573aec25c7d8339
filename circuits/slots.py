"""Slots: where an angle's value comes from, and the one gather that turns slots into angles.

Axis legend: b batch, i inputs, w weights, a angles. Angles are in radians.
"""

import math
import sys
from dataclasses import dataclass
from dataclasses import replace as _replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _check(kind: str, index: int, *numbers: float) -> None:
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
        raise ValueError(f"{kind} expects an index of 0 or more, got {index!r}; number {kind}s from 0.")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{kind}({index}) expects a finite scale and shift, got {numbers}; drop the NaN or infinity.")


@dataclass(frozen=True, slots=True)
class Input:
    """The angle ``scale * inputs[:, index] + shift``: differs per sample. Raises ValueError for a negative index.

    >>> Input(0, scale=2.0)
    Input(0, scale=2.0)
    """

    index: int
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _check("Input", self.index, self.scale, self.shift)

    def __repr__(self) -> str:
        return f"Input({self.index}{_affine(self)})"


@dataclass(frozen=True, slots=True)
class Weight:
    """The angle ``scale * weights[index] + shift``: shared by the batch. Raises ValueError for a negative index.

    >>> Weight(3, shift=0.5)
    Weight(3, shift=0.5)
    """

    index: int
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _check("Weight", self.index, self.scale, self.shift)

    def __repr__(self) -> str:
        return f"Weight({self.index}{_affine(self)})"


@dataclass(frozen=True, slots=True)
class Product:
    """The angle ``scale * left * right + shift`` of two slots, as in the ZZ feature map.

    >>> Product(Input(0), Weight(1), scale=2.0)
    Product(Input(0), Weight(1), scale=2.0)
    """

    left: "Slot"
    right: "Slot"
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", as_slot(self.left))
        object.__setattr__(self, "right", as_slot(self.right))
        _check("Product", 0, self.scale, self.shift)

    def __repr__(self) -> str:
        return f"Product({self.left!r}, {self.right!r}{_affine(self)})"


Slot = Input | Weight | Product | float


def _affine(slot: Input | Weight | Product) -> str:
    scale = f", scale={slot.scale!r}" if slot.scale != 1 else ""
    return scale + (f", shift={slot.shift!r}" if slot.shift != 0 else "")


def as_slot(value: object) -> Slot:
    """Return ``value`` as a slot: slots stay, finite numbers (numpy scalars too) become float; else TypeError.

    >>> as_slot(2)
    2.0
    """
    if isinstance(value, Input | Weight | Product):
        return value
    try:
        number = float(value)  # pyright: ignore[reportArgumentType] -- TypeError below tells the caller
    except (TypeError, ValueError):
        raise TypeError(
            f"a slot expects Input, Weight, Product or a number, got {type(value).__name__}; wrap data in Input(i)."
        ) from None
    if not math.isfinite(number):
        raise ValueError(f"a slot expects a finite angle in radians, got {number}; drop the NaN or infinity.")
    return number


def scaled(slot: Slot, factor: float) -> Slot:
    """Return the slot whose value is ``factor`` times the slot's value.

    >>> scaled(Input(0, shift=1.0), -2.0)
    Input(0, scale=-2.0, shift=-2.0)
    """
    if isinstance(slot, float):
        return slot * factor
    return _replace(slot, scale=slot.scale * factor, shift=slot.shift * factor)


def leaves(slot: Slot) -> tuple[Input | Weight, ...]:
    """Return the inputs and weights that a slot reads, left to right.

    >>> leaves(Product(Input(1), Product(Weight(0), 2.0)))
    (Input(1), Weight(0))
    """
    if isinstance(slot, float):
        return ()
    return leaves(slot.left) + leaves(slot.right) if isinstance(slot, Product) else (slot,)


@dataclass(frozen=True, slots=True)
class _Gather:
    """Angle columns as data: affine columns ``source[:, index] * scale + shift``, then columns of products."""

    index: NDArray[np.int64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    lefts: tuple[Slot, ...]
    rights: tuple[Slot, ...]
    product_scale: NDArray[np.float64]
    product_shift: NDArray[np.float64]
    order: NDArray[np.int64]


@lru_cache(maxsize=1024)
def _gather(slots: tuple[Slot, ...], n_inputs: int) -> _Gather:
    affine: list[tuple[int, float, float]] = []
    products: list[Product] = []
    order: list[int] = []
    n_affine = sum(not isinstance(slot, Product) for slot in slots)
    for slot in slots:
        if isinstance(slot, Product):
            order.append(n_affine + len(products))
            products.append(slot)
            continue
        order.append(len(affine))
        if isinstance(slot, float):
            affine.append((0, 0.0, slot))
        else:
            offset = 0 if isinstance(slot, Input) else n_inputs
            affine.append((slot.index + offset, slot.scale, slot.shift))
    index, scale, shift = zip(*affine, strict=True) if affine else ((), (), ())
    return _Gather(
        np.array(index, dtype=np.int64),
        np.array(scale, dtype=float),
        np.array(shift, dtype=float),
        tuple(product.left for product in products),
        tuple(product.right for product in products),
        np.array([product.scale for product in products]),
        np.array([product.shift for product in products]),
        np.array(order, dtype=np.int64),
    )


def _namespace(array: Any) -> Any:
    """The module an array comes from (numpy, torch, jax.numpy's package ...): both offer the array-API names used."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def evaluate(slots: tuple[Slot, ...], inputs: Any, weights: Any) -> Any:
    """Return the angles of ``slots``, shape (b, a), by one differentiable gather.

    ``inputs`` (b, i) and ``weights`` (w,) are numpy arrays or torch tensors of one kind, dtype and device. Cost O(b a).

    >>> evaluate((Input(1), 0.5, Product(Input(0), Weight(0))), np.array([[2.0, 3.0]]), np.array([4.0])).tolist()
    [[3.0, 0.5, 8.0]]
    """
    xp = _namespace(inputs)
    batch, n_inputs = inputs.shape
    plan = _gather(slots, n_inputs)

    def constant(array: NDArray[Any]) -> Any:
        return xp.asarray(array, dtype=inputs.dtype, device=inputs.device)

    source = xp.concat((inputs, xp.broadcast_to(weights, (batch, weights.shape[0]))), 1)
    if source.shape[1] == 0:
        columns = xp.broadcast_to(constant(plan.shift), (batch, len(plan.shift)))
    else:
        columns = source[:, plan.index] * constant(plan.scale) + constant(plan.shift)
    if not plan.lefts:
        return columns
    product = evaluate(plan.lefts, inputs, weights) * evaluate(plan.rights, inputs, weights)
    product = product * constant(plan.product_scale) + constant(plan.product_shift)
    return xp.concat((columns, product), 1)[:, plan.order]

"""Slots: where an angle's value comes from, and the one gather that turns slots into angles.

Axis legend: b batch, i inputs, w weights, a angles. Angles are in radians.
"""

import math
from dataclasses import dataclass
from dataclasses import replace as _replace
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuits._arrays import namespace, take


def _set_index(slot: "Input | Weight") -> None:
    kind, index = type(slot).__name__, slot.index
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
        raise ValueError(f"{kind} expects an index of 0 or more, got {index!r}; number {kind}s from 0.")
    object.__setattr__(slot, "index", int(index))


def _set_affine(slot: "Input | Weight | Product") -> None:
    """Check scale and shift and store them as plain floats, so that equal slots print and serialise alike."""
    kind = type(slot).__name__
    for field in ("scale", "shift"):
        value = getattr(slot, field)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{kind} expects a number as {field}, got {type(value).__name__}; pass a float.")
        number = _as_float(value)
        if not math.isfinite(number):
            raise ValueError(f"{kind} expects a finite {field}, got {number}; drop the NaN or infinity.")
        object.__setattr__(slot, field, number)


def _as_float(number: Real) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer beyond the largest float
        return math.inf


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
        _set_index(self)
        _set_affine(self)

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
        _set_index(self)
        _set_affine(self)

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
        _set_affine(self)

    def __repr__(self) -> str:
        return f"Product({self.left!r}, {self.right!r}{_affine(self)})"


Slot = Input | Weight | Product | float


def _affine(slot: Input | Weight | Product) -> str:
    scale = f", scale={slot.scale!r}" if slot.scale != 1 else ""
    return scale + (f", shift={slot.shift!r}" if slot.shift != 0 else "")


def as_slot(value: object) -> Slot:
    """Return ``value`` as a slot: slots stay, finite numbers (numpy scalars too) become float.

    Raises TypeError for anything else (a tensor would lose its gradient) and ValueError for NaN or infinity.

    >>> as_slot(2)
    2.0
    """
    if isinstance(value, Input | Weight | Product):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"a slot expects Input, Weight, Product or a number, got {type(value).__name__}; data enter as Input(i), "
            "trained values as Weight(j)."
        )
    number = _as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"a slot expects a finite angle in radians, got {number}; drop the NaN or infinity.")
    return number


def scaled(slot: Slot, factor: float) -> Slot:
    """Return the slot whose value is ``factor`` times the slot's value; ValueError where that is not finite.

    >>> scaled(Input(0, shift=1.0), -2.0)
    Input(0, scale=-2.0, shift=-2.0)
    """
    if isinstance(slot, float | int):
        return as_slot(slot * factor)
    return _replace(slot, scale=slot.scale * factor, shift=slot.shift * factor)


def leaves(slot: Slot) -> tuple[Input | Weight, ...]:
    """Return the inputs and weights that a slot reads, left to right.

    >>> leaves(Product(Input(1), Product(Weight(0), 2.0)))
    (Input(1), Weight(0))
    """
    if isinstance(slot, float | int):
        return ()
    return leaves(slot.left) + leaves(slot.right) if isinstance(slot, Product) else (slot,)


@dataclass(frozen=True, slots=True)
class _Affine:
    """Columns ``source[..., index] * scale + shift``."""

    index: NDArray[np.int64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def of_columns(self, source: Any) -> Any:
        """The columns, (b, k) or (k,), by as few operations as the numbers allow: most circuits only name columns."""
        count, xp = len(self.index), namespace(source)
        whole = count == source.shape[-1] and bool((self.index == np.arange(count)).all())
        columns = source if whole else take(source, self.index)
        if (self.scale != 1).any():
            columns = columns * xp.asarray(self.scale, dtype=source.dtype, device=source.device)
        if (self.shift != 0).any():
            columns = columns + xp.asarray(self.shift, dtype=source.dtype, device=source.device)
        return columns

    @staticmethod
    def of(slots: list[Any]) -> "_Affine":
        return _Affine(
            np.array([slot.index for slot in slots], dtype=np.int64),
            np.array([slot.scale for slot in slots]),
            np.array([slot.shift for slot in slots]),
        )


@dataclass(frozen=True, slots=True)
class _Gather:
    """Angle columns as data, by kind; ``order[k]`` is where column k of the angles stands among them."""

    inputs: _Affine
    weights: _Affine
    numbers: NDArray[np.float64]
    products: _Affine
    lefts: tuple[Slot, ...]
    rights: tuple[Slot, ...]
    order: NDArray[np.int64]
    in_order: bool


@lru_cache(maxsize=1024)
def _gather(slots: tuple[Slot, ...]) -> _Gather:
    kinds = (Input, Weight, float, Product)
    columns = [[k for k, slot in enumerate(slots) if isinstance(slot, kind)] for kind in kinds]
    inputs, weights, numbers, products = ([slots[k] for k in column] for column in columns)
    order = np.argsort(np.array([k for column in columns for k in column], dtype=np.int64))
    pairs = [product for product in products if isinstance(product, Product)]
    return _Gather(
        _Affine.of(inputs),
        _Affine.of(weights),
        np.array(numbers, dtype=float),
        _Affine(np.arange(len(pairs)), *np.array([(pair.scale, pair.shift) for pair in pairs]).reshape(-1, 2).T),
        tuple(pair.left for pair in pairs),
        tuple(pair.right for pair in pairs),
        order,
        bool(np.all(order == np.arange(len(order)))),
    )


def evaluate(slots: tuple[Slot, ...], inputs: Any, weights: Any) -> Any:
    """Return the angles of ``slots``, shape (b, a), by one differentiable gather.

    ``inputs`` (b, i) and ``weights`` (w,) are numpy arrays or torch tensors of one kind, dtype and device. Slots that
    read no input may be evaluated once for a whole batch, with inputs of shape (1, 0). Cost O(b a).

    >>> evaluate((Input(1), 0.5, Product(Input(0), Weight(0))), np.array([[2.0, 3.0]]), np.array([4.0])).tolist()
    [[3.0, 0.5, 8.0]]
    """
    xp = namespace(inputs)
    batch = inputs.shape[0]
    plan = _gather(slots)

    parts = [plan.inputs.of_columns(inputs)] if len(plan.inputs.index) else []
    if len(plan.weights.index):
        parts.append(xp.broadcast_to(plan.weights.of_columns(weights), (batch, len(plan.weights.index))))
    if len(plan.numbers):
        numbers = xp.asarray(plan.numbers, dtype=inputs.dtype, device=inputs.device)
        parts.append(xp.broadcast_to(numbers, (batch, len(plan.numbers))))
    if plan.lefts:
        product = evaluate(plan.lefts, inputs, weights) * evaluate(plan.rights, inputs, weights)
        parts.append(plan.products.of_columns(product))
    if not parts:
        return inputs[:, :0]
    columns = parts[0] if len(parts) == 1 else xp.concat(parts, 1)
    return columns if plan.in_order else take(columns, plan.order)

"""Slots: where an angle's value comes from, and the one gather that turns slots into angles.

Axis legend: b batch, i inputs, w weights, a angles. Angles are in radians.
"""

import math
from collections.abc import Sequence
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


class _Affine:
    """Columns ``source[..., index] * scale + shift`` by as few operations as the numbers allow."""

    def __init__(self, slots: Sequence[Any]) -> None:
        self.index = np.array([slot.index for slot in slots], dtype=np.int64)
        self.scale = np.array([slot.scale for slot in slots], dtype=float)
        self.shift = np.array([slot.shift for slot in slots], dtype=float)
        self.in_order = bool((self.index == np.arange(len(slots))).all())
        self.is_distinct = len(set(self.index.tolist())) == len(slots)
        self.is_scaled, self.is_shifted = bool((self.scale != 1).any()), bool((self.shift != 0).any())

    def __len__(self) -> int:
        return len(self.index)

    def of(self, source: Any) -> Any:
        """The columns, (b, k) or (k,)."""
        columns = source if self.in_order and source.shape[-1] == len(self) else take(source, self.index)
        if self.is_scaled:
            columns = columns * _like(source, self.scale)
        return columns + _like(source, self.shift) if self.is_shifted else columns

    def pull(self, slopes: NDArray, source: NDArray) -> NDArray:
        """The slopes of ``source``, in its shape, from those of the columns; weights' are summed over samples."""
        if self.is_scaled:
            slopes = slopes * self.scale.astype(slopes.dtype)
        if source.ndim == 1:
            # in double precision: numpy adds rows up one by one, and in single a million of them lose three digits
            slopes = slopes[0] if len(slopes) == 1 else slopes.sum(0, dtype=np.float64).astype(slopes.dtype)
        if self.in_order and source.shape[-1] == len(self):
            return slopes
        made = np.zeros_like(source)
        if self.is_distinct:
            made[..., self.index] = slopes
        else:
            np.add.at(made.T, self.index, slopes.T)
        return made


def _like(source: Any, numbers: NDArray[np.float64]) -> Any:
    return namespace(source).asarray(numbers, dtype=source.dtype, device=source.device)


def _rows(numbers: Any, batch: int) -> Any:
    """Numbers (k,) for each sample, (b, k)."""
    return numbers[None] if batch == 1 else namespace(numbers).broadcast_to(numbers, (batch, len(numbers)))


class Gather:
    """The angles of some slots as one differentiable gather, worked out once: ``gather(inputs, weights)``.

    >>> Gather((Input(1), 0.5, Product(Input(0), Weight(0))))(np.array([[2.0, 3.0]]), np.array([4.0])).tolist()
    [[3.0, 0.5, 8.0]]
    """

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        kinds = (Input, Weight, float, Product)
        columns = [[k for k, slot in enumerate(slots) if isinstance(slot, kind)] for kind in kinds]
        inputs, weights, numbers, products = ([slots[k] for k in column] for column in columns)
        pairs = [product for product in products if isinstance(product, Product)]
        self._inputs, self._weights = _Affine(inputs), _Affine(weights)
        self._numbers = np.array(numbers, dtype=float)
        self._products = _Affine([Input(k, pair.scale, pair.shift) for k, pair in enumerate(pairs)])
        self._lefts = Gather(tuple(pair.left for pair in pairs)) if pairs else None
        self._rights = Gather(tuple(pair.right for pair in pairs)) if pairs else None
        self._order = np.argsort(np.array([k for column in columns for k in column], dtype=np.int64))
        self._in_order = bool(np.all(self._order == np.arange(len(slots))))

    def __call__(self, inputs: Any, weights: Any) -> Any:
        """Return the angles (b, a) of inputs (b, i) and weights (w,), arrays of one kind, dtype and device."""
        xp, batch = namespace(inputs), inputs.shape[0]
        parts = [self._inputs.of(inputs)] if len(self._inputs) else []
        if len(self._weights):
            parts.append(_rows(self._weights.of(weights), batch))
        if len(self._numbers):
            parts.append(_rows(_like(inputs, self._numbers), batch))
        if self._lefts is not None and self._rights is not None:
            parts.append(self._products.of(self._lefts(inputs, weights) * self._rights(inputs, weights)))
        if not parts:
            return inputs[:, :0]
        columns = parts[0] if len(parts) == 1 else xp.concat(parts, 1)
        return columns if self._in_order else take(columns, self._order)

    def pull(
        self, inputs: NDArray, weights: NDArray, slopes: NDArray
    ) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return the slopes of inputs (b, i) and weights (w,) from those of the angles (b, a); None for those unread.

        >>> pulled = Gather((Input(0), Weight(0))).pull(np.zeros((2, 1)), np.zeros(1), np.array([[1.0, 2.0], [3, 4]]))
        >>> [slopes.tolist() for slopes in pulled]
        [[[1.0], [3.0]], [6.0]]
        """
        if not self._in_order:
            slopes = slopes[:, np.argsort(self._order)]
        n_inputs, n_weights = len(self._inputs), len(self._weights)
        found = (
            self._inputs.pull(slopes[:, :n_inputs], inputs) if n_inputs else None,
            self._weights.pull(slopes[:, n_inputs : n_inputs + n_weights], weights) if n_weights else None,
        )
        if self._lefts is None or self._rights is None:
            return found
        made = self._products.pull(slopes[:, n_inputs + n_weights + len(self._numbers) :], self._lefts(inputs, weights))
        for one, other in ((self._lefts, self._rights), (self._rights, self._lefts)):
            more = one.pull(inputs, weights, made * other(inputs, weights))
            found = added(found[0], more[0]), added(found[1], more[1])
        return found


def added(one: NDArray[Any] | None, other: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the sum of two parts, of which either may be None: nothing.

    >>> added(None, np.ones(1)).tolist()
    [1.0]
    """
    return one if other is None else other if one is None else one + other


@lru_cache(maxsize=1024)
def gather(slots: tuple[Slot, ...]) -> Gather:
    """Return the gather of some slots, kept for those that were asked for lately."""
    return Gather(slots)


def evaluate(slots: tuple[Slot, ...], inputs: Any, weights: Any) -> Any:
    """Return the angles of ``slots``, shape (b, a), by one differentiable gather.

    ``inputs`` (b, i) and ``weights`` (w,) are numpy arrays or torch tensors of one kind, dtype and device. Slots that
    read no input may be evaluated once for a whole batch, with inputs of shape (1, 0). Cost O(b a).

    >>> evaluate((Input(1), 0.5, Product(Input(0), Weight(0))), np.array([[2.0, 3.0]]), np.array([4.0])).tolist()
    [[3.0, 0.5, 8.0]]
    """
    return gather(slots)(inputs, weights)

"""Exponentials that compiled loops run on several lanes at once: plain arithmetic, no call of a library.

`exp(x)` and `growth(x)` are for compiled code, in float32 and float64. Without Intel's vector library, numba turns
`np.exp` in a loop into one call of the C library for each element, ten times the time.

Method: e^x = 2^k e^r with k the integer nearest to x / ln 2 and |r| <= ln 2 / 2; r is x minus k ln 2 in two parts, and
e^r - 1 = r + r^2 P(r), P interpolating at Chebyshev nodes. 2^k is applied in two factors, so that results are right
down to the smallest subnormal number and up to infinity. NaN stays NaN. Errors are below 1.5 units in the last place.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.polynomial import chebyshev

_STRICT: Any = {"fastmath": {"contract"}}
"""The reduction of the argument must not be reordered, whatever the calling loop allows; fused products are welcome."""


def exp(x) -> Any:
    """e^x; compiled code only."""
    raise NotImplementedError(f"exp is for compiled code, got a call from Python with {x}: use numpy.exp.")


def growth(x) -> Any:
    """The pair e^x and (e^x - 1) / x, accurate around 0, where the second is 1; compiled code only."""
    raise NotImplementedError(f"growth is for compiled code, got a call from Python with {x}: use numpy.expm1.")


def growth_slope(x, power, mean) -> Any:
    """The derivative of (e^x - 1) / x, given `power, mean = growth(x)`; compiled code only."""
    raise NotImplementedError(f"growth_slope is for compiled code, got a call from Python with {x, power, mean}.")


class _Format(NamedTuple):
    """One precision: its numbers, the limits outside which e^x is 0 or infinite, and how long its polynomials are."""

    number: type[np.floating]
    bits: int
    mantissa: int
    lowest: float
    highest: float
    degree: int
    n_slopes: int

    @property
    def shift(self) -> np.floating:
        """Adding it rounds to an integer, which the last bits of the sum then hold."""
        return self.number(1.5 * 2**self.mantissa)

    def polynomial(self) -> tuple:
        """P(r) ~ (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, lowest coefficient first."""
        half = math.log(2) / 2
        nodes = np.cos(np.pi * (np.arange(self.degree + 1) + 0.5) / (self.degree + 1))
        values = [math.fsum((half * s) ** k / math.factorial(k + 2) for k in range(20)) for s in nodes]
        powers = chebyshev.cheb2poly(chebyshev.chebfit(nodes, np.array(values), self.degree))
        return tuple(self.number(c / half**k) for k, c in enumerate(powers))

    def slopes(self) -> tuple:
        """The series of the derivative of (e^x - 1) / x at 0, lowest coefficient first."""
        return tuple(self.number((k + 1) / math.factorial(k + 2)) for k in range(self.n_slopes))

    def logarithm(self) -> tuple:
        """ln 2 as a short number, whose products with k are exact, and what is missing."""
        upper = math.floor(math.log(2) * 2**9) / 2**9 if self.bits == 32 else math.floor(math.log(2) * 2**32) / 2**32
        return self.number(upper), self.number(math.log(2) - upper + 2.3190468138462996e-17)  # float64's rounding


_FORMATS = {
    types.float32: _Format(np.float32, 32, 23, -104.0, 89.0, 4, 9),
    types.float64: _Format(np.float64, 64, 52, -746.0, 710.5, 10, 15),
}


def _scaling(context, value, shifted):  # noqa: ARG001 (the context comes first by numba's protocol)
    """value 2^k, where `shifted` is k plus the shift of its precision."""
    form = _FORMATS[value]

    def generate(_, builder, __, arguments):
        word, number = ir.IntType(form.bits), arguments[0].type
        origin = int.from_bytes(form.shift.tobytes(), "little")
        k = builder.sub(builder.bitcast(arguments[1], word), ir.Constant(word, origin))
        half = builder.ashr(k, ir.Constant(word, 1))
        result = arguments[0]
        for part in (half, builder.sub(k, half)):
            exponent = builder.add(part, ir.Constant(word, 2 ** (form.bits - form.mantissa - 2) - 1))
            factor = builder.bitcast(builder.shl(exponent, ir.Constant(word, form.mantissa)), number)
            result = builder.fmul(result, factor)
        return result

    return value(value, value), generate


_times_power: Any = intrinsic(_scaling)


def _reduced(x) -> Any:
    """k plus the shift, and e^r - 1."""
    raise NotImplementedError(f"_reduced is for compiled code, got a call from Python with {x}.")


@overload(_reduced, jit_options=_STRICT)
def _(x):
    form = _FORMATS[x]
    shift, per_octave = form.shift, form.number(1 / math.log(2))
    lowest, highest = form.number(form.lowest), form.number(form.highest)
    (upper, lower), polynomial = form.logarithm(), form.polynomial()

    def reduced(x):
        near = lowest if x < lowest else x  # in this order, so that NaN stays
        near = highest if near > highest else near
        shifted = near * per_octave + shift
        k = shifted - shift
        r = (near - k * upper) - k * lower
        total = polynomial[-1]
        for c in polynomial[-2::-1]:
            total = total * r + c
        return shifted, r + r * r * total

    return reduced


@overload(exp, jit_options=_STRICT)
def _(x):
    one = _FORMATS[x].number(1)

    def compiled(x):
        shifted, more = _reduced(x)
        return _times_power(one + more, shifted)

    return compiled


@overload(growth, jit_options=_STRICT)
def _(x):
    one, zero = _FORMATS[x].number(1), _FORMATS[x].number(0)

    def compiled(x):
        shifted, more = _reduced(x)
        power, scale = _times_power(one + more, shifted), _times_power(one, shifted)
        change = more * scale + (scale - one) if abs(x) < one else power - one
        return power, (change / x if x != zero else one)

    return compiled


@overload(growth_slope, jit_options=_STRICT)
def _(x, power, mean):  # noqa: ARG001 (numba calls with the operands' types)
    half, slopes = _FORMATS[x].number(0.5), _FORMATS[x].slopes()

    def compiled(x, power, mean):
        total = slopes[-1]
        for c in slopes[-2::-1]:
            total = total * x + c
        return (power - mean) / x if abs(x) > half else total

    return compiled

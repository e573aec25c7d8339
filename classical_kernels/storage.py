"""Elements of arrays as the number type in which kernels compute: bfloat16 and float16 are widened as they are read.

`load(array, i)` and `store(array, i, value)` are for compiled code. Arrays of float32, float64, complex64 and
complex128 are read as they are; uint16 holds the bits of bfloat16 and int16 those of float16, both read as float32 and
rounded to nearest, ties to even, when written.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

_WORD, _HALF_WORD = ir.IntType(32), ir.IntType(16)


def load(array, i):
    """The element `i` of `array`, widened; compiled code only."""
    raise NotImplementedError(f"load is for compiled code, got a call from Python for element {i} of {type(array)}.")


def store(array, i, value):
    """Write `value`, rounded to what `array` holds, to element `i`; compiled code only."""
    raise NotImplementedError(
        f"store is for compiled code, got a call from Python for element {i} of {type(array)} and {value}."
    )


@overload(load, inline="always")
def _load(array, i):  # noqa: ARG001 (numba calls with the operands' types)
    widen: Any = {types.uint16: _from_bfloat16, types.int16: _from_float16}.get(array.dtype)
    if widen is None:
        return lambda array, i: array[i]
    return lambda array, i: widen(array[i])


@overload(store, inline="always")
def _store(array, i, value):  # noqa: ARG001 (numba calls with the operands' types)
    narrow: Any = {types.uint16: _to_bfloat16, types.int16: _to_float16}.get(array.dtype)

    def plain(array, i, value):
        array[i] = value

    def rounded(array, i, value):
        array[i] = narrow(value)

    return plain if narrow is None else rounded


# The typing context comes first by numba's protocol.
@intrinsic
def _from_bfloat16(context, bits):  # noqa: ARG001 (the context comes first by numba's protocol)
    def generate(_, builder, __, arguments):
        wide = builder.shl(builder.zext(arguments[0], _WORD), ir.Constant(_WORD, 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _to_bfloat16(context, value):  # noqa: ARG001 (the context comes first by numba's protocol)
    def generate(_, builder, __, arguments):
        bits = builder.bitcast(arguments[0], _WORD)
        odd = builder.and_(builder.lshr(bits, ir.Constant(_WORD, 16)), ir.Constant(_WORD, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(_WORD, 0x7FFF)), odd)
        quiet = builder.or_(bits, ir.Constant(_WORD, 0x400000))  # a NaN whose payload must not round to infinity
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.lshr(builder.select(is_nan, quiet, rounded), ir.Constant(_WORD, 16)), _HALF_WORD)

    return types.uint16(types.float32), generate


@intrinsic
def _from_float16(context, bits):  # noqa: ARG001 (the context comes first by numba's protocol)
    def generate(_, builder, __, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), generate


@intrinsic
def _to_float16(context, value):  # noqa: ARG001 (the context comes first by numba's protocol)
    def generate(_, builder, __, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), _HALF_WORD)

    return types.int16(types.float32), generate

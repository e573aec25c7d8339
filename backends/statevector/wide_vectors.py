"""A SIMD type for numba: rows of 16 numbers, in registers between load and store.

The compiler does not vectorise loops of 16 over arrays that may overlap; with a type of their own there is nothing to
guess, and kernels stay readable: ``store(re, at, c * load(re, at) - s * load(im, at))``. LLVM splits a row into what
the machine has (two AVX2 registers of float32, one of AVX-512).
"""

# ruff: noqa: ARG001 -- numba calls what generates code with arguments that not all of it reads

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

LANE_BITS = 4
LANES = 1 << LANE_BITS
"""Numbers of a row: a cache line of float32."""
_FLAGS = ("reassoc", "contract", "nsz", "arcp")
_BLOCK = 8  # numbers of a side of what ``transpose`` moves at once: as many as AVX2 registers hold


class Vector(types.Type):
    """A row of 16 numbers of one kind."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        super().__init__(name=f"Vector({scalar})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(dmm.lookup(fe_type.scalar).get_value_type(), LANES))


_KINDS = tuple(Vector(scalar) for scalar in (types.float32, types.float64))
_CASES = [signature(kind, kind, kind) for kind in _KINDS]


def _intrinsic(generator: Callable[..., Any]) -> Callable[..., Any]:
    """What compiled code may call; in there the first parameter, numba's own, is left out."""
    return intrinsic(generator)


def _arithmetic(python_operator, name: str) -> None:
    """Teach numba one operator between vectors."""
    register: Any = infer_global(python_operator)
    register(type(name, (ConcreteTemplate,), {"cases": _CASES}))

    def generate(context, builder, sig, args):
        return getattr(builder, name)(*args, flags=_FLAGS)

    for kind in _KINDS:
        lower_builtin(python_operator, kind, kind)(generate)


for _operator, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _arithmetic(_operator, _name)


def _address(context, builder, array_type, array, at, n_numbers: int):
    """A pointer to a vector in an array, and its alignment in bytes."""
    data = context.make_array(array_type)(context, builder, array).data
    number = context.get_data_type(array_type.dtype)
    pointer = builder.bitcast(builder.gep(data, [at]), ir.VectorType(number, n_numbers).as_pointer())
    return pointer, array_type.dtype.bitwidth // 8


def _shuffle(builder, first, second, places):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
    return builder.shuffle_vector(first, second, mask)


@_intrinsic
def load(typingctx, array, at):
    """The 16 numbers of an array from number ``at``."""

    def generate(context, builder, sig, args):
        pointer, align = _address(context, builder, sig.args[0], args[0], args[1], LANES)
        return builder.load(pointer, align=align)

    return Vector(array.dtype)(array, types.intp), generate


@_intrinsic
def store(typingctx, array, at, vector):
    """Write 16 numbers to an array from number ``at``."""

    def generate(context, builder, sig, args):
        pointer, align = _address(context, builder, sig.args[0], args[0], args[1], LANES)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_intrinsic
def splat(typingctx, number):
    """A number 16 times."""

    def generate(context, builder, sig, args):
        vector = ir.VectorType(args[0].type, LANES)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return _shuffle(builder, first, first, [0] * LANES)

    return Vector(number)(number), generate


@_intrinsic
def total(typingctx, vector):
    """The sum of a vector, in pairs."""

    def generate(context, builder, sig, args):
        left = args[0]
        width = LANES
        while width > 1:
            width //= 2
            halves = (_shuffle(builder, left, left, range(k * width, (k + 1) * width)) for k in range(2))
            left = builder.fadd(*halves, flags=_FLAGS)
        return builder.extract_element(left, ir.Constant(ir.IntType(32), 0))

    return vector.scalar(vector), generate


@_intrinsic
def transpose(typingctx, source, source_at, sources, target, target_at, targets):
    """``target[target_at + targets[j] + i] = source[source_at + sources[i] + j]`` for i and j below 8."""

    def generate(context, builder, sig, args):
        source, source_at, sources, target, target_at, targets = args

        def offset(which: int, table, at, k: int):
            data = context.make_array(sig.args[which])(context, builder, table).data
            return builder.add(at, builder.load(cgutils.gep_inbounds(builder, data, k)))

        rows = []
        for k in range(_BLOCK):
            at = offset(2, sources, source_at, k)
            pointer, align = _address(context, builder, sig.args[0], source, at, _BLOCK)
            rows.append(builder.load(pointer, align=align))
        rows = _transposed(builder, rows)
        for k in range(_BLOCK):
            at = offset(5, targets, target_at, k)
            pointer, align = _address(context, builder, sig.args[3], target, at, _BLOCK)
            builder.store(rows[k], pointer, align=align)
        return context.get_dummy_value()

    args = source, types.intp, sources, target, types.intp, targets
    return types.void(*args), generate


def _transposed(builder, rows: list) -> list:
    """Exchange bit after bit of row and column numbers: three rounds of two-vector shuffles."""
    for bit in (1, 2, 4):
        lower = [j if not j & bit else j - bit + _BLOCK for j in range(_BLOCK)]
        upper = [j + bit if not j & bit else j + _BLOCK for j in range(_BLOCK)]
        made = list(rows)
        for k in range(_BLOCK):
            if not k & bit:
                made[k] = _shuffle(builder, rows[k], rows[k | bit], lower)
                made[k | bit] = _shuffle(builder, rows[k], rows[k | bit], upper)
        rows = made
    return rows

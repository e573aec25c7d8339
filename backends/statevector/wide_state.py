"""One state of a large circuit: its planes, its passes spread over threads, and the way back with the bra.

Axis legend: N = 2**n amplitudes, a angles, w words, t stretches between measurements, i instructions.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.statevector import jit, wide_interpreter
from backends.statevector.wide_fusing import WideNumbers, start_slopes
from backends.statevector.wide_interpreter import BACKWARD, FORWARD, MEASURE, OBSERVE
from backends.statevector.wide_lowering import WideProgram
from backends.statevector.wide_schedule import MATRIX, Pass
from backends.statevector.wide_vectors import LANE_BITS
from backends.statevector.words import Words
from classical_kernels.threads import run_blocks, thread_count

_LOG = logging.getLogger(__name__)
Array = NDArray[Any]
_NONE = np.empty((0, 10), np.int64), np.empty(0, np.int64), np.empty((0, 0, 0))
"""What a mode does not read or write: numbers in rows, numbers, results."""


class WideState:
    """A program at one sample's numbers, in their precision.

    ``ket`` (2, N), real parts and imaginary ones, holds the state where the last call left it. On the way back the bra
    takes as much.
    """

    def __init__(self, program: WideProgram, numbers: WideNumbers) -> None:
        self.program, self.numbers, self.kind = program, numbers, numbers.matrices.dtype
        self.ket = np.empty((2, 1 << program.n_wires), self.kind)
        self.n_chunks = 1 << (program.n_wires - program.row_bits - LANE_BITS)
        self.threads = thread_count(1 << program.n_wires)
        columns = self.numbers.columns
        self._columns = columns.view(np.float64).reshape(-1, 4).astype(self.kind)
        self.bra = np.empty((2, 0), self.kind)

    def forward(self, words: Sequence[Words] = ()) -> list[NDArray[np.float64]]:
        """Prepare the state; return the expectations (w,) of the words of each stretch, where there are any."""
        values = []
        for number, stretch in enumerate(self.program.stretches):
            for at, passed in enumerate(stretch):
                self._pass(FORWARD, passed, self._columns if not number and not at else self._columns[:0])
            if words:
                values.append(self._measure(words[number]))
        return values

    def write(self) -> Array:
        """The state as complex numbers, real and imaginary parts in turn: (N, 2)."""
        return np.ascontiguousarray(self.ket.T)

    def slopes_of_values(self, words: Sequence[Words], cotangents: Sequence[Array]) -> NDArray[np.float64]:
        """The gradient (a,) for cotangents (w,) of each stretch's words; uncomputes the state."""
        self.bra = np.zeros_like(self.ket)
        slopes = _Slopes(self)
        for number in reversed(range(len(self.program.stretches))):
            self._run(OBSERVE, words=(words[number].masks, words[number].n_diagonal, cotangents[number]))
            self._retreat(number, slopes)
        return slopes.finished(self.bra)

    def slopes_of_state(self, cotangent: Array) -> NDArray[np.float64]:
        """The gradient (a,) for the state's cotangent (N, 2); uncomputes the state.

        ``dL = Re <c|d psi> = 2 Re <bra|d psi>``.
        """
        self.bra = np.multiply(cotangent.T, self.kind.type(0.5), order="C")
        slopes = _Slopes(self)
        self._retreat(0, slopes)
        return slopes.finished(self.bra)

    def _retreat(self, number: int, slopes: "_Slopes") -> None:
        for passed in reversed(self.program.stretches[number]):
            slopes.add(passed.code, self._pass(BACKWARD, passed, self._columns[:0]))

    def _pass(self, mode: int, passed: Pass, columns: Array) -> Array:
        slopes = np.zeros((self.n_chunks, len(passed.code), 3))
        bits = passed.rows, passed.lanes, passed.outer
        self._run(mode, bits, passed.code, (passed.places, passed.flips), columns, out=slopes)
        return slopes.sum(0)

    def _measure(self, words: Words) -> NDArray[np.float64]:
        values = np.zeros((self.n_chunks, len(words.masks), 1))
        self._run(MEASURE, words=(words.masks, words.n_diagonal, np.empty(0, self.kind)), out=values)
        return values.sum((0, 2))

    def _run(
        self,
        mode: int,
        bits: tuple[Array, Array, Array] | None = None,
        code: Array = _NONE[0],
        frame: tuple[Array, Array] = (_NONE[1], _NONE[1]),
        columns: Array | None = None,
        words: tuple[Array, int, Array] | None = None,
        out: Array = _NONE[2],
    ) -> None:
        """Spread the chunks over threads; what a mode does not read is passed empty."""
        numbers, kind = self.numbers, self.kind
        arguments = (
            mode,
            (self.ket, self.bra),
            _no_bits(self.program.row_bits) if bits is None else bits,
            code,
            frame,
            (numbers.inverses if mode == BACKWARD else numbers.matrices, numbers.half),
            self._columns[:0] if columns is None else columns,
            (_NONE[0], 0, np.empty(0, kind)) if words is None else words,
            out,
        )
        _announce()
        run_blocks(lambda first, last: wide_interpreter.run(first, last, *arguments), self.n_chunks, self.threads)


class _Slopes:
    """Slopes of a program's matrices, and of its angles."""

    def __init__(self, state: WideState) -> None:
        self._program, self._numbers = state.program, state.numbers
        self._matrices = np.zeros((len(state.program.bounds) - 1, 3))
        self._angles = np.zeros(len(state.numbers.half))

    def add(self, code: Array, slopes: NDArray[np.float64]) -> None:
        """Take the slopes (i, 3) of a pass's instructions."""
        matrix = code[:, 0] == MATRIX
        self._matrices[code[matrix, 5]] = slopes[matrix]
        np.add.at(self._angles, code[~matrix, 5], slopes[~matrix, 0])  # those of CZ are 0

    def finished(self, bra: Array) -> NDArray[np.float64]:
        """The gradient (a,), with what the product state of the bra's last place contributes."""
        start, bounds, factors = self._program.start, self._program.bounds, self._program.factors
        started = start >= 0
        if started.any():
            self._matrices[start[started]] = start_slopes(self._numbers.columns, bra)[started]
        number = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        along = (self._numbers.axes * self._matrices[number]).sum(1)
        rotations = factors[:, 0] > 0
        np.add.at(self._angles, factors[rotations, 1], along[rotations])
        return self._angles


@lru_cache(maxsize=64)
def _no_bits(row_bits: int) -> tuple[Array, Array, Array]:
    return tuple(np.zeros(size, np.int64) for size in (row_bits, LANE_BITS, 0))  # pyright: ignore[reportReturnType] -- three


@lru_cache(maxsize=1)
def _announce() -> None:
    """Say, before the first call, that it takes long where nothing was compiled yet."""
    if not jit.is_kept(wide_interpreter.run):
        _LOG.warning("compiling the kernels of large states for this machine, once; this takes half a minute")

"""A program's numbers for one batch, laid out for the interpreter, and its blocks spread over threads.

Axis legend: B samples in blocks of V lanes (b blocks), l lane angles, s shared ones, w words, t times, o observables,
N amplitudes.
"""

import logging
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.statevector import interpreter, jit
from backends.statevector.fusing import Fused
from backends.statevector.program import Program
from backends.statevector.reading import NO_READING, Reading
from backends.statevector.words import Words
from classical_kernels.threads import run_blocks, thread_count

_LOG = logging.getLogger(__name__)
_LANES = (128, 128, 128, 128, 128, 128, 64, 32, 32, 32, 16, 16, 16, 16, 8, 8, 4)
"""Samples of a block by number of wires: measured; wide enough for the arithmetic, small enough for the cache."""
MAX_WIRES = len(_LANES) - 1
"""Above, permutations as tables would outgrow the caches."""

_KEPT = 1 << 26
"""Bytes of final states that wait for the way back."""

Array = NDArray[Any]


class Batch:
    """A program at angles of lanes (B, l) and shared ones (1, s), in their precision, float32 or float64.

    What computes the final states leaves them in ``kept``, if that is room for them; ``slopes`` takes them from there,
    and else computes them again.
    """

    def __init__(self, program: Program, lanes: Array, shared: Array) -> None:
        self.program, self.kind = program, lanes.dtype
        self.size, self.n_lane_angles = lanes.shape
        self.width = min(_LANES[program.n_wires], 1 << max(0, self.size - 1).bit_length())
        self.n_blocks = -(-self.size // self.width)
        half = np.multiply(lanes, lanes.dtype.type(0.5), order="C")
        self.lane_angles = np.cos(half), np.sin(half)  # torch's own would hang in a forked child
        self.fused = Fused(program, shared[0].astype(np.float64), self.kind)
        self.threads = thread_count(self.size * (len(program.code) + program.n_wires) << program.n_wires)

    def room(self, wanted: bool) -> Array:
        """Room for the final states, (b, 2, N V), empty unless ``wanted`` and small enough."""
        shape = (self.n_blocks, 2, self.width << self.program.n_wires)
        fits = wanted and math.prod(shape) * self.kind.itemsize <= _KEPT
        return np.empty(shape if fits else (0, 0, 0), self.kind)

    def expectations(self, words: Words, kept: Array) -> Array:
        """Expectations (B, t o)."""
        n_times, n_words = self.program.n_times, len(words.masks)
        values = np.empty((self.size, n_times * n_words), self.kind)
        self._run(words, values, self._no_states, kept)
        return values if words.is_identity else self._mixed(values, words.table.astype(self.kind))

    def states(self, kept: Array) -> Array:
        """States (B, N, 2)."""
        states = np.empty((self.size, 1 << self.program.n_wires, 2), self.kind)
        self._run(None, self._no_values, states, kept)
        return states

    def read(self, reading: Reading, kept: Array) -> Array:
        """What is read at the end (B, values)."""
        values = np.empty((self.size, reading.n_values), self.kind)
        self._run(None, values, self._no_states, kept, reading=reading)
        return values

    def slopes(self, cotangent: Array, words: Words | None, reading: Reading, kept: Array) -> tuple[Array, Array]:
        """The gradients of the angles of lanes (B, l) and of the shared ones (1, s)."""
        of_matrices = np.zeros((self.n_blocks, len(self.program.split), 3), self.kind)
        of_lanes = np.zeros((self.size, self.n_lane_angles), self.kind)
        of_words = np.zeros((self.n_blocks, self.fused.n_angles), self.kind)
        values, states = self._no_values, self._no_states
        if reading is not NO_READING:
            values = cotangent
        elif words is None:
            states = np.ascontiguousarray(cotangent)
        else:
            values = cotangent if words.is_identity else self._mixed(cotangent, words.table.T.astype(self.kind))
        self._run(words, np.ascontiguousarray(values), states, kept, (of_matrices, of_lanes, of_words), reading)
        return of_lanes, self.fused.slopes(of_matrices, of_words)[None].astype(self.kind)

    def _mixed(self, values: Array, table: Array) -> Array:
        """Words' values as observables', or the other way, time by time."""
        return (values.reshape(self.size, self.program.n_times, -1) @ table).reshape(self.size, -1)

    @property
    def _no_values(self) -> Array:
        return np.empty((self.size, 0), self.kind)

    @property
    def _no_states(self) -> Array:
        return np.empty((0, 0, 2), self.kind)

    def _run(
        self,
        words: Words | None,
        values: Array,
        states: Array,
        kept: Array,
        slopes: tuple[Array, ...] | None = None,
        reading: Reading = NO_READING,
    ) -> None:
        """Spread the blocks over threads."""
        program, fused = self.program, self.fused
        arguments = (
            (program.code, program.start, program.moves, program.n_wires),
            (fused.planes, fused.rotations, fused.tables, fused.halves, fused.lane_axes),
            self.lane_angles,
            _NO_WORDS if words is None else (words.masks, words.n_diagonal),
            (reading.kind, reading.order),
            values,
            states,
            kept,
            _no_slopes(self.kind) if slopes is None else slopes,
            self.width,
            slopes is not None,
        )
        _announce()
        run_blocks(lambda first, last: interpreter.run(first, last, *arguments), self.n_blocks, self.threads)


_NO_WORDS = np.empty((0, 3), np.int64), 0


@lru_cache(maxsize=2)
def _no_slopes(kind: np.dtype) -> tuple[Array, ...]:
    return np.empty((0, 0, 3), kind), np.empty((0, 0), kind), np.empty((0, 0), kind)


@lru_cache(maxsize=1)
def _announce() -> None:
    """Say, before the first call, that it takes long where nothing was compiled yet."""
    if not jit.is_kept(interpreter.run):
        _LOG.warning("compiling the state-vector kernels for this machine, once; this takes half a minute")

"""How fast W could be on this core: its arithmetic at the core's FMA rate, and its traffic at its caches' bandwidth.

Counted is the adjoint method gate by gate: a product state, per later layer one ring as a permutation and one 2x2
complex matrix a wire; all of it twice, since nothing is saved for the way back; there per matrix three slopes and its
inverse on state and bra. The arithmetic bounds every implementation of that; the traffic, with planes read and written
once a gate, only those that do not keep amplitudes in registers from gate to gate.

Axis legend: n wires, N = 2**n amplitudes, b samples.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from benchmarks.statevector.work import LAYERS

_FAST = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
_CHAIN, _CHAINS = 16, 8
_PLANES = 6
"""Planes of a block: state, bra, and two spare ones for permutations."""
_LANES = {4: 128, 8: 32, 12: 16, 16: 4}


@_FAST
def multiply_add(x, times, factor, term):
    """Chains of FMAs in registers, eight side by side, more than the latency."""
    n = x.shape[0] // 8
    p0, p1, p2, p3 = x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n : 4 * n]
    p4, p5, p6, p7 = x[4 * n : 5 * n], x[5 * n : 6 * n], x[6 * n : 7 * n], x[7 * n :]
    for _ in range(times):
        for t in range(n):
            a, b, c, d, e, f, g, h = p0[t], p1[t], p2[t], p3[t], p4[t], p5[t], p6[t], p7[t]
            for _ in range(16):
                a, b, c, d = a * factor + term, b * factor + term, c * factor + term, d * factor + term
                e, f, g, h = e * factor + term, f * factor + term, g * factor + term, h * factor + term
            p0[t], p1[t], p2[t], p3[t], p4[t], p5[t], p6[t], p7[t] = a, b, c, d, e, f, g, h


@_FAST
def turn(x, times, cos, sin):
    """Two rotations of planes in place: each number is read once and written once."""
    n = x.shape[0] // 4
    p0, p1, p2, p3 = x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]
    for _ in range(times):
        for t in range(n):
            a, b, c, d = p0[t], p1[t], p2[t], p3[t]
            p0[t], p1[t], p2[t], p3[t] = a * cos + b * sin, b * cos - a * sin, c * cos + d * sin, d * cos - c * sin


def _least_seconds(task: Callable[[], None]) -> float:
    task()
    found = []
    for _ in range(25):
        started = time.process_time()
        task()
        found.append(time.process_time() - started)
    return min(found)


def fma_rate() -> float:
    """Floating-point operations a second of single-precision FMAs on registers, best of 25."""
    x, times = np.ones(4096, np.float32), 400
    took = _least_seconds(lambda: multiply_add(x, times, np.float32(0.999), np.float32(1e-3)))
    return 2.0 * x.size * _CHAIN * times / took


def bandwidth(size: int) -> float:
    """Bytes a second read and written, half each, by updating ``size`` bytes in place; best of 25."""
    x = np.ones(size // 4, np.float32)
    times = max(1, (1 << 26) // size)
    return 2.0 * size * times / _least_seconds(lambda: turn(x, times, np.float32(0.6), np.float32(0.8)))


def cache_sizes() -> dict[str, int]:
    """Bytes of each data cache of the first core; 32 KiB, 512 KiB and 32 MiB where the system does not tell."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size.removesuffix("K")) * 1024
    return dict(sorted(found.items())) or {"L1": 1 << 15, "L2": 1 << 19, "L3": 1 << 25}


@dataclass(frozen=True)
class Machine:
    """What the core can do: FMA operations a second, and per level its bytes and bytes a second."""

    flops: float
    levels: dict[str, tuple[int, float]]
    """The last one is memory."""

    def level(self, size: int) -> str:
        """The nearest cache that holds ``size`` bytes."""
        return next(name for name, (held, _) in self.levels.items() if size <= held or name == "memory")


def measured() -> Machine:
    """Half of each cache is filled; memory is eight times the last one, 256 MiB at most."""
    sizes = cache_sizes()
    levels = {name: (size, bandwidth(size // 2)) for name, size in sizes.items()}
    large = min(8 * max(sizes.values()), 1 << 28)
    return Machine(fma_rate(), {**levels, "memory": (1 << 62, bandwidth(large))})


@dataclass(frozen=True)
class Roof:
    """W at one size: its operations and bytes, and the seconds that each of them takes at least."""

    flops: float
    bytes: float
    level: str
    seconds_of_flops: float
    seconds_of_bytes: float


def roof(machine: Machine, n_wires: int, batch: int) -> Roof:
    """Per amplitude: a matrix 14 operations and 16 bytes, three slopes 12, a product state 12 and 8."""
    gates, rings = (LAYERS - 1) * n_wires, LAYERS - 1
    forth = 12 + 14 * gates + 3
    forth_bytes = 8 + 16 * (gates + rings) + 8
    back = (12 + 28) * gates + 12 * n_wires + 4
    back_bytes = 32 * (gates + rings) + 16 * n_wires + 24
    amplitudes = batch << n_wires
    flops, moved = amplitudes * float(2 * forth + back), amplitudes * float(2 * forth_bytes + back_bytes)
    level = machine.level(4 * _PLANES * min(_LANES[n_wires], batch) << n_wires)
    return Roof(flops, moved, level, flops / machine.flops, moved / machine.levels[level][1])

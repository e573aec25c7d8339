"""Amplitude amplification of a distribution: Grover's search from a non-uniform start, exact and fixed-point.

Basis state i is token i, wire 0 the most significant bit. One iteration is one call of the phase oracle.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.library.diagonal import checked_width, indicator, phase_on
from circuits.library.loading import amplitude_loading, loaded, loading_angles
from circuits.slots import Slot, Weight, scaled


def grover(probabilities: Any, accepted: Iterable[int], iterations: int) -> Circuit:
    """Return the circuit that loads ``sum_x sqrt(p(x)) |x>`` and amplifies the accepted states ``iterations`` times.

    One iteration is ``-A S_0 A^dagger S_f``: A loads p, ``S_f = 1 - 2 P_accepted`` flips the sign of the accepted
    states, ``S_0 = 1 - 2 |0><0|``; together a reflection about the start state (the uniform diffuser is right for a
    uniform p alone). The accepted states then hold ``sin^2((2k + 1) arcsin sqrt p_good)``, with their ratios as in p.
    ``probabilities``: (2**n,), summing to 1; pad with zeros. Raises ValueError for what is no distribution (see
    ``loading_angles``), more than 12 wires, an oracle that accepts nothing, everything, or only states of probability
    0; IndexError for a state outside 0 ... 2**n - 1. Cost: at most (2k + 1)(2**n - 1) RY and 2k (2**n - 1) RZ, and as
    many CNOTs. Brassard, Hoyer, Mosca, Tapp 2002, Contemp. Math. 305, 53 (arXiv:quant-ph/0005055), section 2.

    >>> circuit = grover([0.25, 0.25, 0.25, 0.25], {3}, 1)  # one marked state of four: found with certainty
    >>> print(circuit.draw())
    0: ─┤RY(π/2)├─┤RZ(π/2)├─●────────────●─┤RY(-π/2)├─┤RZ(π/2)├─●───────────●─┤RY(π/2)├─
                            │            │                      │           │
    1: ─┤RY(π/2)├─┤RZ(π/2)├─⊕─┤RZ(-π/2)├─⊕─┤RY(-π/2)├─┤RZ(π/2)├─⊕─┤RZ(π/2)├─⊕─┤RY(π/2)├─
    <BLANKLINE>
    global phase: π
    """
    phases = [(math.pi, math.pi)] * integer("grover", "iterations", iterations, 0)
    return _bound("grover", probabilities, accepted, phases)


def fixed_point_grover(probabilities: Any, accepted: Iterable[int], iterations: int, delta: float) -> Circuit:
    """Return amplification whose success never falls back below 1 - delta^2 once p_good >= ``fixed_point_width``.

    ``G(alpha, beta) = -S_s(alpha) S_t(beta)`` with ``S_s(alpha) = 1 - (1 - e^{-i alpha}) |s><s|`` and ``S_t(beta) = 1 -
    (1 - e^{i beta}) P_accepted``, at the phases of ``fixed_point_phases``: ``fixed_point_success`` is the probability
    of the accepted states. For when p_good is not known: no number of iterations is too many. Raises as ``grover``,
    and ValueError unless 0 < delta < 1. Yoder, Low, Chuang 2014, Phys. Rev. Lett. 113, 210501 (arXiv:1409.3305).

    >>> len(fixed_point_grover([0.9, 0.1], {1}, 3, 0.3).ops)
    13
    """
    return _bound("fixed_point_grover", probabilities, accepted, fixed_point_phases(iterations, delta))


def amplification(n_wires: int, accepted: Iterable[int], iterations: int, shift: float = 0.0) -> Circuit:
    """Return the family of amplifying circuits: Inputs are ``loading_angles(p)``, Weights the 2 k phases.

    Iteration j is ``G(alpha, beta)`` of ``fixed_point_grover`` with ``beta = Weight(2 j) + shift`` on the accepted
    states and ``alpha = Weight(2 j + 1) + shift`` on the start state. All phases pi is ``grover``; ``shift = pi`` puts
    it at weights 0. Raises as ``grover``, as far as that needs no distribution. Cost as ``grover``.

    >>> circuit = amplification(2, {3}, 1)
    >>> circuit.n_inputs, circuit.n_weights
    (3, 2)
    """
    n_wires = checked_width("amplification", n_wires)
    chosen = _accepted("amplification", n_wires, accepted)
    count = integer("amplification", "iterations", iterations, 0)
    phases = [(Weight(2 * j, shift=shift), Weight(2 * j + 1, shift=shift)) for j in range(count)]
    return _amplified(amplitude_loading(n_wires), chosen, phases)


def success_probability(p_good: float, iterations: int) -> float:
    """Return ``sin^2((2k + 1) arcsin sqrt p_good)``: the accepted states' probability after k iterations.

    Raises ValueError unless 0 <= p_good <= 1. Brassard et al. 2002, section 2.

    >>> [round(success_probability(1 / 8, k), 9) for k in (1, 2, 3)]
    [0.78125, 0.9453125, 0.330078125]
    """
    share = _share("success_probability", p_good)
    count = integer("success_probability", "iterations", iterations, 0)
    return math.sin((2 * count + 1) * math.asin(math.sqrt(share))) ** 2


def optimal_iterations(p_good: float) -> int:
    """Return the least k in the first rise of ``success_probability`` that comes nearest to 1: about pi / (4 sqrt p).

    Raises ValueError unless 0 < p_good <= 1.

    >>> [optimal_iterations(p) for p in (1.0, 0.25, 1 / 8, 1e-4)]
    [0, 1, 2, 78]
    """
    share = _share("optimal_iterations", p_good)
    if share == 0:
        raise ValueError("optimal_iterations expects p_good above 0, got 0: nothing can be amplified; accept more.")
    fewest = math.floor(math.pi / (4 * math.asin(math.sqrt(share))) - 0.5 + 1e-12)
    gain = success_probability(share, fewest + 1) - success_probability(share, fewest)
    return fewest + (gain > 1e-12)


def fixed_point_phases(iterations: int, delta: float) -> tuple[tuple[float, float], ...]:
    """Return (beta_j, alpha_j) for j = 1 ... l in the order in which they act, radians.

    ``alpha_j = -beta_{l-j+1} = 2 arccot(tan(2 pi j / L) sqrt(1 - gamma^2))`` with L = 2 l + 1 and ``1 / gamma =
    T_{1/L}(1 / delta)``, T the Chebyshev polynomial. Raises ValueError unless 0 < delta < 1. The phases
    of Yoder, Low, Chuang 2014.

    >>> [round(phase, 4) for phase in fixed_point_phases(1, 1 - 1e-12)[0]]  # delta = 1 is Grover's search
    [-3.1416, 3.1416]
    """
    count = integer("fixed_point_phases", "iterations", iterations, 0)
    length = 2 * count + 1
    tangent = math.tanh(math.acosh(1 / _error(delta)) / length)  # sqrt(1 - gamma^2) for 1 / gamma = cosh
    alphas = [2 * math.atan2(1, math.tan(2 * math.pi * j / length) * tangent) for j in range(1, count + 1)]
    return tuple((-beta, alpha) for beta, alpha in zip(alphas[::-1], alphas, strict=True))


def fixed_point_success(p_good: float, iterations: int, delta: float) -> float:
    """Return ``1 - delta^2 T_L(T_{1/L}(1 / delta) sqrt(1 - p_good))^2`` with L = 2 l + 1 for l iterations.

    Raises ValueError unless 0 <= p_good <= 1 and 0 < delta < 1. P_L of Yoder, Low, Chuang
    2014.

    >>> round(fixed_point_success(0.25, 2, 0.3), 4) >= 1 - 0.3**2
    True
    """
    share = _share("fixed_point_success", p_good)
    length = 2 * integer("fixed_point_success", "iterations", iterations, 0) + 1
    argument = math.cosh(math.acosh(1 / _error(delta)) / length) * math.sqrt(1 - share)
    chebyshev = math.cosh(length * math.acosh(argument)) if argument > 1 else math.cos(length * math.acos(argument))
    return 1 - (delta * chebyshev) ** 2


def fixed_point_width(iterations: int, delta: float) -> float:
    """Return the least p_good whose success is at least 1 - delta^2: ``1 - T_{1/L}(1 / delta)^-2``, L = 2 l + 1.

    Raises ValueError unless 0 < delta < 1. About ``(ln(2 / delta) / L)^2``. The width w
    of Yoder, Low, Chuang 2014.

    >>> round(fixed_point_width(2, 0.3), 4)
    0.1283
    """
    length = 2 * integer("fixed_point_width", "iterations", iterations, 0) + 1
    return math.tanh(math.acosh(1 / _error(delta)) / length) ** 2


def fixed_point_iterations(p_least: float, delta: float) -> int:
    """Return the fewest iterations whose success is at least 1 - delta^2 for every p_good >= ``p_least``.

    Raises ValueError unless 0 < p_least <= 1 and 0 < delta < 1.

    >>> [fixed_point_iterations(p, 0.3) for p in (0.9, 0.14, 0.01)]
    [1, 2, 9]
    """
    share = _share("fixed_point_iterations", p_least)
    if share == 0:
        raise ValueError("fixed_point_iterations expects p_least above 0, got 0: it takes forever; raise it.")
    wanted = math.acosh(1 / _error(delta)) / math.atanh(math.sqrt(share)) if share < 1 else 1.0
    return max(0, math.ceil((wanted - 1) / 2 - 1e-12))


def _bound(owner: str, probabilities: Any, accepted: Iterable[int], phases: Sequence[tuple[float, float]]) -> Circuit:
    angles = loading_angles(probabilities)
    if angles.ndim != 1:
        raise ValueError(f"{owner} expects one distribution (2**n,), got {angles.ndim} axes; use amplification.")
    n_wires = checked_width(owner, len(angles).bit_length())
    chosen = _accepted(owner, n_wires, accepted)
    if not any(float(probabilities[state]) > 0 for state in chosen):
        raise ValueError(
            f"{owner} expects an accepted state with a probability above 0, got none: 0 cannot be amplified; accept "
            "more states."
        )
    return _amplified(loaded([float(angle) for angle in angles]), chosen, phases)


def _accepted(owner: str, n_wires: int, accepted: Iterable[int]) -> tuple[int, ...]:
    """The accepted states in order; neither none nor all."""
    chosen = tuple(int(state) for state in np.flatnonzero(indicator(owner, n_wires, accepted)))
    if len(chosen) in (0, 1 << n_wires):
        what, remedy = ("nothing", "accept a state") if not chosen else ("everything", "leave a state out")
        raise ValueError(f"{owner} expects an oracle that tells states apart, got one that accepts {what}; {remedy}.")
    return chosen


def _amplified(load: Circuit, chosen: tuple[int, ...], phases: Iterable[tuple[Slot, Slot]]) -> Circuit:
    """``load``, then for each (beta, alpha): ``-S_s(alpha) S_t(beta)``."""
    n_wires = load.n_wires
    ops: list[Op] = list(load.ops)
    total: list[Slot] = list(load.global_phase)
    for beta, alpha in phases:
        start = phase_on(n_wires, (0,), scaled(alpha, -1.0))
        for part in (phase_on(n_wires, chosen, beta), load.inverse(), start, load):
            ops += part.ops
            total += part.global_phase
        total.append(math.pi)
    return Circuit(n_wires, tuple(ops), tuple(total))


def _share(owner: str, p_good: float) -> float:
    if not 0 <= p_good <= 1:
        raise ValueError(f"{owner} expects a probability in [0, 1], got {p_good}; pass the accepted states' share.")
    return float(p_good)


def _error(delta: float) -> float:
    if not 0 < delta < 1:
        raise ValueError(f"fixed-point search expects 0 < delta < 1, got {delta}; success is at least 1 - delta^2.")
    return float(delta)

"""The control that tells a localised time crystal from one that is merely slow to heat.

Axis legend: s initial states, d disorder instances, t times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backends import Backend
from backends.counts import derived_seed
from qlm.floquet.disorder import Disorder, draw_disorder
from qlm.floquet.measured import Measured
from qlm.floquet.order import survival
from qlm.floquet.trajectories import autocorrelators

PRETHERMAL_PHI = -0.4
"""The control's uniform coupling, in radians."""


@dataclass(frozen=True, slots=True)
class Survival:
    """``(-1)^t A(t)`` of the bulk from each initial state, disorder means: ``curves`` (s, t); ``late`` (s,): the mean
    over the last half of the periods."""

    initials: tuple[str, ...]
    curves: Measured
    late: Measured

    @property
    def dependence(self) -> float:
        """Largest difference of ``late`` between two initial states."""
        return float(self.late.values.max() - self.late.values.min())


@dataclass(frozen=True, slots=True)
class PrethermalControl:
    """Survival with disordered couplings, and with a uniform one."""

    localised: Survival
    prethermal: Survival


def prethermal_control(
    n_wires: int,
    periods: int,
    g: float = 0.97,
    initials: Sequence[str] | None = None,
    instances: int = 20,
    backend: str | Backend = "statevector",
    seed: int = 0,
) -> PrethermalControl:
    """Return survival from several initial states, with phi_i in [-1.5 pi, -0.5 pi] and with phi = -0.4 for all i.

    In the localised phase all states keep their spins alike. With uniform coupling the kicks conserve an effective
    energy for a long time: states at the edge of its spectrum survive and those in its middle melt, so that one
    lucky state shows period doubling without a time crystal (Mi et al. 2022, Nature 601, 531, figure 3; Ippoliti et
    al. 2021, PRX Quantum 2, 030346). ``initials`` None: the polarised state and the Neel state, which are the two
    edges and have equal ensemble means (they change places where every other h changes sign), and 0011..., with a
    wall on every other bond, in the middle. The fields h are random in both. ``seed`` draws the disorder, and the
    shots where they are counted. Raises ValueError for fewer than 2 states.

    >>> control = prethermal_control(6, 20, instances=4)
    >>> control.localised.dependence < control.prethermal.dependence
    True
    """
    if initials is None:
        initials = tuple((pattern * n_wires)[:n_wires] for pattern in ("0", "01", "0011"))
    if len(initials) < 2:
        raise ValueError(f"prethermal_control expects at least 2 initial states, got {len(initials)}; add another.")
    localised = draw_disorder(n_wires, instances, seed)
    uniform = draw_disorder(n_wires, instances, seed, phi=PRETHERMAL_PHI)
    return PrethermalControl(
        *(_survival(disorder, g, periods, tuple(initials), backend, seed) for disorder in (localised, uniform))
    )


def _survival(
    disorder: Disorder, g: float, periods: int, initials: tuple[str, ...], backend: str | Backend, seed: int
) -> Survival:
    curves, lates = [], []
    for number, initial in enumerate(initials):
        found = autocorrelators(disorder, g, periods, backend, initial, seed=derived_seed(seed, number))
        kept = survival(found.bulk)
        curves.append(kept.ensemble_mean())
        late = kept.arranged(lambda part: part[..., -max(1, periods // 2) :])
        lates.append(late.mean(-1).ensemble_mean())
    return Survival(initials, Measured.stacked(curves), Measured.stacked(lates))

"""The phase diagram over the kick g: order, and how much it fluctuates between disorder instances.

Axis legend: k values of g, d disorder instances, t times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends import Backend, open_backend
from circuits._check import integer
from circuits.library.floquet import checked_initial, kicked_ising
from qlm.floquet.disorder import Disorder
from qlm.floquet.measured import Measured
from qlm.floquet.order import bulk_pairs, glass_from_pairs, subharmonic_weight
from qlm.floquet.trajectories import bulk_observable, run_along


@dataclass(frozen=True, slots=True)
class PhaseDiagram:
    """Disorder means and their standard errors, spreads between instances and theirs, over g (k,).

    ``autocorrelator`` (k, t): mean of the bulk ``A(t)``. ``weight`` (k,): mean ``subharmonic_weight``,
    ``weight_spread`` its standard deviation between instances. ``spin_glass`` (k,): mean ``spin_glass_order``,
    averaged over the last tenth of the periods, and ``spin_glass_spread``.
    """

    g: Tensor
    n_wires: int
    initial: str
    instances: int
    autocorrelator: Measured
    weight: Measured
    weight_spread: Measured
    spin_glass: Measured
    spin_glass_spread: Measured


def phase_diagram(
    g: Sequence[float] | Tensor,
    disorder: Disorder,
    periods: int,
    backend: str | Backend = "statevector",
    initial: str | None = None,
    shots: int | None = None,
    seed: int | None = None,
) -> PhaseDiagram:
    """Run all instances at all values of g as one batch, each once, and return orders and fluctuations.

    The same instances serve every g. Both orders fall as g leaves 1, smoothly at any one size: the transition is
    where the spin-glass orders of several sizes cross, for they grow with n inside the time crystal and shrink
    outside (Mi et al. 2022, Nature 601, 531, figure 4). Raises ValueError for no g, no number, no period,
    fewer than 4 spins or 3 instances. Cost on a state vector: k d periods 3n 2**n.

    >>> from qlm.floquet import draw_disorder
    >>> diagram = phase_diagram([0.6, 1.0], draw_disorder(4, 5), periods=10)
    >>> diagram.weight.values[1].round(decimals=3).item(), diagram.spin_glass.values[1].round(decimals=3).item()
    (1.0, 1.0)
    """
    periods = integer("phase_diagram", "periods", periods, 1)
    try:
        values = torch.as_tensor(g, dtype=disorder.h.dtype)
    except (TypeError, ValueError, RuntimeError):  # torch's answers to what is no number, and to a ragged list
        values = torch.empty(0)
    if values.ndim != 1 or not len(values) or not bool(values.isfinite().all()):
        raise ValueError(f"phase_diagram expects a sequence of values of g, got {g!r}; pass for example [0.6, 1].")
    n_wires, count = disorder.n_wires, len(disorder.h)
    if count < 3:
        raise ValueError(f"phase_diagram expects at least 3 disorder instances, got {count}; draw more.")
    initial = checked_initial("phase_diagram", n_wires, initial)
    observables = (bulk_observable(initial), *bulk_pairs(n_wires))
    circuit = kicked_ising(n_wires, periods, initial=initial)
    found = run_along(open_backend(backend), circuit, disorder.inputs(values), observables, shots, seed)
    by_instance = found.arranged(lambda part: part.unflatten(0, (-1, count)).transpose(0, 1))
    bulk = by_instance.arranged(lambda part: part[..., 0])
    pairs = by_instance.arranged(lambda part: part[..., -max(1, periods // 10) :, 1:])
    weight, glass = subharmonic_weight(bulk), glass_from_pairs(pairs).mean(-1)
    return PhaseDiagram(
        values,
        n_wires,
        initial,
        count,
        bulk.ensemble_mean(),
        weight.ensemble_mean(),
        weight.ensemble_spread(),
        glass.ensemble_mean(),
        glass.ensemble_spread(),
    )

"""Discrete time crystals: disorder ensembles of the kicked Ising chain, what to measure on them, and their controls."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qlm.floquet.disorder import Disorder, draw_disorder
    from qlm.floquet.echo import EchoCorrection, echo_correction
    from qlm.floquet.measured import Measured
    from qlm.floquet.order import Spectrum, spectrum, spin_glass_order, subharmonic_weight
    from qlm.floquet.phase import PhaseDiagram, phase_diagram
    from qlm.floquet.picture import draw
    from qlm.floquet.prethermal import PrethermalControl, Survival, prethermal_control
    from qlm.floquet.trajectories import Autocorrelators, autocorrelators

_HOME = {
    "Autocorrelators": "qlm.floquet.trajectories",
    "Disorder": "qlm.floquet.disorder",
    "EchoCorrection": "qlm.floquet.echo",
    "Measured": "qlm.floquet.measured",
    "PhaseDiagram": "qlm.floquet.phase",
    "PrethermalControl": "qlm.floquet.prethermal",
    "Spectrum": "qlm.floquet.order",
    "Survival": "qlm.floquet.prethermal",
    "autocorrelators": "qlm.floquet.trajectories",
    "draw": "qlm.floquet.picture",
    "draw_disorder": "qlm.floquet.disorder",
    "echo_correction": "qlm.floquet.echo",
    "phase_diagram": "qlm.floquet.phase",
    "prethermal_control": "qlm.floquet.prethermal",
    "spectrum": "qlm.floquet.order",
    "spin_glass_order": "qlm.floquet.order",
    "subharmonic_weight": "qlm.floquet.order",
}

__all__ = [
    "Autocorrelators",
    "Disorder",
    "EchoCorrection",
    "Measured",
    "PhaseDiagram",
    "PrethermalControl",
    "Spectrum",
    "Survival",
    "autocorrelators",
    "draw",
    "draw_disorder",
    "echo_correction",
    "phase_diagram",
    "prethermal_control",
    "spectrum",
    "spin_glass_order",
    "subharmonic_weight",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qlm.floquet' has no attribute '{name}'")

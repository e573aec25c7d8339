"""Circuit families: pure functions that return a ``Circuit``."""

from circuits.library.ansatz import hardware_efficient, reuploading
from circuits.library.born import born_machine, conditional_born_machine
from circuits.library.damping import generalised_damping
from circuits.library.diagonal import diagonal, phase_on
from circuits.library.encoders import angle_encoding
from circuits.library.floquet import kicked_ising, period_ends
from circuits.library.grover import (
    amplification,
    fixed_point_grover,
    fixed_point_iterations,
    fixed_point_phases,
    fixed_point_success,
    fixed_point_width,
    grover,
    optimal_iterations,
    success_probability,
)
from circuits.library.kernels import kernel_feature_map, zz_feature_map
from circuits.library.loading import amplitude_loading, loading_angles
from circuits.library.routing import vqc_router

__all__ = [
    "amplification",
    "amplitude_loading",
    "angle_encoding",
    "born_machine",
    "conditional_born_machine",
    "diagonal",
    "fixed_point_grover",
    "fixed_point_iterations",
    "fixed_point_phases",
    "fixed_point_success",
    "fixed_point_width",
    "generalised_damping",
    "grover",
    "hardware_efficient",
    "kernel_feature_map",
    "kicked_ising",
    "loading_angles",
    "optimal_iterations",
    "period_ends",
    "phase_on",
    "reuploading",
    "success_probability",
    "vqc_router",
    "zz_feature_map",
]

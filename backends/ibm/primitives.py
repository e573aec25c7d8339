"""The runtime's primitives of both generations behind one pair of methods, and their options.

Axis legend: r rows of parameters, t shots, o observables.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.extras import require
from backends.ibm.placing import Placed

if TYPE_CHECKING:
    from qiskit.quantum_info import SparsePauliOp

_HOMES = {
    ("current", "Sampler"): ("qiskit_ibm_runtime.executor_sampler", "Sampler"),
    ("current", "Estimator"): ("qiskit_ibm_runtime.executor_estimator", "Estimator"),
    ("older", "Sampler"): ("qiskit_ibm_runtime.sampler", "SamplerV2"),
    ("older", "Estimator"): ("qiskit_ibm_runtime.estimator", "EstimatorV2"),
}
"""Modules, not the package's own names: those are to be repointed from the older generation to the current one."""
GENERATIONS = ("current", "older")
TAG = "hybridqlm"
"""Jobs bear it, so that they can be found again."""
_ANGLE_DECIMALS = 12  # the local service rounds angles, by default to 1.6e-5 radians


@dataclass(frozen=True)
class Primitives:
    """How circuits are run: what is done against errors, by which generation, within how many QPU seconds.

    >>> Primitives(zne=(1.0, 3.0)).options("Estimator", seed=None)["resilience"]["zne"]
    {'noise_factors': (1.0, 3.0)}
    """

    generation: str = "current"
    resilience_level: int = 0
    twirling: bool = False
    dynamical_decoupling: str | None = None
    zne: tuple[float, ...] = ()
    max_execution_time: int | None = None

    @property
    def mitigates(self) -> bool:
        """Whether expectations are asked of the estimator, which corrects them; else they are counted from samples."""
        return bool(self.resilience_level or self.zne)

    def options(self, primitive: str, seed: int | None) -> dict[str, Any]:
        """Return the primitive's options, those at their defaults left out."""
        out: dict[str, Any] = {}
        if self.twirling:
            out["twirling"] = {"enable_gates": True, "enable_measure": True}
        if self.dynamical_decoupling:
            out["dynamical_decoupling"] = {"enable": True, "sequence_type": self.dynamical_decoupling}
        if self.max_execution_time is not None:
            out["max_execution_time"] = self.max_execution_time
            out["environment"] = {"job_tags": [TAG]}
        else:  # a simulation
            out["simulator"] = {} if seed is None else {"seed_simulator": seed}
            if self.generation == "current":
                out["simulator"]["angle_decimals"] = _ANGLE_DECIMALS
        if primitive == "Estimator":
            out["resilience_level"] = self.resilience_level
            if self.zne:
                out["resilience"] = {"zne_mitigation": True, "zne": {"noise_factors": self.zne}}
        return out

    def sample(
        self, mode: Any, placed: Placed, rows: NDArray[np.float64], shots: int, seed: int | None
    ) -> NDArray[np.uint8]:
        """Return the packed outcomes of a measured circuit, one PUB of one job: (r, t, bytes)."""
        if placed.columns:
            pub, repeats = (placed.circuit, {tuple(placed.circuit.parameters): rows[:, placed.columns]}), 1
        else:
            pub, repeats = (placed.circuit,), len(rows)  # all rows are one: more shots of it
        job = self._made("Sampler", mode, seed).run([pub], shots=shots * repeats)
        packed = _result(job).data.bits.array
        units = packed.reshape(len(rows) // repeats, -1, packed.shape[-1])
        return units[:, : shots * repeats].reshape(len(rows), shots, -1)  # twirling rounds the shots up

    def estimate(
        self,
        mode: Any,
        placed: Placed,
        rows: NDArray[np.float64],
        observables: "Sequence[SparsePauliOp]",
        shots: int,
        seed: int | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return corrected expectations and their errors, one PUB of one job: (r, o) each.

        A circuit without parameters is run once: its rows are equal.
        """
        column = [[observable] for observable in observables]
        pub = (placed.circuit, column)
        if placed.columns:
            pub = (*pub, {tuple(placed.circuit.parameters): rows[:, placed.columns]})
        job = self._made("Estimator", mode, seed, default_shots=shots).run([pub])
        found = _result(job).data
        shape = (len(observables), len(rows))
        return np.broadcast_to(found.evs, shape).T.copy(), np.broadcast_to(found.stds, shape).T.copy()

    def _made(self, primitive: str, mode: Any, seed: int | None, **more: int) -> Any:
        module, name = _HOMES[self.generation, primitive]
        made = getattr(require("ibm", module, "qiskit"), name)
        with warnings.catch_warnings():
            # Asking for the older generation is a choice; that it will go is said in its documentation.
            warnings.filterwarnings("ignore", f"The {name} class is deprecated", DeprecationWarning)
            return made(mode=mode, options={**self.options(primitive, seed), **more})


def _result(job: Any) -> Any:
    """The one result of a job; a failure names the job, which the service keeps."""
    from qiskit.exceptions import QiskitError

    try:
        (answer,) = job.result()
    except QiskitError as error:
        raise RuntimeError(
            f"the IBM service expects job {job.job_id()} to end well, got {type(error).__name__}; look it up there."
        ) from error
    return answer

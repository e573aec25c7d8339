"""The runtime's primitives of both generations behind one pair of methods, and their options.

Axis legend: r rows of parameters, t shots, o observables.
"""

import math
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
"""All our jobs bear it, beside the tag of the one request, by which it is found again."""
_ANGLE_DECIMALS = 12  # the local service rounds angles, by default to 1.6e-5 radians


@dataclass(frozen=True)
class Primitives:
    """How circuits are run: what is done against errors, and by which generation of the runtime's primitives.

    >>> Primitives(zne=(1.0, 3.0)).options("Estimator", seed=None)["resilience"]["zne"]
    {'noise_factors': (1.0, 3.0)}
    """

    generation: str = "current"
    resilience_level: int = 0
    twirling: bool = False
    dynamical_decoupling: str | None = None
    zne: tuple[float, ...] = ()

    @property
    def mitigates(self) -> bool:
        """Whether expectations are asked of the estimator, which corrects them; else they are counted from samples."""
        return bool(self.resilience_level or self.zne)

    @property
    def noise_factors(self) -> tuple[float, ...]:
        """The factors at which every circuit is run: those of zne, 1, 3 and 5 at level 2 (its default), else 1."""
        return self.zne or ((1.0, 3.0, 5.0) if self.resilience_level == 2 else (1.0,))

    def options(
        self, primitive: str, seed: int | None, tag: str | None = None, seconds: int | None = None
    ) -> dict[str, Any]:
        """Return the primitive's options, those at their defaults left out; on real devices with tag and time limit."""
        out: dict[str, Any] = {}
        if self.twirling:
            out["twirling"] = {"enable_gates": True, "enable_measure": True}
        if self.dynamical_decoupling:
            out["dynamical_decoupling"] = {"enable": True, "sequence_type": self.dynamical_decoupling}
        if tag is not None:
            out["max_execution_time"] = seconds
            out["environment"] = {"job_tags": [TAG, tag]}
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
        self,
        mode: Any,
        placed: Placed,
        rows: NDArray[np.float64],
        shots: int,
        seed: int | None,
        tag: str | None = None,
        seconds: int | None = None,
    ) -> Any:
        """Start a job that measures a circuit at rows of parameters, one PUB; ``sampled`` reads its answer."""
        if placed.columns:
            pub, repeats = (placed.circuit, {tuple(placed.circuit.parameters): rows[:, placed.columns]}), 1
        else:
            pub, repeats = (placed.circuit,), len(rows)  # all rows are one: more shots of it
        return self._made("Sampler", mode, seed, tag, seconds).run([pub], shots=shots * repeats)

    def estimate(
        self,
        mode: Any,
        placed: Placed,
        rows: NDArray[np.float64],
        observables: "Sequence[SparsePauliOp]",
        shots: int,
        seed: int | None,
        tag: str | None = None,
        seconds: int | None = None,
    ) -> Any:
        """Start a job for corrected expectations, one PUB; ``estimated`` reads its answer.

        A circuit without parameters is run once: its rows are equal.
        """
        pub = (placed.circuit, [[observable] for observable in observables])
        if placed.columns:
            pub = (*pub, {tuple(placed.circuit.parameters): rows[:, placed.columns]})
        return self._made("Estimator", mode, seed, tag, seconds, default_shots=shots).run([pub])

    def _made(
        self, primitive: str, mode: Any, seed: int | None, tag: str | None, seconds: int | None, **more: int
    ) -> Any:
        module, name = _HOMES[self.generation, primitive]
        made = getattr(require("ibm", module, "qiskit"), name)
        with warnings.catch_warnings():
            # Asking for the older generation is a choice; that it will go is said in its documentation.
            warnings.filterwarnings("ignore", f"The {name} class is deprecated", DeprecationWarning)
            return made(mode=mode, options={**self.options(primitive, seed, tag, seconds), **more})


def sampled(answer: Any, n_rows: int, shots: int, has_parameters: bool) -> NDArray[np.uint8]:
    """Return the packed outcomes of a measured circuit: (r, t, bytes)."""
    packed = answer.data.bits.array
    repeats = 1 if has_parameters else n_rows
    units = packed.reshape(n_rows // repeats, -1, packed.shape[-1])
    return units[:, : shots * repeats].reshape(n_rows, shots, -1)  # twirling rounds the shots up


def estimated(answer: Any, n_observables: int, n_rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return corrected expectations and their errors: (r, o) each."""
    shape = (n_observables, n_rows)
    return np.broadcast_to(answer.data.evs, shape).T.copy(), np.broadcast_to(answer.data.stds, shape).T.copy()


def noise_factors(zne: str | None) -> tuple[float, ...]:
    """Return the numbers of "1,3,5": two or more, each from 1.

    >>> noise_factors("1,3")
    (1.0, 3.0)
    """
    try:
        factors = tuple(float(text) for text in zne.split(",")) if zne is not None else ()
    except (AttributeError, ValueError):
        raise ValueError(f"zne expects noise factors joined by commas, got {zne!r}; write '1,3,5'.") from None
    if factors and (len(set(factors)) < 2 or not all(1 <= factor < math.inf for factor in factors)):
        raise ValueError(f"zne expects two or more different noise factors from 1, got '{zne}'; write '1,3,5'.")
    return factors

"""How the suite judges: what was measured, against which bound, and why that bound.

Axis legend: b batch. A deviation is in the values' units on exact backends and in standard errors where shots count.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import Backend
from backends.estimate import Estimate

ALPHA = 1e-6
"""Chance that a right backend fails one check by bad luck of its shots."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""What "exact" may deviate by rounding, per precision asked for."""
NOISE = 0.35
"""What device noise may take from an expectation with coefficients of one-norm 1 in the suite's shallow circuits."""
SHOTS = 4096
"""Shots asked of a backend that counts shots."""
SEED = 20240607


class Failure(AssertionError):
    """A check found that a backend does not keep its word."""


class NotApplicable(Exception):
    """A check has nothing to say about a backend."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The largest deviation that a check saw, and what it may be at most; ``unit`` says in what.

    >>> Measured(1e-9, 1e-6).passed
    True
    """

    deviation: float
    bound: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the bound (a NaN is not)."""
        return self.deviation <= self.bound


def require(condition: object, sentence: str) -> None:
    """Raise ``Failure`` with the sentence unless the condition holds."""
    if not condition:
        raise Failure(sentence)


def worst(*findings: Measured) -> Measured:
    """Return the finding nearest to its bound, or furthest beyond."""
    return max(findings, key=lambda found: np.inf if np.isnan(found.deviation) else found.deviation / found.bound)


def request(backend: Backend, shots: int = SHOTS) -> dict[str, Any]:
    """The keyword arguments ``shots`` and ``seed`` for one call: none on a backend that counts no shots."""
    return {"shots": shots, "seed": SEED} if backend.capabilities.shots else {}


def normal_bound(comparisons: int) -> float:
    """Standard errors that ``comparisons`` normal deviates all stay within, but for a chance of ``ALPHA``."""
    return NormalDist().inv_cdf(1 - ALPHA / (2 * max(comparisons, 1)))


def compare(backend: Backend, estimate: Estimate, expected: Any, scale: float = 1.0, noise: float = NOISE) -> Measured:
    """Judge an estimate against the truth, fairly for what the backend declares.

    Exact: the absolute deviation against ``TOLERANCE``. Truncating: less the declared ``truncation_error``. Noisy: less
    ``noise * scale``. With shots: in units of ``stderr``, to which ``5 scale / shots`` is added in quadrature, because
    an outcome that never came up has a sample variance of zero (``shots`` at most ``SHOTS``: those of one basis).
    ``scale`` is the largest one-norm of the observables.
    """
    truth = np.asarray(expected)
    require(
        tuple(estimate.values.shape) == truth.shape,
        f"values expect shape {truth.shape}, got {tuple(estimate.values.shape)}.",
    )
    return compare_errors(backend, estimate, np.abs(numpy(estimate.values) - truth), scale, noise)


def compare_matrices(backend: Backend, estimate: Estimate, expected: Any) -> Measured:
    """Judge density matrices by Frobenius norm, in which a projection to physical states only comes nearer to one.

    Entry by entry it would not be fair: the projection carries errors over to entries whose own shots agreed.
    """
    errors = np.linalg.norm(numpy(estimate.values) - np.asarray(expected), axis=(1, 2))
    stderr, truncation = (part.norm(dim=(1, 2)) for part in (estimate.stderr, estimate.truncation_error))
    norms = replace(estimate, values=estimate.values[:, 0, 0], stderr=stderr, truncation_error=truncation)
    return compare_errors(backend, norms, errors, 1.0, NOISE)


def compare_errors(backend: Backend, estimate: Estimate, errors: Any, scale: float, noise: float) -> Measured:
    """Judge absolute errors that were computed already; see ``compare``."""
    capabilities = backend.capabilities
    excess = errors - numpy(estimate.truncation_error).reshape(errors.shape)
    if capabilities.noisy:
        excess = excess - noise * scale
    if not capabilities.shots:
        single = estimate.values.dtype in (torch.float32, torch.complex64)
        bound = TOLERANCE[torch.float32 if single else torch.float64] * max(scale, 1.0)
        return Measured(max(0.0, _largest(excess)), bound)
    require(estimate.shots is not None, "a backend that counts shots expects shots in each estimate, got None.")
    floor = 5 * scale / min(estimate.shots or 1, SHOTS)
    deviations = excess / np.hypot(numpy(estimate.stderr).reshape(errors.shape), floor)
    return Measured(max(0.0, _largest(deviations)), normal_bound(errors.size), "stderr")


def _largest(array: Any) -> float:
    """The maximum, NaN when any entry is, 0 of nothing."""
    return float(np.max(array)) if array.size else 0.0


def numpy(tensor: Tensor) -> Any:
    """A detached copy in double precision."""
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().cpu().to(wide).numpy()

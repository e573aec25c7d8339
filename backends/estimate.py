"""What a backend can do, and what it answers: each figure with its error.

Axis legend: b batch, o observables, k wires asked for.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend declares and the conformance suite proves, flag by flag.

    ``exact``: expectations without statistical or truncation error. ``shots``: results come from counted shots.
    ``state``/``density``: can return the state / reduced density matrices without tomography. ``batch``: one call runs
    a whole batch. ``autograd``: ``values`` carries torch gradients. ``reset``: circuits may hold resets. ``gates``:
    primitive gates it runs. ``remote``: calls leave the machine. ``noisy``: the state is mixed by device noise.

    >>> Capabilities(max_wires=4).exact
    False
    """

    exact: bool = False
    shots: bool = False
    state: bool = False
    density: bool = False
    batch: bool = False
    autograd: bool = False
    reset: bool = False
    max_wires: int = 0
    gates: frozenset[str] = frozenset()
    remote: bool = False
    noisy: bool = False

    @property
    def results(self) -> str:
        """What stands between a result and the ideal circuit, in words: shots, noise, truncation or nothing."""
        if self.exact:
            return "exact"
        if self.shots:
            return "shots, noisy" if self.noisy else "shots"
        return "noisy" if self.noisy else "truncated"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Values with their errors; all tensors of one shape, batch first.

    ``stderr`` is one standard error (0 when exact) and carries no gradient. ``shots`` is the number of shots spent per
    batch entry (None when exact). ``truncation_error`` bounds the bias from truncating a tensor network, in the units
    of ``values``; ``infidelity`` is the simulator's estimate of 1 - F per batch entry (b,). ``purity`` and
    ``purity_stderr`` (b,) hold the global purity Tr rho^2 where a noisy backend reports an entropy, else None.

    >>> Estimate(torch.ones(2, 1)).stderr.tolist()
    [[0.0], [0.0]]
    """

    values: Tensor
    stderr: Tensor = None  # pyright: ignore[reportAssignmentType] -- filled below: zeros of the values' shape
    shots: int | None = None
    truncation_error: Tensor = None  # pyright: ignore[reportAssignmentType] -- filled below
    infidelity: Tensor = None  # pyright: ignore[reportAssignmentType] -- filled below
    purity: Tensor | None = None
    purity_stderr: Tensor | None = None

    def __post_init__(self) -> None:
        plain = self.values.detach()
        real = plain.real if plain.is_complex() else plain
        zeros = torch.zeros_like(real, dtype=real.dtype if real.is_floating_point() else torch.float32)
        for name in ("stderr", "truncation_error"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, zeros)
        if self.infidelity is None:
            object.__setattr__(self, "infidelity", zeros.new_zeros(plain.shape[:1]))

    def to(self, dtype: torch.dtype) -> "Estimate":
        """Return the estimate with its values cast (complex values stay complex)."""
        same = self.values.is_complex() or self.values.dtype == dtype
        return self if same else replace(self, values=self.values.to(dtype))

"""Born machines of matrix product states: exact distributions over integers, written in digits.

Axes: n samples, v integers below ``size``, k site, D_k values of digit k, a, b, c bonds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from tensornet.log_space import log_or_minus_infinity, squared_modulus


@dataclass(frozen=True, eq=False)
class _Environment:
    """Masses right of a bond, (a, a) each, divided by one common scale: of all digits, and of those that keep the
    integer below ``size`` where the digits before were as large as they may be (tight)."""

    free: Tensor
    tight: Tensor


@dataclass(frozen=True, eq=False)
class BornMPS:
    """``p(v | l) = |l^T G_1[d_1] ... G_K[d_K]|^2 / Z(l)`` for v = 0 ... size - 1 with digits d, most significant first.

    ``cores`` are (a, D_k, b), real or complex, the last right bond 1; l (n, a) is the open left bond, one per sample
    (shape (1, 1) of ones for a plain state). ``size`` None keeps all D_1 ... D_K integers; else the mass of the others
    is left out of Z exactly: Z is a sum over prefixes, contracted through transfer matrices, never over v. Scales of
    cores and of l do not matter. Logarithms in nats; -inf exactly where p is 0. Raises ValueError for cores that do not
    chain, a ``size`` out of range, or an l of another width; IndexError for integers outside [0, size).

    Han et al. 2018, Phys. Rev. X 8, 031012, equations 1 to 3, with an open bond for the condition.

    >>> ghz = torch.zeros(2, 2, 2)
    >>> ghz[0, 0, 0] = ghz[1, 1, 1] = 1
    >>> state = BornMPS((torch.eye(2)[None], ghz, torch.eye(2)[..., None]))
    >>> state.log_probs(torch.ones(1, 1)).exp()
    tensor([[0.5000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.5000]])
    """

    cores: tuple[Tensor, ...]
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cores", tuple(self.cores))
        shapes = [tuple(core.shape) for core in self.cores]
        chained = all(one[-1] == other[0] for one, other in pairwise(shapes))
        if not shapes or any(len(shape) != 3 or min(shape) < 1 for shape in shapes) or not chained:
            raise ValueError(f"a Born MPS expects cores (a, D, b) that chain, got shapes {shapes}.")
        if shapes[-1][-1] != 1:
            raise ValueError(f"a Born MPS expects 1 as its last bond, got {shapes[-1][-1]}.")
        largest = math.prod(shape[1] for shape in shapes)
        if self.size is None:
            object.__setattr__(self, "size", largest)
        elif not 1 <= self.size <= largest:
            raise ValueError(f"a Born MPS expects a size from 1 to the {largest} of its digits, got {self.size}.")

    @property
    def n_kept(self) -> int:
        """How many integers have a probability."""
        assert self.size is not None
        return self.size

    def digits(self, integers: Tensor) -> Tensor:
        """Return the digits (n, K) of integers (n,), the most significant first."""
        rest, digits = integers, []
        for core in reversed(self.cores):
            digits.append(rest % core.shape[1])
            rest = rest // core.shape[1]
        return torch.stack(digits[::-1], -1)

    def rows(self) -> Tensor:
        """Return the vectors ``G_1[d_1] ... G_K[d_K]`` (v, a): amplitudes are ``l . row``. Cost O(size b^2)."""
        dense, log_scale = self._scaled_rows()
        return dense * log_scale.exp()

    def _scaled_rows(self) -> tuple[Tensor, Tensor]:
        """The rows divided by a common scale, and its logarithm."""
        dense, n_rows = self.cores[-1][..., 0].T, self.n_kept
        log_scale = dense.real.new_zeros(())
        for place in range(len(self.cores) - 2, -1, -1):
            below = math.prod(core.shape[1] for core in self.cores[place + 1 :])
            used = -(-n_rows // below)
            core = self.cores[place][:, : min(used, self.cores[place].shape[1])]
            dense = torch.einsum("adb,wb->dwa", core, dense).flatten(0, 1)
            scale = _scale(dense.abs().max())
            dense, log_scale = dense / scale, log_scale + scale.log()
        return dense[:n_rows], log_scale

    def log_probs(self, left: Tensor) -> Tensor:
        """Return ``log p(v | l)`` of all integers, (n, v): they sum to one. Cost O(size (b^2 + n a))."""
        masses = squared_modulus(self._checked(left) @ self._scaled_rows()[0].T)
        return log_or_minus_infinity(masses) - masses.sum(-1, keepdim=True).log()

    def log_prob(self, left: Tensor, integers: Tensor) -> Tensor:
        """Return ``log p(v | l)`` of one integer per sample, (n,). Cost O(K D b^3 + n K b^2): no sum over v."""
        outside = (integers < 0) | (integers >= self.n_kept)
        if bool(outside.any()):
            raise IndexError(
                f"a Born MPS expects integers from 0 to {self.n_kept - 1}, got {int(integers[outside][0])}; correct it."
            )
        digits, vector, log_scale = self.digits(integers), self._checked(left), 0.0
        for place, core in enumerate(self.cores):
            vector = torch.einsum("na,anb->nb", vector, core[:, digits[:, place]])
            scale = _scale(vector.abs().amax(-1, keepdim=True))
            vector, log_scale = vector / scale, log_scale + scale[:, 0].log()
        environments, logs = self._environments()
        mass = _masses(left, environments[0].tight)
        return log_or_minus_infinity(squared_modulus(vector[:, 0])) + 2 * log_scale - mass.log() - logs

    def leaked(self, left: Tensor) -> Tensor:
        """Return the share of the whole state's mass at integers from ``size`` up, (n,); no rounding below 0.

        Cost O(K D b^3 + n a^2).
        """
        first = self._environments()[0][0]
        return (1 - _masses(self._checked(left), first.tight) / _masses(left, first.free)).clamp(min=0)

    @torch.no_grad()
    def sample(self, left: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one integer below ``size`` per sample, (n,), digit by digit from exact conditionals; none is rejected.

        Cost O(K D b^3 + n K D b^2).
        """
        environments, _ = self._environments()
        vector, integers = self._checked(left), torch.zeros(len(left), dtype=torch.long, device=left.device)
        tight = torch.ones(len(left), dtype=torch.bool, device=left.device)
        for core, environment, last in zip(self.cores, environments[1:], self._last_digits(), strict=True):
            branches = torch.einsum("na,adb->ndb", vector, core)
            masses = _masses(branches, environment.free)
            bounded = masses.clone()
            bounded[:, last + 1 :] = 0
            bounded[:, last] = _masses(branches[:, last], environment.tight)
            masses = torch.where(tight[:, None], bounded, masses).clamp(min=0)
            drawn = torch.multinomial(masses, 1, generator=generator)[:, 0]
            vector = branches[torch.arange(len(drawn), device=drawn.device), drawn]
            vector = vector / _scale(vector.abs().amax(-1, keepdim=True))
            integers = integers * core.shape[1] + drawn
            tight = tight & (drawn == last)
        return integers

    def _last_digits(self) -> Sequence[int]:
        return self.digits(torch.tensor([self.n_kept - 1]))[0].tolist()

    def _environments(self) -> tuple[list[_Environment], Tensor]:
        """The environments of bonds 0 ... K, and the logarithm of the first one's scale."""
        one = self.cores[-1].new_ones(1, 1)
        environments, log_scale = [_Environment(one, one)], one.real.new_zeros(())
        for core, last in zip(reversed(self.cores), reversed(self._last_digits()), strict=True):
            right = environments[-1]
            each = torch.einsum("adb,bc,edc->dae", core, right.free, core.conj())
            edge = core[:, last] @ right.tight @ core[:, last].mH
            free, tight = each.sum(0), each[:last].sum(0) + edge
            scale = _scale(free.abs().max())
            log_scale = log_scale + scale.log()
            environments.append(_Environment(free / scale, tight / scale))
        return environments[::-1], log_scale

    def _checked(self, left: Tensor) -> Tensor:
        width = self.cores[0].shape[0]
        if left.ndim != 2 or left.shape[-1] != width:
            raise ValueError(f"a Born MPS expects left bonds of shape (n, {width}), got {tuple(left.shape)}.")
        return left


def _masses(vectors: Tensor, environment: Tensor) -> Tensor:
    """``x^T E x^*`` over the last axis of vectors: real."""
    return ((vectors @ environment) * vectors.conj()).sum(-1).real


def _scale(largest: Tensor) -> Tensor:
    """A positive number to divide by; a constant to autograd, since results do not depend on it."""
    return largest.detach().masked_fill(largest <= 0, 1.0)

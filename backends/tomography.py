"""Density matrices and entropies from Pauli expectations, with their statistical errors.

Axis legend: b batch, k wires, p = 4**k - 1 Pauli words; matrices (b, 2**k, 2**k).
"""

from dataclasses import replace

import torch
from torch import Tensor

from backends import linalg
from backends.estimate import Estimate
from circuits.gates import pauli_matrix


def linear_inversion(words: list[str], values: Tensor) -> Tensor:
    """Return ``2**-k (1 + sum_W <W> W)``, shape (b, 2**k, 2**k), from expectations (b, p) of all words but identity.

    Hermitian and of trace 1, but with counted shots not always positive. Cost b 16**k.

    >>> linear_inversion(["X", "Y", "Z"], torch.tensor([[0.0, 0.0, 1.0]])).real.tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    stack = _stack(words, values)
    size = stack.shape[-1]
    eye = torch.eye(size, dtype=stack.dtype, device=values.device)
    return (eye + torch.einsum("bp,pij->bij", values.to(stack.dtype), stack)) / size


def _stack(words: list[str], like: Tensor) -> Tensor:
    matrices = torch.stack([torch.from_numpy(pauli_matrix(word).copy()) for word in words])
    return matrices.to(like.device, like.dtype.to_complex())


def assemble(words: list[str], estimate: Estimate) -> Estimate:
    """Return the density matrix of an estimate of all words; a physical one (``project``) where shots were counted.

    ``stderr`` is that of the linear inversion, entry by entry.
    """
    values = linear_inversion(words, estimate.values)
    weights = _stack(words, estimate.values).abs().square() / values.shape[-1] ** 2
    stderr = torch.einsum("bp,pij->bij", estimate.stderr.square(), weights).sqrt()
    truncation = torch.einsum("bp,pij->bij", estimate.truncation_error, weights.sqrt())
    if estimate.shots is not None:
        values = project(values)
    return replace(estimate, values=values, stderr=stderr, truncation_error=truncation)


def project(matrices: Tensor) -> Tensor:
    """Return the nearest density matrices in Frobenius norm: negative eigenvalues' weight taken from the others.

    The maximum-likelihood state for Gaussian noise of equal variance. Smolin, Gambetta, Smith 2012, Phys. Rev. Lett.
    108, 070502, algorithm 1. Cost b 8**k.

    >>> project(torch.diag(torch.tensor([1.2, -0.2]))[None].to(torch.complex64)).real.round(decimals=5).tolist()
    [[[1.0, 0.0], [0.0, 0.0]]]
    """
    eigenvalues, vectors = torch.linalg.eigh(matrices)
    descending = eigenvalues.flip(-1)
    counts = torch.arange(1, descending.shape[-1] + 1, device=matrices.device)
    threshold = (descending.cumsum(-1) - 1) / counts
    kept = (descending > threshold).sum(-1, keepdim=True)
    cut = threshold.gather(-1, kept - 1)
    physical = (eigenvalues - cut).clamp(min=0)
    return (vectors * physical[..., None, :].to(vectors.dtype)) @ vectors.mH


def exact_entropy(density: Estimate, kind: str) -> Estimate:
    """Return the entropy (nats, shape (b,)) of an exactly known density matrix."""
    values = linalg.entropy(density.values, kind)
    return Estimate(values, shots=density.shots, infidelity=density.infidelity)

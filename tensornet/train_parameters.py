"""The cores of an operator train as trainable parameters: made, and filled in canonical form."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tensornet.factorise import bond_ranks
from tensornet.tensor_train import TensorTrain


def operator_parameters(
    rows: Sequence[int],
    columns: Sequence[int],
    max_rank: int,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> nn.ParameterList:
    """Zero cores `(r_{k-1}, m_k, n_k, r_k)` of bonds up to `max_rank`, to be filled.

    >>> [tuple(core.shape) for core in operator_parameters((2, 3), (4, 5), 3, None, None)]
    [(1, 2, 4, 3), (3, 3, 5, 1)]
    """
    bonds = bond_ranks([m * n for m, n in zip(rows, columns, strict=True)], max_rank)
    shapes = zip(bonds[:-1], rows, columns, bonds[1:], strict=True)
    return nn.ParameterList(nn.Parameter(torch.zeros(shape, device=device, dtype=dtype)) for shape in shapes)


@torch.no_grad()
def fill_canonical(parameters: nn.ParameterList, cores: Sequence[Tensor], norm: float | None = None) -> None:
    """Copy the canonical form of `cores` into `parameters`, all cores at one norm.

    `norm`, where given, becomes the Frobenius norm of the whole. Every bond is in its Schmidt basis, descending.

    >>> held = operator_parameters((2, 2), (2, 2), 4, None, None)
    >>> fill_canonical(held, [torch.randn_like(core) for core in held], norm=3.0)
    >>> round(TensorTrain(tuple(held)).norm.item(), 4)
    3.0
    """
    chain = TensorTrain(tuple(cores)).canonical().cores
    norms = torch.stack([torch.linalg.vector_norm(core) for core in chain])
    scale = 1.0 if norm is None else norm / norms[-1]  # the last core holds the whole norm, the others are isometries
    even = (norms.prod() * scale) ** (1 / len(chain))
    factors = torch.where(even > 0, even / norms, 1.0)  # the zero matrix has no even split
    for parameter, core, factor in zip(parameters, chain, factors, strict=True):
        parameter.copy_(core * factor)

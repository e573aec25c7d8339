"""An embedding table stored as an operator train and read row by row, never as a whole."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tensornet.contraction import reconstruct
from tensornet.factorise import balanced_factors, check_factors, padded_factors
from tensornet.tensor_train import TensorTrain
from tensornet.train_parameters import fill_canonical, operator_parameters


class TTEmbedding(nn.Module):
    """Lookup in a table `(num_embeddings, embedding_dim)` held as cores `(r_{k-1}, m_k, n_k, r_k)`.

    Row i, with digits (i_1..i_d) in the mixed radix `rows` (first most significant), is the product of the
    slices `G_k[:, i_k]`. `rows` may multiply to more than `num_embeddings` (vocabularies are often prime): the
    rows beyond are never looked up. `columns` factorise `embedding_dim`. Where not given they are balanced over
    three cores, rows descending (padded where that is more even) and columns ascending. The whole train starts
    Gaussian with a mean square of exactly 1, as nn.Embedding's.

    Raises ValueError where factorisations do not match. Source: Hrinchuk et al., EMNLP 2020 (arXiv:1901.10787).

    >>> table = TTEmbedding(256, 64, max_rank=4)
    >>> table(torch.tensor([[0, 255]])).shape, table.n_parameters
    (torch.Size([1, 2, 64]), 704)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.rows, self.columns = _split_table(num_embeddings, embedding_dim, rows, columns)
        self.cores = operator_parameters(self.rows, self.columns, max_rank, device, dtype)
        self.reset_parameters()

    @classmethod
    def from_embedding(
        cls,
        embedding: nn.Embedding,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
    ) -> "TTEmbedding":
        """The table that approximates `embedding` by TT-SVD (in float64; padding rows are zero), same device, dtype.

        Raises as the constructor, TypeError for another kind of layer, and ValueError where the table has
        options that a train cannot follow (`padding_idx`, `max_norm`). Cost: d - 1 SVDs of the table.
        """
        if not isinstance(embedding, nn.Embedding):
            raise TypeError(
                f"expected an nn.Embedding, got {type(embedding).__name__}, from_pretrained of which wraps a table"
            )
        if embedding.padding_idx is not None or embedding.max_norm is not None:
            raise ValueError("expected an embedding without padding_idx and max_norm, got one; mask the output instead")
        weight = embedding.weight.detach()
        table = cls(
            embedding.num_embeddings, embedding.embedding_dim, max_rank, rows, columns, weight.device, weight.dtype
        )
        padded = weight.new_zeros(math.prod(table.rows), table.embedding_dim, dtype=torch.float64)
        padded[: len(weight)] = weight
        train = TensorTrain.from_matrix(padded, table.rows, table.columns, max_rank)
        with torch.no_grad():
            fill_canonical(table.cores, train.cores)
        return table

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw a fresh table."""
        drawn = [torch.randn_like(core, dtype=torch.float64) for core in self.cores]
        fill_canonical(self.cores, drawn, norm=math.sqrt(math.prod(self.rows) * self.embedding_dim))

    @property
    def n_parameters(self) -> int:
        """Numbers in the cores."""
        return sum(core.numel() for core in self.cores)

    def weight(self) -> Tensor:
        """The dense table `(num_embeddings, embedding_dim)`. Cost: as much memory as the table that it saves."""
        return reconstruct(list(self.cores))[: self.num_embeddings]

    def forward(self, ids: Tensor) -> Tensor:
        """Integer `ids` `(...)` to `(..., embedding_dim)`.

        Cost: d - 1 batched products, about `2 r^2 embedding_dim` flops and `r^2 n_k` gathered numbers per core
        and id. Raises TypeError for ids that are not integers, IndexError for one out of range (reads the ids: a
        sync on an accelerator; without it an id in the padding would return a row that means nothing).
        """
        if not isinstance(ids, Tensor):
            raise TypeError(f"expected a torch tensor of ids, got {type(ids).__name__}; pass torch.as_tensor of it")
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"expected int32 or int64 ids, got {ids.dtype}; convert them with .long()")
        if ids.numel():
            low, high = torch.stack(ids.aminmax()).tolist()
            if low < 0 or high >= self.num_embeddings:
                raise IndexError(
                    f"expected ids from 0 to {self.num_embeddings - 1}, got {low} to {high}; "
                    "build the table with more num_embeddings"
                )
        left, digits = ids.reshape(-1), []
        for radix in reversed(self.rows):
            digits.append(left % radix)
            left = left // radix
        n_ids = ids.numel()
        state, width = self.cores[0].new_ones(n_ids, 1, 1), 1
        for core, digit in zip(self.cores, reversed(digits), strict=True):
            r, _, n, q = core.shape
            slices = core.permute(1, 0, 2, 3)[digit].reshape(n_ids, r, n * q)
            width *= n
            state = torch.bmm(state, slices).reshape(n_ids, width, q)
        return state.reshape(*ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """What `print(table)` shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}, rows={self.rows}, columns={self.columns}"


def _split_table(
    n_rows: int, n_columns: int, rows: Sequence[int] | None, columns: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    n_cores = len(rows or columns or (0, 0, 0))
    chosen_rows = tuple(rows) if rows else padded_factors(n_rows, n_cores)
    chosen_columns = tuple(columns) if columns else balanced_factors(n_columns, n_cores)[::-1]
    check_factors("rows", chosen_rows)
    check_factors("columns", chosen_columns)
    if math.prod(chosen_rows) < n_rows:
        raise ValueError(
            f"expected rows whose product is at least {n_rows}, got {chosen_rows} with product "
            f"{math.prod(chosen_rows)}; {padded_factors(n_rows, n_cores)} would do"
        )
    if math.prod(chosen_columns) != n_columns or len(chosen_columns) != len(chosen_rows):
        raise ValueError(
            f"expected {len(chosen_rows)} columns whose product is {n_columns}, got {chosen_columns}; "
            f"{balanced_factors(n_columns, len(chosen_rows))[::-1]} would do"
        )
    return chosen_rows, chosen_columns

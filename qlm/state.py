"""The recurrent state of a model as a value: it travels as ``past_key_values`` and can be forked, saved and loaded.

Axis legend: b batch; one tuple of tensors (b, ...) per block, empty for blocks without state.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FORMAT = "hybridqlm-state-1"

Layout = tuple[tuple[tuple[int, ...], ...], ...]
"""The shape of each state of each block, for one row."""
StateForm = tuple[int, list[list[tuple[torch.Size, torch.dtype]]]]
"""The number of blocks, and the shape, batch included, and dtype of each state of each block."""


@dataclass
class RecurrentState:
    """States of all blocks after ``seen`` tokens; constant in size, whatever the length of the text.

    Offers what ``generate()`` asks of a cache. The model replaces the tensors, never writes into them, so ``fork`` is
    a cheap copy.

    >>> state = RecurrentState(2)
    >>> state.fork().get_seq_length()
    0
    """

    n_blocks: int
    seen: int = 0
    blocks: list[tuple[Tensor, ...]] = field(default_factory=list)
    is_compileable = False

    def __post_init__(self) -> None:
        self.blocks = self.blocks or [() for _ in range(self.n_blocks)]
        if len(self.blocks) != self.n_blocks:
            raise ValueError(
                f"a state of {self.n_blocks} blocks expects {self.n_blocks} tuples of tensors, got "
                f"{len(self.blocks)}; give one for each block."
            )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens seen."""
        return self.seen

    def advance(self, n_tokens: int) -> None:
        """Count tokens that the blocks have taken in."""
        self.seen += n_tokens

    def form(self) -> StateForm:
        """The number of blocks, and the shape and dtype of each tensor of each: what the checks below look at."""
        return self.n_blocks, [[(tensor.shape, tensor.dtype) for tensor in tensors] for tensors in self.blocks]

    def check(self, n_blocks: int, batch: int) -> None:
        """Raise ValueError unless the state is one of ``n_blocks`` blocks and ``batch`` rows."""
        strange = {tensor.shape[:1] for tensors in self.blocks for tensor in tensors} - {(batch,)}
        if self.n_blocks != n_blocks or strange:
            held = max((sum(shape) for shape in strange), default=batch)
            raise ValueError(
                f"the model expects a state of {n_blocks} blocks and {batch} rows, got {self.n_blocks} blocks and "
                f"{held} rows; start from a fresh RecurrentState({n_blocks})."
            )

    def check_layout(self, layout: Layout, double: bool) -> None:
        """Raise ValueError unless each block's tensors have its shapes (a row's, without the batch) and precision.

        An axis of 0 stands for any length: it is what a state that grows with the text has at its start.
        float64 states belong to float64 models; narrower ones mix, because some blocks keep states in float32.
        """
        for position, (shapes, tensors) in enumerate(zip(layout, self.blocks, strict=True)):
            found = tuple(tuple(tensor.shape[1:]) for tensor in tensors)
            if not _fits(found, shapes):
                raise ValueError(
                    f"block {position} of the model expects states of shapes {shapes} a row, got {found}; continue a "
                    "text with the model that began it, or start from a fresh RecurrentState."
                )
            for tensor in tensors:
                if not tensor.is_floating_point() or (tensor.dtype == torch.float64) is not double:
                    expected = "float64" if double else "float32 or narrower"
                    raise ValueError(
                        f"block {position} of the model expects states of {expected}, got "
                        f"{str(tensor.dtype).removeprefix('torch.')}; continue a text with the model that began it, in "
                        "its precision."
                    )

    def _map(self, function: Callable[[Tensor], Tensor]) -> "RecurrentState":
        moved = [tuple(function(tensor) for tensor in tensors) for tensors in self.blocks]
        return RecurrentState(self.n_blocks, self.seen, moved)

    def fork(self) -> "RecurrentState":
        """Return an independent copy, from which another continuation can start."""
        return self._map(torch.clone)

    def to(self, device: torch.device | str) -> "RecurrentState":
        """Return the state on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self) -> "RecurrentState":
        """Return the state without its history, for truncated backpropagation."""
        return self._map(torch.Tensor.detach)

    def with_rows(self, rows: Tensor, other: "RecurrentState") -> "RecurrentState":
        """Return the state with another's tensors in the ``rows`` (b,) that are true.

        Both are of the same model and batch; the count of tokens stays.

        >>> own, other = (RecurrentState(1, 3, [(torch.full((2, 1), value),)]) for value in (1.0, 5.0))
        >>> own.with_rows(torch.tensor([False, True]), other).blocks[0][0].flatten().tolist()
        [1.0, 5.0]
        """

        def chosen(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(rows.view(-1, *[1] * (mine.ndim - 1)), theirs.to(mine.dtype), mine)

        pairs = zip(self.blocks, other.blocks, strict=True)
        moved = [tuple(chosen(*pair) for pair in zip(mine, theirs, strict=True)) for mine, theirs in pairs]
        return RecurrentState(self.n_blocks, self.seen, moved)

    def reset(self) -> None:
        """Forget everything, in place."""
        self.seen, self.blocks = 0, [() for _ in range(self.n_blocks)]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select batch rows in place, as beam search asks."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Select batch rows in place."""
        self.blocks = self._map(lambda tensor: tensor.index_select(0, indices.to(tensor.device))).blocks

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat batch rows in place."""
        self.blocks = self._map(lambda tensor: tensor.repeat_interleave(repeats, 0)).blocks

    def save(self, path: str | Path) -> None:
        """Write the state as safetensors; ValueError where the file cannot be written."""
        tensors = {
            f"{block}.{part}": tensor.contiguous()
            for block, parts in enumerate(self.blocks)
            for part, tensor in enumerate(parts)
        }
        metadata = {"format": _FORMAT, "n_blocks": str(self.n_blocks), "seen": str(self.seen)}
        try:
            save_file(tensors, str(path), metadata)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"a state expects a writable file in a folder that exists, got '{error}' for {path}; choose another "
                "path."
            ) from None

    @staticmethod
    def load(path: str | Path) -> "RecurrentState":
        """Read a state written by ``save``; raises ValueError for any other file."""
        try:
            with safe_open(str(path), "pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 -- not a dict
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"a saved state expects a safetensors file, got {path} ({error}); save it again."
            ) from None
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"a saved state expects the format {_FORMAT}, got {metadata.get('format')} in {path}; write it with "
                "RecurrentState.save."
            )
        n_blocks, seen = (metadata.get(name, "") for name in ("n_blocks", "seen"))
        if not (n_blocks.isdecimal() and seen.isdecimal()):
            raise ValueError(
                f"a saved state expects its number of blocks and of tokens seen, got '{n_blocks}' and '{seen}' in "
                f"{path}; write it with RecurrentState.save."
            )
        return RecurrentState(int(n_blocks), int(seen), _blocks(tensors, int(n_blocks), path))


def _fits(found: tuple[tuple[int, ...], ...], shapes: tuple[tuple[int, ...], ...]) -> bool:
    """Whether shapes are those of a layout, in which 0 is any length."""
    ranks = tuple(map(len, found)) == tuple(map(len, shapes))
    pairs = zip(found, shapes, strict=True) if ranks else ()
    return ranks and all(wanted in (0, n) for one, other in pairs for n, wanted in zip(one, other, strict=True))


def _blocks(tensors: dict[str, Tensor], n_blocks: int, path: str | Path) -> list[tuple[Tensor, ...]]:
    """Each block's tensors in order, by their names "block.part"."""
    counts = Counter(name.partition(".")[0] for name in tensors)
    names = [[f"{block}.{part}" for part in range(counts[str(block)])] for block in range(n_blocks)]
    strange = sorted(tensors.keys() - {name for parts in names for name in parts})
    if strange:
        raise ValueError(
            f"a saved state expects tensors named block.part, counted from 0 below {n_blocks} blocks, got "
            f"'{strange[0]}' in {path}; write it with RecurrentState.save."
        )
    return [tuple(tensors[name] for name in parts) for parts in names]

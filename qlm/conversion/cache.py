"""What a converted model carries between calls: states of fixed size, and keys and values for attention that is left.

Axis legend: b batch, l sequence.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin


class RecurrentLayer(CacheLayerMixin):
    """The state of one block after ``seen`` tokens, in a cache of transformers: tensors (b, ...), () at the start.

    The block replaces the tensors, never writes into them; nothing of a token can be taken back.

    >>> layer = RecurrentLayer()
    >>> layer.advance((torch.zeros(1, 3, 8),), 5)
    >>> layer.get_seq_length(), layer.get_mask_sizes(2)
    (5, (7, 0))
    """

    is_sliding = False
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()
        self.state: tuple[Tensor, ...] = ()
        self.seen = 0

    def advance(self, state: tuple[Tensor, ...], n_tokens: int) -> None:
        """Take the state after ``n_tokens`` more."""
        self.state, self.seen = state, self.seen + n_tokens

    def get_seq_length(self) -> int:
        """Number of tokens seen."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As of attention: masks of the layers beside this one may be measured here."""
        return self.seen + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is none."""
        return -1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Refused, as ``update`` is."""
        self.update(key_states, value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Refused: a layer that was replaced has neither keys nor values."""
        raise TypeError(
            "a replaced layer expects a block's state, got keys and values; use this cache with the model that made it."
        )

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: a state cannot forget its last tokens."""
        raise ValueError(
            f"a recurrent state expects to go forward, got {tokens_to_remove} tokens to take back; copy the cache "
            "before them."
        )

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.seen = (), 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select rows, as beam search asks."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Select rows."""
        self._map(lambda tensor: tensor.index_select(0, indices.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat rows."""
        self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def _map(self, function: Callable[[Tensor], Tensor]) -> None:
        self.state = tuple(function(tensor) for tensor in self.state)


class ConvertedCache(DynamicCache):
    """One ``RecurrentLayer`` for each layer that was replaced, transformers' own layers for the others.

    >>> from transformers import LlamaConfig
    >>> ConvertedCache(LlamaConfig(num_hidden_layers=3), [0, 2]).layers
    [RecurrentLayer, DynamicLayer, RecurrentLayer]
    """

    def __init__(self, base: PreTrainedConfig, replaced: list[int]) -> None:
        super().__init__(config=base)
        for index in replaced:
            self.layers[index] = RecurrentLayer()

    def n_bytes(self) -> int:
        """Bytes that the cache holds: constant in the length where all layers were replaced."""
        held: list[Tensor | None] = []
        for layer in self.layers:
            held.extend(layer.state if isinstance(layer, RecurrentLayer) else (layer.keys, layer.values))  # pyright: ignore[reportAttributeAccessIssue] -- a cache of attention
        return sum(tensor.numel() * tensor.element_size() for tensor in held if isinstance(tensor, torch.Tensor))

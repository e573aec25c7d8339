"""The configuration of a model: a list of blocks and a head."""

import reprlib
from dataclasses import fields
from inspect import formatannotation
from typing import Any, TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import PreTrainedConfig

from circuits._suggest import unknown
from qlm.controls import check_mode
from qlm.presets import PRESETS
from qlm.registry import complete_entry, complete_head, head_class
from qlm.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE

_HUGGING_FACE_KEYS = frozenset(
    (
        "attn_implementation",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "output_attentions",
        "torch_dtype",
        "transformers_version",
        "use_return_dict",
    )
)
"""Keys that transformers itself writes or passes beside a configuration's fields."""


T = TypeVar("T")


def _in_one_sentence(cls: type[T]) -> type[T]:
    """Make a key of a wrong type a TypeError, as everywhere else: ``strict`` raises errors that are neither."""
    assign = cls.__setattr__
    expected = {field.name: formatannotation(field.type).replace("typing.", "") for field in fields(cls)}  # pyright: ignore[reportArgumentType] -- a dataclass

    def __setattr__(self: T, name: str, value: Any) -> None:
        try:
            assign(self, name, value)
        except StrictDataclassFieldValidationError:
            raise TypeError(
                f"config key '{name}' expects {expected[name]}, got {reprlib.repr(value)}; correct it."
            ) from None

    cls.__setattr__ = __setattr__  # pyright: ignore[reportAttributeAccessIssue] -- as strict does
    return cls


@_in_one_sentence
@strict
class QLMConfig(PreTrainedConfig):
    """Configuration of ``QLMForCausalLM``: a byte vocabulary, a width, a list of blocks, a head.

    ``blocks`` is a list of dictionaries with a ``kind`` of ``qlm.registry.BLOCKS`` and that block's keys; missing keys
    are filled in, and circuits are stored as JSON, so that a checkpoint holds the circuit itself. ``head`` is such a
    dictionary too, with a ``kind`` of ``qlm.registry.HEADS``; None is the linear one. ``quantum`` is the mode of all
    parts that do not say their own: circuit, twin, separable, frozen or off. ``tie_word_embeddings`` None ties a head
    that can be tied. ``recorded_backend`` notes where a model was trained and opens nothing. The default is a small
    model. Raises ValueError for an unknown key, block, head or preset (did you mean ...) and for a tie to a head that
    has no such weight, TypeError for a value of another type than its key's.

    >>> QLMConfig.preset("tiny-hybrid", quantum="twin").blocks[1]["quantum"]
    'twin'
    """

    model_type = "qlm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 -- transformers' class attribute

    vocab_size: int = VOCAB_SIZE
    d_model: int = 64
    blocks: list[dict[str, Any]] | None = None
    head: dict[str, Any] | None = None
    quantum: str = "circuit"
    recorded_backend: str = "statevector"
    initializer_range: float | int = 0.1
    use_cache: bool = True
    tie_word_embeddings: bool | None = None  # pyright: ignore[reportIncompatibleVariableOverride] -- None: by the head
    bos_token_id: int | None = EOS_ID
    eos_token_id: int | list[int] | None = EOS_ID
    pad_token_id: int | None = PAD_ID

    def __post_init__(self, **kwargs: Any) -> None:
        own = {field.name for field in fields(self)}  # pyright: ignore[reportArgumentType] -- a dataclass, by transformers
        for name in kwargs:
            if name not in own and name not in _HUGGING_FACE_KEYS and not name.startswith("_"):
                raise ValueError(unknown("config key", name, QLM_KEYS))
        if self.d_model < 1 or self.vocab_size < 2:
            raise ValueError(
                f"a model expects d_model >= 1 and vocab_size >= 2, got {self.d_model}, {self.vocab_size}."
            )
        check_mode(self.quantum)
        entries = PRESETS["tiny-hybrid"]["blocks"] if self.blocks is None else self.blocks
        self.blocks = [complete_entry(entry, self.quantum) for entry in entries]
        self.head = complete_head({"kind": "linear"} if self.head is None else self.head, self.quantum, self.vocab_size)
        self._settle_tie(self.head["kind"])
        super().__post_init__(**kwargs)

    def _settle_tie(self, kind: str) -> None:
        can_tie = head_class(kind).can_tie
        if self.tie_word_embeddings and not can_tie:
            raise ValueError(
                f"head '{kind}' has no weight of the embedding's shape, got tie_word_embeddings=True; leave it out."
            )
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = can_tie

    @property
    def hidden_size(self) -> int:
        """The model's width, under the name that other packages ask for."""
        return self.d_model

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks, under the name that other packages ask for."""
        return len(self.blocks or ())

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "QLMConfig":
        """Return a named configuration with some keys changed.

        >>> QLMConfig.preset("tiny-hybrid").num_hidden_layers > 2
        True
        """
        if name not in PRESETS:
            raise ValueError(unknown("preset", name, PRESETS))
        return cls(**{**PRESETS[name], **changes})


QLM_KEYS = ("vocab_size", "d_model", "blocks", "head", "quantum", "recorded_backend", "initializer_range", "use_cache")
"""The keys that describe our models, beside those that every transformers config has."""

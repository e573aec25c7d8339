"""What to train and how: the values that a run's folder records."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from backends.base import Backend
from backends.registry import open_backend
from qlm.config import QLMConfig
from qlm.data import Corpus
from qlm.encoders import BYTES, ByteEncoder, TextEncoder
from qlm.ordered import OrderedCorpus
from qlm.runs import RunRecord


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train: AdamW (weight decay on matrices alone), linear warm-up, cosine down to a share of the rate.

    ``batch_size`` windows of ``context`` tokens a step; warm-up is at most a fifth of the steps; the gradient's norm is
    clipped. ``validation_bytes`` of text are measured every ``validate_every`` steps. ``stateful``: each row of a batch
    reads on where it stopped, with the state it had (``qlm.ordered_windows``). ``tokenizer`` as ``qlm.tokenizers``
    takes it.

    >>> TrainingRecipe(steps=10).warmup_steps
    2
    """

    steps: int = 400
    batch_size: int = 8
    context: int = 256
    learning_rate: float = 1e-2
    final_rate_share: float = 0.05
    warmup: int = 40
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    log_every: int = 10
    save_every: int = 100
    validate_every: int = 100
    validation_bytes: int = 16384
    stateful: bool = False
    tokenizer: str = BYTES

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        least = {"steps": 1, "batch_size": 1, "context": 2, "log_every": 1, "save_every": 1, "validate_every": 1}
        for name, value in {**least, "validation_bytes": 1}.items():
            if getattr(self, name) < value:
                raise ValueError(f"training expects {name} of at least {value}, got {getattr(self, name)}; raise it.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"training expects a positive learning rate, got {self.learning_rate}; try 0.01.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"training expects a seed from 0 to 2**32 - 1, got {self.seed}; choose one of them.")

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up that are taken."""
        return min(self.warmup, self.steps // 5)


@dataclass(frozen=True)
class Plan:
    """What to train on what: everything that a run's folder records. ``data`` names the corpus' source.

    ``corpus`` is an ordered one where the recipe is stateful. ``encoder`` is what the recipe's tokenizer says.
    ``allow_qpu_seconds``: what the run may take of a paid device in all; ``fresh``: no request is answered from the
    ledger. Neither is recorded, so that a resumed run may be allowed more; nor is ``tensorboard``, which asks for its
    event files beside metrics.jsonl.
    """

    config: QLMConfig
    corpus: Corpus | OrderedCorpus = field(repr=False)
    recipe: TrainingRecipe = TrainingRecipe()
    data: str = "python-docs"
    backend: str | Backend = "statevector"
    allow_qpu_seconds: int | None = None
    fresh: bool = False
    encoder: TextEncoder = field(default_factory=ByteEncoder, repr=False)
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.recipe.stateful is not isinstance(self.corpus, OrderedCorpus):
            expected = "load_ordered" if self.recipe.stateful else "load_corpus"
            raise ValueError(
                f"a plan with stateful={self.recipe.stateful} expects the corpus of {expected}, got one of type "
                f"{type(self.corpus).__name__}; load it so."
            )

    def record(self) -> RunRecord:
        """Return what run.json holds."""
        recipe = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.recipe).items()
        }
        return RunRecord(self.data, self.corpus.sha256, open_backend(self.backend).spec, recipe)


def with_changes(recipe: TrainingRecipe, **changes: Any) -> TrainingRecipe:
    """Return the recipe with the changes that are not None.

    >>> with_changes(TrainingRecipe(), steps=7, seed=None).steps
    7
    """
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})

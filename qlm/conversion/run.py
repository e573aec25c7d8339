"""A whole conversion: a teacher, its student, what each stage is worth, and the folder that is left."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qlm.checkpoint_files import CheckpointError, local_folder, read_object
from qlm.console import quiet_transformers
from qlm.conversion.config import ARCHITECTURES, check_model_type
from qlm.conversion.distil import ConversionRecipe, Told, align, alignment_errors, distil, unheard
from qlm.conversion.gate import Causality, measure_causality, refuse_leak
from qlm.conversion.modeling import ConvertedForCausalLM, replace_attention
from qlm.conversion.text import Score, TokenText, score
from qlm.tokenizer import ByteTokenizer

RECORD = "conversion.json"
"""The figures, beside the model."""
_OBSERVED_WINDOWS = 8


@dataclass(frozen=True)
class Conversion:
    """A converted model in evaluation mode, and what was measured of it on validation text.

    ``scores`` by stage: "teacher", "replaced" (blocks fresh), "aligned", "distilled". ``errors``: by layer, the blocks'
    relative square error before and after alignment, see ``alignment_errors``.
    """

    model: ConvertedForCausalLM = field(repr=False)
    scores: dict[str, Score]
    errors: dict[int, tuple[float, float]]
    causality: Causality

    def save(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write config, safetensors, tokenizer and figures; LeakError, and nothing written, for a model that leaks."""
        refuse_leak(self.causality)
        path = Path(folder)
        with quiet_transformers():
            self.model.save_pretrained(path)
            if tokenizer is not None:
                tokenizer.save_pretrained(path)
        record = {
            "scores": {stage: asdict(found) for stage, found in self.scores.items()},
            "alignment_errors": {index: list(pair) for index, pair in self.errors.items()},
            "causality": asdict(self.causality),
        }
        (path / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def convert(
    teacher: PreTrainedModel,
    train: TokenText,
    valid: TokenText,
    recipe: ConversionRecipe | None = None,
    block: dict[str, Any] | None = None,
    layers: list[int] | None = None,
    told: Told = unheard,
) -> Conversion:
    """Replace attention by blocks, align them, distil the whole, and put it through the causality gate.

    The teacher stays as it is; the blocks are drawn with the recipe's seed, and torch's random state is untouched.
    Raises LeakError before a step is made where the fresh model leaks, and ValueError as ``ConvertedConfig``, ``align``
    and ``distil`` do; a leak that training opens is reported, and refused by ``Conversion.save``.
    """
    chosen = ConversionRecipe() if recipe is None else recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        student = replace_attention(teacher.eval(), block, layers)
        refuse_leak(measure_causality(student))
        watched = valid.windows(_OBSERVED_WINDOWS, chosen.context, torch.Generator().manual_seed(chosen.seed))
        scores = {
            "teacher": score(teacher, valid, chosen.context),
            "replaced": score(student, valid, chosen.context),
        }
        before = _errors(student, teacher, watched)
        align(student, teacher, train, chosen, told)
        after = _errors(student, teacher, watched)
        scores["aligned"] = score(student, valid, chosen.context)
        distil(student, teacher, train, chosen, told)
        scores["distilled"] = score(student, valid, chosen.context)
    student.eval()
    errors = {index: (before[index], after[index]) for index in before}
    return Conversion(student, scores, errors, measure_causality(student))


def load_teacher(folder: str | Path) -> PreTrainedModel:
    """Read the model to convert from a folder, from safetensors alone, in float32 and evaluation mode.

    No code of the folder is run, and no network asked. Raises CheckpointError (a ValueError) for a folder with a
    pickle, without a config, or with tensors missing; ValueError for a model of another layout than Llama's.
    """
    path = local_folder(Path(folder))
    assert path is not None  # a Path is never a name on the Hub
    content = read_object(path / "config.json")
    if content is None:
        raise CheckpointError(f"a conversion expects a config.json, got no readable one in {path}; check the path.")
    check_model_type(content.get("model_type"), str(path))
    cls = getattr(transformers, ARCHITECTURES[content["model_type"]])
    with quiet_transformers():
        model, info = cls.from_pretrained(
            path, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    if info["missing_keys"]:
        raise CheckpointError(
            f"a model to convert expects every tensor, got none for '{min(info['missing_keys'])}' in {path}; restore "
            "the file from a copy."
        )
    return model.eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer beside a model: ours of bytes, or any that transformers knows; no code of the folder is run.

    Raises CheckpointError (a ValueError) for a folder without one.
    """
    path = Path(folder)
    content = read_object(path / "tokenizer_config.json")
    if content is None:
        raise CheckpointError(
            f"a conversion expects a tokenizer beside the model, got no tokenizer_config.json in {path}; save it "
            "there, for bytes with ByteTokenizer().save_pretrained."
        )
    with quiet_transformers():
        if content.get("tokenizer_class") == ByteTokenizer.__name__:
            return ByteTokenizer.from_pretrained(path, local_files_only=True)
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


@torch.no_grad()
def _errors(student: ConvertedForCausalLM, teacher: PreTrainedModel, ids: torch.Tensor) -> dict[int, float]:
    found = alignment_errors(student, teacher, ids.to(teacher.device))
    return {index: float(error) for index, error in found.items()}

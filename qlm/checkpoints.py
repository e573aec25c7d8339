"""Reading a trained model from its folder: safetensors and JSON alone, and one sentence for anything else."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from backends.base import Backend
from backends.validate import runnable
from qlm.config import QLMConfig
from qlm.console import quiet_transformers
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import VOCAB_SIZE

WEIGHTS = "model.safetensors"
RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_PICKLES = frozenset((".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"))
_TIED = "lm_head.weight"


class CheckpointError(ValueError):
    """A folder that is no checkpoint of ours, or a damaged one; the message is one sentence with a remedy.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


def load_model(folder: str | Path, backend: str | Backend = "statevector") -> QLMForCausalLM:
    """Return the model that ``save_pretrained`` wrote, in evaluation mode, its circuits on ``backend``.

    Everything is checked before a weight is read: no pickle beside it, our model_type, every tensor present in its
    shape, circuits that fit the backend. Raises CheckpointError, and ValueError for config keys and backends.
    """
    path = Path(folder)
    config = read_config(path)
    _check_weights(path, config)
    try:
        with quiet_transformers():
            model = QLMForCausalLM.from_pretrained(
                path, config=config, backend=backend, use_safetensors=True, local_files_only=True
            )
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(_damaged(path, str(error).splitlines()[0])) from None
    check_circuits(model)
    return model.eval()


def check_circuits(model: QLMForCausalLM) -> None:
    """Check that each circuit fits its layer's backend, and the vocabulary bytes; ValueError names the layer."""
    if model.config.vocab_size < VOCAB_SIZE:
        raise IndexError(
            f"token ids of bytes run from 0 to {VOCAB_SIZE - 1}, got a vocabulary of {model.config.vocab_size}; set "
            f"vocab_size to {VOCAB_SIZE} or more."
        )
    for name, layer in model.quantum_layers():
        try:
            runnable(layer.backend.capabilities, layer.circuit)
        except ValueError as error:
            raise ValueError(f"layer '{name}' on backend '{layer.backend.spec}': {error}") from None


def check_resumable(checkpoint: Path, model: QLMForCausalLM) -> None:
    """Check that a checkpoint-N folder is whole, before Trainer reads it; CheckpointError otherwise."""
    _check_names(checkpoint, _shapes_of_model(model))
    for name in RESUME_FILES:
        if not zipfile.is_zipfile(checkpoint / name):
            raise CheckpointError(
                f"--resume expects a whole {name}, got a missing or truncated one in {checkpoint}; remove that folder "
                "to resume from the checkpoint before it."
            )
    if _read_json(checkpoint / "trainer_state.json") is None:
        raise CheckpointError(
            f"--resume expects a trainer_state.json, got none that can be read in {checkpoint}; remove that folder to "
            "resume from the checkpoint before it."
        )


def read_config(folder: str | Path) -> QLMConfig:
    """Return a checkpoint's configuration; CheckpointError where it is not ours, or where a pickle lies beside it."""
    path = Path(folder)
    if not path.is_dir():
        raise CheckpointError(f"--model expects the folder of a trained model, got {path}, which is no folder.")
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in _PICKLES:
            raise CheckpointError(
                f"a checkpoint expects safetensors and JSON alone, got {file.name} in {path}, which may hold a pickle; "
                "remove it, or name the folder of the finished run."
            )
    content = _read_json(path / "config.json")
    if content is None:
        raise CheckpointError(f"a checkpoint expects a config.json, got no readable one in {path}; check --model.")
    if content.get("model_type") != QLMConfig.model_type:
        raise CheckpointError(
            f"a checkpoint expects model_type '{QLMConfig.model_type}', got {content.get('model_type')!r} in {path}; "
            "name a model that qlm train wrote."
        )
    return read_keys(content, str(path / "config.json"))


def read_keys(content: dict[str, Any], origin: str, preset: str | None = None) -> QLMConfig:
    """Return the configuration of keys that a file held, laid over a preset; ValueError or TypeError names the origin.

    >>> read_keys({"d_model": 32}, "a.json", "tiny-hybrid").d_model
    32
    """
    try:
        return QLMConfig(**content) if preset is None else QLMConfig.preset(preset, **content)
    except StrictDataclassError as error:
        said = str(error).rpartition("TypeError: ")[2]
        raise TypeError(f"a configuration expects each key in its type, got another in {origin}: {said}") from None


def _check_weights(path: Path, config: QLMConfig) -> None:
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(
            f"a checkpoint expects a {WEIGHTS}, got none in {path}; finish the run first, with qlm train --resume."
        )
    with torch.device("meta"):
        model = QLMForCausalLM(config)
    _check_names(path, _shapes_of_model(model))


def _shapes_of_model(model: QLMForCausalLM) -> dict[str, list[int]]:
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        shapes.pop(_TIED)
    return shapes


def _check_names(path: Path, expected: dict[str, list[int]]) -> None:
    """Compare a safetensors file's header with a model's tensors."""
    try:
        with safe_open(str(path / WEIGHTS), "pt") as opened:
            found = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 -- not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, str(error))) from None
    for name in sorted(expected.keys() ^ found.keys()):
        side = "lacks" if name in expected else "has an unknown"
        raise CheckpointError(_damaged(path, f"one that {side} tensor '{name}'"))
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(_damaged(path, f"shape {found[name]} instead of {shape} for tensor '{name}'"))


def _damaged(path: Path, what: str) -> str:
    return (
        f"a checkpoint expects a whole {WEIGHTS} that fits its config.json, got {what} in {path}; restore the file "
        "from a copy, or train again."
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

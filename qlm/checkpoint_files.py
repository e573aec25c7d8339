"""What the folder of a trained model must hold, checked before a tensor is read: one sentence for anything else."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from qlm.config import QLMConfig

WEIGHTS = "model.safetensors"
RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_HEAD = "lm_head."
_PICKLES = frozenset((".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"))

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(ValueError):
    """A folder that is no checkpoint of ours, or a damaged one; the message is one sentence with a remedy.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


def local_folder(name: str | os.PathLike[str], subfolder: str = "") -> Path | None:
    """Return the folder that a name stands for, free of pickles, or None for the name of a repository on the Hub.

    Every ``os.PathLike``, every string that is no valid repository's name, and every string that begins with the name
    of a folder here, is a path. Raises CheckpointError for a path that is no folder, and for a folder with a pickle in
    it, even a valid one.

    >>> local_folder("someone/some-model") is None
    True
    """
    folder = Path(name)
    if not folder.is_dir() and isinstance(name, str) and _is_hub_name(name):
        return None
    folder = folder / subfolder
    if not folder.is_dir():
        raise CheckpointError(
            f"a checkpoint expects the folder of a trained model, got {folder}, which is no folder; check the path."
        )
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _PICKLES:
            raise CheckpointError(
                f"a checkpoint expects safetensors and JSON alone, got {file.name} in {folder}, which may hold a "
                f"pickle; {_remedy(folder)}."
            )
    return folder


def _is_hub_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(Path(name).parts[0]).exists()


def _remedy(folder: Path) -> str:
    if (folder / "trainer_state.json").is_file():
        return (
            "Trainer alone resumes from this folder: name that of the finished run, or copy config.json and the "
            "safetensors to a folder of their own"
        )
    return "remove it"


def adapted_base(folder: Path) -> str | None:
    """Return the name of the model that a folder of PEFT's adapts; None where the folder holds a model itself."""
    if (folder / "config.json").is_file() or not (folder / _ADAPTER).is_file():
        return None
    base = (read_object(folder / _ADAPTER) or {}).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"an adapter expects base_model_name_or_path in its {_ADAPTER}, got none in {folder}; name the base there, "
            "or load the base and then PeftModel.from_pretrained(base, folder)."
        )
    return base


def read_config(folder: str | Path) -> QLMConfig:
    """Return a checkpoint's configuration; CheckpointError where it is not ours, or where a pickle lies beside it."""
    path = local_folder(Path(folder))
    assert path is not None  # a Path is never a name on the Hub
    content = read_object(path / "config.json")
    if content is None:
        raise CheckpointError(f"a checkpoint expects a config.json, got no readable one in {path}; check the path.")
    if content.get("model_type") != QLMConfig.model_type:
        raise CheckpointError(
            f"a checkpoint expects model_type '{QLMConfig.model_type}', got {content.get('model_type')!r} in {path}; "
            "name a model that qlm train or save_pretrained wrote."
        )
    return read_keys(content, str(path / "config.json"))


def read_keys(content: dict[str, Any], origin: str, preset: str | None = None) -> QLMConfig:
    """Return the configuration of keys that a file held, laid over a preset; ValueError or TypeError names the origin.

    >>> read_keys({"d_model": 32}, "a.json", "tiny-hybrid").d_model
    32
    """
    try:
        return QLMConfig(**content) if preset is None else QLMConfig.preset(preset, **content)
    except TypeError as error:
        raise TypeError(f"{origin}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def check_weights(folder: Path, model: PreTrainedModel, variant: str | None = None) -> None:
    """Compare the headers of a folder's safetensors with a model's tensors (meta ones will do); CheckpointError."""
    said = _misfit(_stored(folder, variant), model)
    if said is not None:
        raise CheckpointError(_damaged(folder, said))


def check_state_dict(tensors: Mapping[str, Any], model: PreTrainedModel) -> None:
    """Compare a state dict with a model's tensors (meta ones will do); CheckpointError."""
    tied = model.all_tied_weights_keys
    said = _misfit({name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in tied}, model)
    if said is not None:
        raise CheckpointError(
            f"state_dict expects all tensors of the config's model and no other, got {said}; pass the state_dict() of "
            "a model with the same config."
        )


def _misfit(found: Shapes, model: PreTrainedModel) -> str | None:
    """Say how stored tensors differ from a model's; None where a model comes out whole.

    A model without a head is read from one with a head, whose own tensors are left out; one with a head is read from
    one without where the head is tied to the embedding.
    """
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }
    prefix = f"{model.base_model_prefix}."
    has_head, had_head = (any(name.startswith(prefix) for name in names) for names in (expected, found))
    if had_head and not has_head:
        found = {name.removeprefix(prefix): shape for name, shape in found.items() if not name.startswith(_HEAD)}
    elif has_head and not had_head:
        found = {name if name.startswith(_HEAD) else prefix + name: shape for name, shape in found.items()}
    for name in sorted(expected.keys() ^ found.keys()):
        return f"one that {'lacks' if name in expected else 'has an unknown'} tensor '{name}'"
    for name, shape in expected.items():
        if found[name] != shape:
            return f"shape {list(found[name])} instead of {list(shape)} for tensor '{name}'"
    return None


def _stored(folder: Path, variant: str | None) -> Shapes:
    """Names and shapes of all tensors in model.safetensors, or in the shards that its index names."""
    whole, index = folder / _named(WEIGHTS, variant), folder / _named(_INDEX, variant)
    if whole.is_file():
        return _header(whole)
    if not index.is_file():
        raise CheckpointError(
            f"a checkpoint expects {whole.name}, got none in {folder}; finish the run first, with qlm train --resume."
        )
    homes = (read_object(index) or {}).get("weight_map")
    if not isinstance(homes, dict) or not all(_is_shard(name) for name in homes.values()):
        raise CheckpointError(_damaged(folder, f"an {index.name} that names no safetensors of this folder"))
    headers = {shard: _header(folder / shard) for shard in sorted(set(homes.values()))}
    found = {name: shape for header in headers.values() for name, shape in header.items()}
    for name, shard in homes.items():
        if name not in headers[shard]:
            raise CheckpointError(_damaged(folder, f"{shard}, which lacks tensor '{name}'"))
    if len(found) != sum(map(len, headers.values())):
        raise CheckpointError(_damaged(folder, "a tensor that is in two of its files"))
    return found


def _named(file: str, variant: str | None) -> str:
    stem, _, suffix = file.rpartition(".")
    return file if variant is None else f"{stem}.{variant}.{suffix}"


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _header(file: Path) -> Shapes:
    try:
        with safe_open(str(file), "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 -- no dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(file.parent, f"{file.name} with '{error}'")) from None


def _damaged(folder: Path, what: str) -> str:
    return (
        f"a checkpoint expects a whole {WEIGHTS} that fits its config.json, got {what} in {folder}; restore the file "
        "from a copy, or train again."
    )


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is none that can be read.

    >>> read_object(Path("nowhere.json")) is None
    True
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

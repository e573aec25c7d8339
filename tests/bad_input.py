"""What the tests of bad input share: a saved model, ways to damage it, and how a command refuses."""

from pathlib import Path

import torch
from command_line import qlm
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_config

from qlm.modeling import QLMForCausalLM


def save_model(path: Path) -> Path:
    """Save an untrained model."""
    torch.manual_seed(0)
    QLMForCausalLM(tiny_config()).save_pretrained(path)
    return path


def refused(*arguments: object, text: str | None = None) -> str:
    """Run a command that must be refused; return its one sentence."""
    result = qlm(*arguments, text=text)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line


def damage(folder: Path, name: str, index: int, value: float) -> None:
    """Overwrite one number of a saved model."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[index] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

"""Reading a trained model from its folder, ready to use, and what a run needs to be resumed."""

import zipfile
from pathlib import Path

from backends.base import Backend
from backends.validate import runnable
from qlm.checkpoint_files import RESUME_FILES, CheckpointError, check_weights, read_object
from qlm.console import quiet_transformers
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import VOCAB_SIZE


def load_model(folder: str | Path, backend: str | Backend = "statevector") -> QLMForCausalLM:
    """Return the model that ``save_pretrained`` wrote, in evaluation mode, its circuits on ``backend``.

    ``from_pretrained`` of a folder, without transformers' chatter; its checks, and those of ``check_circuits``. Raises
    CheckpointError, and ValueError for config keys and backends.
    """
    with quiet_transformers():
        model = QLMForCausalLM.from_pretrained(Path(folder), backend=backend)
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
    check_weights(checkpoint, model)
    for name in RESUME_FILES:
        if not zipfile.is_zipfile(checkpoint / name):
            raise CheckpointError(
                f"--resume expects a whole {name}, got a missing or truncated one in {checkpoint}; remove that folder "
                "to resume from the checkpoint before it."
            )
    if read_object(checkpoint / "trainer_state.json") is None:
        raise CheckpointError(
            f"--resume expects a trainer_state.json, got none that can be read in {checkpoint}; remove that folder to "
            "resume from the checkpoint before it."
        )

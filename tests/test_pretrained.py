"""A model saved is the model loaded: weights, circuits, what is frozen; never a backend, never a pickle.

Axis legend: b batch, l sequence, v vocabulary.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import BLOCKS, assert_same_weights, logits, tiny_ids, tiny_model
from torch import nn
from transformers import PreTrainedModel

from circuits import Circuit, Input, Op, Weight
from qlm import QLMConfig, QLMForCausalLM
from qlm.controls import QUANTUM_MODES


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[QLMForCausalLM, Path]:
    model, folder = tiny_model(), tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("mode", QUANTUM_MODES)
def test_saved_and_loaded_model_is_the_same(mode: str, tmp_path: Path) -> None:
    model = tiny_model(quantum=mode)
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(model, loaded)
    torch.testing.assert_close(logits(loaded), logits(model))  # equal weights at other addresses: other SIMD remainders
    assert loaded.config.blocks == model.config.blocks
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad} == frozen
    assert ("model.layers.1.core.layer.weights" in frozen) is (mode == "frozen")
    layers = dict(model.model.quantum_layers())
    assert bool(layers) is (mode in ("circuit", "separable", "frozen"))
    for name, layer in loaded.model.quantum_layers():
        assert torch.equal(layer.weights, layers[name].weights)


def test_checkpoint_holds_the_circuit_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A circuit of the user's own, and one of the library after the library has changed."""
    own = Circuit(2, (Op("rx", (0,), (Input(0, scale=2.0),)), Op("ryy", (0, 1), (Weight(0, shift=0.5),))))
    model = tiny_model(blocks=[BLOCKS[0], {"kind": "quantum_router", "circuit": own.to_json()}, BLOCKS[1]])
    model.save_pretrained(tmp_path)

    def changed(n_wires: int, depth: int) -> Circuit:
        return own

    monkeypatch.setattr("qlm.blocks.quantum_router.reuploading", changed)
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    circuits = [layer.circuit for _, layer in loaded.model.quantum_layers()]
    assert circuits == [layer.circuit for _, layer in model.model.quantum_layers()]
    assert circuits[0] == own
    assert circuits[1] != own
    torch.testing.assert_close(logits(loaded), logits(model))
    json.loads((tmp_path / "config.json").read_text())


def test_caller_decides_the_backend(saved: tuple[QLMForCausalLM, Path]) -> None:
    pytest.importorskip("qiskit_aer")
    model, folder = saved
    loaded = QLMForCausalLM.from_pretrained(folder, backend="aer")
    assert [layer.backend.spec for _, layer in loaded.model.quantum_layers()] == ["aer"]
    assert loaded.config.recorded_backend == "aer"
    assert_same_weights(model, loaded)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-4, rtol=0)
    loaded.use_backend("statevector")
    assert loaded.config.recorded_backend == "statevector"
    torch.testing.assert_close(logits(loaded), logits(model))


def test_recorded_backend_is_never_opened(saved: tuple[QLMForCausalLM, Path], tmp_path: Path) -> None:
    model, _ = saved
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["recorded_backend"] == "statevector"
    config["recorded_backend"] = "ibm:ibm_torino?shots=4096"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert QLMConfig.from_pretrained(tmp_path).recorded_backend == "ibm:ibm_torino?shots=4096"
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    assert [layer.backend.spec for _, layer in loaded.model.quantum_layers()] == ["statevector"]
    torch.testing.assert_close(logits(loaded), logits(model))


def test_a_checkpoints_quantum_mode_is_its_own(saved: tuple[QLMForCausalLM, Path]) -> None:
    with pytest.raises(ValueError, match="each block's own quantum mode, got quantum='twin'"):
        QLMForCausalLM.from_pretrained(saved[1], quantum="twin")


@pytest.mark.filterwarnings("ignore")
def test_missing_weights_are_drawn_and_given_ones_kept(saved: tuple[QLMForCausalLM, Path], tmp_path: Path) -> None:
    model, folder = saved
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    ends = ("0.prediction", "0.value_gate.weight", "1.core.layer.weights", "2.up.bias", "3.norm.weight")
    missing = {name for name in weights if name.endswith(ends)}
    assert len(missing) == len(ends)
    save_file(
        {name: weights[name] for name in weights.keys() - missing}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    unchecked = PreTrainedModel.from_pretrained.__func__  # ours refuses the folder
    loaded = unchecked(QLMForCausalLM, tmp_path, use_safetensors=True).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor) is (name not in missing), name
        assert bool((loaded[name].abs() < 100).all()), name  # NaN, where memory was left as it was, fails here


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_circuit_weights(saved: tuple[QLMForCausalLM, Path], dtype: torch.dtype) -> None:
    model, folder = saved
    cast = copy.deepcopy(model)
    nn.Module.to(cast, dtype)  # in place, as modules are
    for low in (cast, QLMForCausalLM.from_pretrained(folder, dtype=dtype)):
        for (_, layer), (_, exact) in zip(low.model.quantum_layers(), model.model.quantum_layers(), strict=True):
            assert torch.equal(layer.weights, exact.weights)
            assert layer.weights.dtype == torch.float32
        assert low.lm_head.weight.dtype == dtype
        values = logits(low)
        assert values.dtype == dtype
        assert bool(torch.isfinite(values).all())
        low.train()(tiny_ids(), labels=tiny_ids()).loss.backward()

"""The model: its loss, its cache, its precisions, its configuration and its errors.

Axis legend: b batch, l sequence, v vocabulary.
"""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    BLOCKS,
    assert_same_weights,
    circuit_weights,
    logits,
    router_of,
    still_blocks,
    tiny_config,
    tiny_ids,
    tiny_model,
)
from torch.nn import functional

from qlm import QLMConfig, QLMForCausalLM, QLMModel, QuantumLayer
from qlm.controls import QUANTUM_MODES
from qlm.presets import PRESETS
from qlm.pretrained import QLMPreTrainedModel


def test_double_precision() -> None:
    model = tiny_model()
    single = logits(model)
    double = logits(model.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_autocast_trains() -> None:
    model = tiny_model(spread=0.1).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tiny_ids(), labels=tiny_ids())
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name


def test_autocast_costs_the_rounding_of_bfloat16() -> None:
    """Every token on the circuit and one rank, so that no choice between paths lies within a rounding.

    A logit passes some ten roundings of relative size eps / sqrt(12): the error's root mean square stays below
    2 eps of the logits' spread. A circuit that is 0.3 rad off does not.
    """
    model = tiny_model(blocks=[{**entry, "ranks": [2]} if "ranks" in entry else entry for entry in BLOCKS])
    with torch.no_grad():
        router_of(model).threshold.fill_(-1)
    ids = tiny_ids(4, 16)
    exact = logits(model, ids)
    bound = 2 * torch.finfo(torch.bfloat16).eps * float(exact.std())
    with torch.autocast("cpu", torch.bfloat16):
        low = logits(model, ids).float()
    assert 0 < float((low - exact).square().mean().sqrt()) < bound
    divergence = functional.kl_div(low.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none")
    assert float(divergence.sum(-1).max()) < 0.01  # nats, of about 5.5 in a byte
    with torch.no_grad():
        circuit_weights(model).add_(0.3)
    assert float((logits(model, ids) - exact).square().mean().sqrt()) > bound


def test_copies_are_independent() -> None:
    model = tiny_model()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_weights(model, twin)
        assert torch.equal(logits(twin), logits(model))
        assert twin.lm_head.weight is twin.model.embed.weight
        with torch.no_grad():
            circuit_weights(twin).add_(1)
        assert not torch.equal(logits(twin), logits(model))


def test_loss_is_the_cross_entropy_in_nats_of_the_next_token() -> None:
    model, ids = tiny_model(), tiny_ids(3, 8)
    labels = ids.clone()
    labels[0, :4] = -100
    labels[2, 7] = -100
    with torch.no_grad():
        output = model(ids, labels=labels)
    log_p = torch.log_softmax(output.logits.double(), -1).numpy()
    terms = [-log_p[b, t - 1, labels[b, t]] for b in range(3) for t in range(1, 8) if labels[b, t] != -100]
    assert len(terms) == 3 * 7 - 3 - 1
    assert float(output.loss) == pytest.approx(np.mean(terms), rel=1e-6)


def test_training_adds_the_routers_loss_and_evaluation_does_not() -> None:
    ids = tiny_ids()
    model = tiny_model(blocks=still_blocks(hardness_weight=0.0, budget_weight=3.0)).double()
    with torch.no_grad():
        plain = model(ids, labels=ids).loss
        trained = model.train()(ids, labels=ids).loss
    share = model.reports()["1.quantum_router"].routed_share
    assert 0.2 < share < 1
    assert float(trained - plain) == pytest.approx(3 * (share - 0.2) ** 2, rel=1e-5)


def test_accumulated_steps_weigh_the_routers_loss_once() -> None:
    """Trainer sums the losses of two halves, each over the number of labels in both: together one step's loss."""
    model = tiny_model(blocks=still_blocks(budget_weight=50.0)).train()
    ids = tiny_ids(1, 9)
    with torch.no_grad():
        whole = model(ids, labels=ids).loss
        halves = [model(ids, labels=ids, num_items_in_batch=torch.tensor(16)).loss for _ in range(2)]
    assert float(sum(halves)) == pytest.approx(float(whole), rel=1e-6)


def test_logits_with_and_without_cache_and_padding() -> None:
    model, ids = tiny_model(), tiny_ids(2, 12)
    whole = logits(model, ids)
    first = model(ids[:, :5], use_cache=True)
    rest = logits(model, ids[:, 5:], past_key_values=first.past_key_values)
    torch.testing.assert_close(torch.cat((first.logits.detach(), rest), 1), whole, atol=1e-5, rtol=0)
    padded = torch.cat((torch.full((2, 3), 257), ids), 1)
    mask = torch.tensor([[0] * 3 + [1] * 12] * 2)
    torch.testing.assert_close(logits(model, padded, attention_mask=mask)[:, 3:], whole, atol=1e-5, rtol=0)
    assert torch.equal(logits(model, ids, attention_mask=torch.ones(2, 12)), whole)
    torch.testing.assert_close(logits(model, ids, logits_to_keep=2), whole[:, -2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(model, ids, logits_to_keep=torch.tensor([0, 7])), whole[:, [0, 7]])
    embedded = model(inputs_embeds=model.model.embed(ids)).logits.detach()
    torch.testing.assert_close(embedded, whole, atol=1e-5, rtol=0)


def test_state_is_kept_when_asked_for() -> None:
    model, ids = tiny_model(), tiny_ids()
    assert model(ids).past_key_values is not None
    assert model(ids, use_cache=False).past_key_values is None
    assert model.train()(ids).past_key_values is None
    assert model(ids, use_cache=True).past_key_values.seen == 9


def test_reports_name_block_and_position() -> None:
    model = tiny_model()
    assert model.reports() == {}
    logits(model)
    assert list(model.reports()) == ["1.quantum_router", "2.tt_feed_forward"]
    assert model.reports()["1.quantum_router"].tokens == 18


def test_vocabulary_can_be_resized() -> None:
    model, ids = tiny_model(), tiny_ids()
    before = logits(model)
    model.resize_token_embeddings(300)
    assert model.config.vocab_size == model.model.config.vocab_size == 300
    assert model.lm_head.weight is model.model.embed.weight
    torch.testing.assert_close(logits(model)[..., :258], before, atol=1e-5, rtol=0)
    ids[0, 0] = 299
    assert logits(model, ids).shape == (2, 9, 300)


def test_unsupported_training_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="does not support"):
        tiny_model().activation_checkpointing_enable()


def test_weights_that_are_no_numbers_name_their_layer() -> None:
    model = tiny_model()
    with torch.no_grad():
        circuit_weights(model)[2] = math.nan
    with pytest.raises(ValueError, match=r"layer 'model.layers.1.core.layer': weights expect finite .* index \(2,\)"):
        logits(model)
    hidden = tiny_model()
    with torch.no_grad():
        router_of(hidden).encode.bias[1] = math.nan
    with pytest.raises(ValueError, match=r"layer 'model.layers.1.core.layer': inputs expect finite .* index \(0, 1\)"):
        logits(hidden)


def test_layers_are_labelled_by_their_names_in_the_model_one_holds(tmp_path: Path) -> None:
    """A name in an error can be handed to ``get_submodule``."""

    class Wrapped(QLMPreTrainedModel):
        base_model_prefix = "trunk"

        def __init__(self, config: QLMConfig) -> None:
            super().__init__(config)
            self.trunk = QLMForCausalLM(config)
            self.post_init()

    causal = tiny_model()
    causal.save_pretrained(tmp_path)
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    for model in (causal, loaded, copy.deepcopy(causal), QLMModel(tiny_config()), Wrapped(tiny_config())):
        labels = [layer.label for _, layer in model.quantum_layers()]
        assert labels == [name for name, _ in model.quantum_layers()]
        assert len(labels) == 1
        assert isinstance(model.get_submodule(labels[0]), QuantumLayer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QLMConfig.from_dict({"d_modl": 8}), "unknown config key 'd_modl': did you mean 'd_model'"),
        (lambda: QLMConfig(quantum="seperable"), "unknown quantum mode 'seperable': did you mean 'separable'"),
        (lambda: QLMConfig(blocks=[{"kind": "harmonics"}]), "unknown block 'harmonics': did you mean 'harmonic'"),
        (lambda: QLMConfig(blocks=[{"kind": "harmonic", "tap": 3}]), "did you mean 'taps'"),
        (lambda: QLMConfig(blocks=[{}]), "expects a dictionary with a 'kind'"),
        (lambda: QLMConfig.preset("tiny-hybird"), "unknown preset 'tiny-hybird': did you mean 'tiny-hybrid'"),
        (lambda: QLMConfig(d_model=0), "d_model >= 1"),
        (lambda: QLMForCausalLM(tiny_config(), backend="statevectr"), "did you mean 'statevector'"),
    ],
)
def test_configuration_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("d_model", "a", "int, got 'a'"),
        ("d_model", None, "int, got None"),
        ("d_model", True, "int, got True"),
        ("blocks", "harmonic", r"list\[dict\[str, Any\]\] \| None, got 'harmonic'"),
        ("quantum", 3, "str, got 3"),
        ("use_cache", 1, "bool, got 1"),
        ("pad_token_id", "x", r"int \| None, got 'x'"),
    ],
)
def test_values_of_another_type_are_refused(key: str, value: Any, expected: str) -> None:
    message = f"^config key '{key}' expects {expected}; correct it.$"
    with pytest.raises(TypeError, match=message):
        QLMConfig(**{key: value})
    with pytest.raises(TypeError, match=message):
        QLMConfig.from_dict({key: value})
    config = QLMConfig()
    with pytest.raises(TypeError, match=message):
        setattr(config, key, value)
    assert QLMConfig(initializer_range=1).initializer_range == 1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", QUANTUM_MODES)
def test_presets_build_in_every_mode(preset: str, mode: str) -> None:
    config = QLMConfig.preset(preset, quantum=mode)
    model = QLMForCausalLM(config)
    modes = {entry["quantum"] for entry in config.blocks or () if "quantum" in entry}
    assert modes <= {mode}
    runs_circuits = bool(modes) and mode not in ("twin", "off")
    assert any(isinstance(module, QuantumLayer) for module in model.modules()) is runs_circuits
    assert logits(model.eval(), tiny_ids(1, 4)).shape == (1, 4, 258)
    assert (config.hidden_size, config.num_hidden_layers) == (config.d_model, len(PRESETS[preset]["blocks"]))


def test_default_builds_a_small_model() -> None:
    assert sum(parameter.numel() for parameter in QLMModel(QLMConfig()).parameters()) < 1_000_000

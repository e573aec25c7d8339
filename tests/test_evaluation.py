"""Bits per byte against a slow sum, the ablation against its meaning, counts against hand-made ones."""

import math

import pytest
import torch
from tiny_runs import python_docs, tiny_config
from torch import Tensor

from qlm.config import QLMConfig
from qlm.evaluation import (
    bits_per_byte,
    circuit_ablation,
    circuit_gradient_norm,
    count_parameters,
    evaluate_model,
    perplexity,
)
from qlm.modeling import QLMForCausalLM
from qlm.tokenizer import EOS_ID

TEXT = python_docs().valid[:700]
OTHER = python_docs().train[:700]


def tiny_model(quantum: str = "circuit", seed: int = 0) -> QLMForCausalLM:
    """A model whose every token passes the circuit, with an output that is far from constant."""
    torch.manual_seed(seed)
    model = QLMForCausalLM(tiny_config(quantum)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("threshold"):
                parameter.fill_(0.0)
            elif name.endswith(("embed.weight", "decode.weight", "encode.weight", "inner.weight", "outer.weight")):
                parameter.normal_(0.0, 0.7)
    return model


def slow_bits(model: QLMForCausalLM, data: bytes, context: int) -> float:
    """One window at a time, one byte at a time."""
    stream = [EOS_ID, *data]
    total = 0.0
    for start in range(0, len(stream) - 1, context - 1):
        window = stream[start : start + context]
        log_p = torch.log_softmax(model(input_ids=torch.tensor([window])).logits[0].double(), -1)
        total -= sum(log_p[k, token].item() for k, token in enumerate(window[1:]))
    return total / math.log(2) / len(data)


@pytest.mark.parametrize("context", [16, 64, 701])
def test_bits_per_byte_are_those_of_a_slow_sum(context: int) -> None:
    model = tiny_model()
    assert bits_per_byte(model, TEXT, context) == pytest.approx(slow_bits(model, TEXT, context), abs=1e-5)
    assert bits_per_byte(model, TEXT, context, batch_size=3) == pytest.approx(
        bits_per_byte(model, TEXT, context), abs=1e-6
    )
    assert perplexity(model, TEXT, context) == pytest.approx(2 ** slow_bits(model, TEXT, context), rel=1e-5)


def test_a_uniform_model_needs_log2_of_the_vocabulary() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert bits_per_byte(model, TEXT) == pytest.approx(math.log2(258), abs=1e-6)


def test_evaluation_leaves_the_model_as_it_was() -> None:
    model = tiny_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    evaluate_model(model, TEXT, OTHER, context=64)
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("quantum", ["circuit", "twin", "separable", "frozen"])
def test_ablation_shows_what_the_circuit_is_worth(quantum: str) -> None:
    model = tiny_model(quantum)
    ablation = circuit_ablation(model, TEXT, OTHER, context=64)
    assert ablation.intact == bits_per_byte(model, TEXT, context=64)
    assert abs(ablation.change) > 1e-3
    assert ablation.change == ablation.replaced - ablation.intact


def test_ablation_is_the_model_with_its_mean_in_place() -> None:
    """The same figure from a model whose circuit is replaced by hand."""
    model = tiny_model()
    layer = model.get_submodule("model.layers.0.core.layer")
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    bits_per_byte(model, OTHER, context=64)
    handle.remove()
    mean = torch.cat(outputs).double().mean(0).float()
    ablation = circuit_ablation(model, TEXT, OTHER, context=64)

    def put_mean(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
        return mean.expand_as(output)

    layer.register_forward_hook(put_mean)
    assert ablation.replaced == pytest.approx(bits_per_byte(model, TEXT, context=64), abs=1e-6)


def test_a_model_that_ignores_its_circuit_shows_it() -> None:
    """Circuits whose output nobody reads, circuits that no token reaches, and no circuit at all: no change."""
    ignoring = tiny_model()
    with torch.no_grad():
        ignoring.get_parameter("model.layers.0.decode.weight").zero_()
    unreached = tiny_model()
    with torch.no_grad():
        unreached.get_parameter("model.layers.0.threshold").fill_(2.0)
    without = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))
    for model in (ignoring, unreached, tiny_model("off"), without):
        assert circuit_ablation(model, TEXT, OTHER, context=64).change == pytest.approx(0.0, abs=1e-9)
    for model in (unreached, tiny_model("off"), without):
        assert circuit_gradient_norm(model, OTHER, context=64) == 0.0


def test_the_gradient_norm_is_that_of_the_circuits_weights() -> None:
    model = tiny_model()
    ids = torch.tensor([[EOS_ID, *OTHER]])
    labels = ids.clone()
    labels[0, 0] = -100
    model(input_ids=ids, labels=labels).loss.backward()
    expected = model.get_parameter("model.layers.0.core.layer.weights").grad
    assert expected is not None
    assert circuit_gradient_norm(model, OTHER, context=len(OTHER) + 1) == pytest.approx(
        expected.norm().item(), rel=1e-4
    )


def test_parameters_are_counted_by_part() -> None:
    hybrid, twin = count_parameters(tiny_model()), count_parameters(tiny_model("twin"))
    assert hybrid.embedding == twin.embedding == 258 * 16
    assert (hybrid.circuit, hybrid.twin) == (6, 0)
    model = tiny_model("twin")
    core = model.get_submodule("model.layers.0.core")
    assert (twin.circuit, twin.twin) == (0, sum(p.numel() for p in core.parameters()))
    assert hybrid.total - hybrid.circuit == twin.total - twin.twin
    assert hybrid.total == sum(p.numel() for p in tiny_model().parameters())


def test_routing_is_counted_on_the_text_itself() -> None:
    report = evaluate_model(tiny_model(), TEXT, OTHER, context=64)
    assert report.n_bytes == len(TEXT)
    assert report.routed_share == 1.0
    assert report.circuit_executions == 2 * -(-len(TEXT) // 63) * 64  # features and entropy
    assert report.bits_per_byte == bits_per_byte(tiny_model(), TEXT, context=64)
    assert report.tokens_per_second > 0
    assert evaluate_model(tiny_model("off"), TEXT, OTHER, context=64).routed_share == 0.0


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="expected text, got no bytes"):
        bits_per_byte(tiny_model(), b"")

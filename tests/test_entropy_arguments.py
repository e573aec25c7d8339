"""What ``measure_entropy`` can be asked, and what it refuses in one sentence."""

from typing import Any

import pytest
import torch

from qlm import QLMConfig, QLMForCausalLM, measure_entropy

ROUTER = {"kind": "quantum_router", "n_wires": 3, "depth": 1}
HARMONIC = {"kind": "harmonic", "taus": [4.0, 16.0]}
TEXT = "Aé b"


def build(*blocks: dict[str, Any], **changes: Any) -> QLMForCausalLM:
    torch.manual_seed(0)
    return QLMForCausalLM(QLMConfig(d_model=8, blocks=list(blocks), **changes)).eval()


@pytest.fixture(scope="module")
def model() -> QLMForCausalLM:
    return build(HARMONIC, ROUTER)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": ""}, ValueError, "at least one byte"),
        ({"text": [1, 2]}, TypeError, "text or bytes"),
        ({"text": "a\ud800"}, ValueError, "lone surrogate at character 1"),
        ({"kind": "renyi3"}, ValueError, "did you mean 'renyi2'"),
        ({"blocks": ["1.quantum_ruter"]}, ValueError, "did you mean '1.quantum_router'"),
        ({"blocks": ["0.harmonic"]}, ValueError, "'0.harmonic' without one; choose of 1.quantum_router.$"),
        ({"blocks": (0,)}, ValueError, "'0.harmonic' without one; choose of 1.quantum_router.$"),
        ({"blocks": (2,)}, ValueError, "positions from 0 to 1, got 2"),
        ({"blocks": (-1,)}, ValueError, "positions from 0 to 1, got -1"),
        ({"blocks": (1.0,)}, TypeError, "names or positions, got 1.0; choose of 0.harmonic, 1.quantum_router"),
        ({"blocks": (True,)}, TypeError, "names or positions, got True"),
        ({"blocks": (None,)}, TypeError, "names or positions, got None"),
        ({"blocks": 1}, TypeError, r"got 1 alone; write \[1\]"),
        ({"blocks": 1.5}, TypeError, "list of names or positions, got float"),
        ({"blocks": "1.quantum_router"}, TypeError, "list of names"),
        ({"blocks": []}, ValueError, "at least one block"),
        ({"wires": (0, 1, 2)}, ValueError, "leave another side"),
        ({"wires": (3,)}, ValueError, "wires expect distinct numbers from 0 to 2"),
        ({"n_tokens": 0}, ValueError, "n_tokens expects a positive integer"),
        ({"seed": -1}, ValueError, "seed expects an integer"),
        ({"backend": "statevectr"}, ValueError, "did you mean 'statevector'"),
        ({"model": torch.nn.Linear(1, 1)}, TypeError, "QLMForCausalLM"),
    ],
)
def test_what_a_caller_does_wrong(model: QLMForCausalLM, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure_entropy(**{"model": model, "text": TEXT, **arguments})


def test_a_block_is_named_or_numbered() -> None:
    twice = build(ROUTER, HARMONIC, ROUTER)
    one = measure_entropy(twice, TEXT, blocks=["2.quantum_router"])
    assert one.blocks() == ("2.quantum_router",)
    assert measure_entropy(twice, TEXT, blocks=(2,)) == one


@pytest.mark.parametrize("mode", ["twin", "off"])
def test_a_model_without_a_circuit_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=r"a twin has no entropy\); build the model with quantum='circuit'"):
        measure_entropy(build(HARMONIC, ROUTER, quantum=mode), TEXT)

"""Nothing reads the future: every block, in every quantum mode, and every preset; and the gate does catch a leak."""

from typing import Any

import causality
import leaky
import pytest
import torch
from small_blocks import SMALL

from qlm import QLMConfig, QLMForCausalLM
from qlm.controls import QUANTUM_MODES
from qlm.presets import PRESETS
from qlm.registry import BLOCKS, block_class

VOCAB = 16
SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def modes_of(preset: str) -> tuple[str, ...]:
    """Every quantum mode for a preset with circuits, one for any other."""
    circuits = any(block_class(entry["kind"]).holds_circuit for entry in PRESETS[preset]["blocks"])
    return QUANTUM_MODES if circuits else ("circuit",)


ALONE = [
    pytest.param(kind, mode, id=f"{kind}-{mode}" if block_class(kind).holds_circuit else kind)
    for kind in BLOCKS
    for mode in (QUANTUM_MODES if block_class(kind).holds_circuit else ("circuit",))
]
WHOLE = [
    pytest.param(preset, mode, id=f"{preset}-{mode}" if modes != ("circuit",) else preset)
    for preset, modes in ((preset, modes_of(preset)) for preset in PRESETS)
    for mode in modes
]


def build(entries: list[dict[str, Any]], mode: str = "circuit", d_model: int = 16, seed: int = 0) -> QLMForCausalLM:
    torch.manual_seed(seed)
    return QLMForCausalLM(QLMConfig(**SPECIAL, vocab_size=VOCAB, d_model=d_model, blocks=entries, quantum=mode))


def alone(kind: str, mode: str, d_model: int = 16) -> QLMForCausalLM:
    return build([{"kind": kind, **SMALL.get(kind, {})}], mode, d_model)


def shrunk(preset: str, mode: str, d_model: int = 16) -> QLMForCausalLM:
    """The preset's list of blocks, each in a small size."""
    return build([{**entry, **SMALL.get(entry["kind"], {})} for entry in PRESETS[preset]["blocks"]], mode, d_model)


def tokens(batch: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def assert_causal(model: QLMForCausalLM) -> None:
    model = causality.spread(model).double().eval()
    ids = tokens()
    whole = causality.whole(model)
    expected = whole(ids)
    for sizes in ((4,), (1, 1, 3), (1,) * 8, (8,)):
        parts = causality.in_parts(model, sizes)
        assert float((parts(ids) - expected).abs().max()) < causality.TOLERANCE
    for logits in (whole, causality.in_parts(model, (4,))):
        assert causality.leak_to_earlier(logits, ids, VOCAB) < causality.TOLERANCE
        assert causality.leak_between_rows(logits, ids, VOCAB) < causality.TOLERANCE
    whole(ids)
    for block in causality.routers(model):
        assert block.report is not None
        assert 0 < block.report.routed_share < 1


@pytest.mark.parametrize(("kind", "mode"), ALONE)
def test_block_reads_no_later_token_and_no_other_row(kind: str, mode: str) -> None:
    assert_causal(alone(kind, mode))


@pytest.mark.parametrize(("preset", "mode"), WHOLE)
def test_preset_reads_no_later_token_and_no_other_row(preset: str, mode: str) -> None:
    assert_causal(shrunk(preset, mode))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_at_full_size_reads_no_later_token_and_no_other_row(preset: str) -> None:
    torch.manual_seed(0)
    assert_causal(QLMForCausalLM(QLMConfig.preset(preset, vocab_size=VOCAB, **SPECIAL)))


@pytest.mark.parametrize("preset", PRESETS)
def test_gate_changes_something(preset: str) -> None:
    """The change that leaves earlier logits alone does reach later ones: the zeros above are not a dead model's."""
    model = causality.spread(shrunk(preset, "circuit")).double().eval()
    assert causality.effect_on_later(causality.whole(model), tokens(), VOCAB) > 1e-3


@pytest.mark.parametrize(("kind", "mode"), ALONE)
def test_block_predicts_no_uniform_tokens(kind: str, mode: str) -> None:
    assert causality.gain_over_uniform(alone(kind, mode, d_model=8)) < causality.WORST_Z


@pytest.mark.parametrize("preset", [name for name in PRESETS if len({e["kind"] for e in PRESETS[name]["blocks"]}) > 1])
def test_preset_of_several_kinds_predicts_no_uniform_tokens(preset: str) -> None:
    assert causality.gain_over_uniform(shrunk(preset, "circuit", d_model=8)) < causality.WORST_Z


@pytest.mark.parametrize("reads", ["next", "mean"])
def test_gate_catches_a_leaky_block(reads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS, "leaky", f"{leaky.__name__}:Leaky")
    entries = [{"kind": "harmonic"}, {"kind": "leaky", "reads": reads}, {"kind": "harmonic"}]
    model = causality.spread(build(entries)).double().eval()
    ids = tokens()
    assert causality.leak_to_earlier(causality.whole(model), ids, VOCAB) > 1e-3
    assert causality.leak_to_earlier(causality.in_parts(model, (4,)), ids, VOCAB) > 1e-3
    parts = causality.in_parts(model, (4,))(ids)
    assert float((parts - causality.whole(model)(ids)).abs().max()) > 1e-3
    assert causality.gain_over_uniform(build(entries), length=4) > 10 * causality.WORST_Z


def test_gate_catches_rows_that_read_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that is a quantile over the batch routes a token by what its neighbours hold."""
    model = causality.spread(alone("quantum_router", "circuit")).double().eval()
    block = causality.routers(model)[0]

    def centre(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output - output.median()

    block.predict.register_forward_hook(centre)
    assert causality.leak_between_rows(causality.whole(model), tokens(), VOCAB) > 1e-3

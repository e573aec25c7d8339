"""What every head keeps, in every mode, and what models do with any of them.

Axis legend: b batch, l sequence, d model width, v vocabulary.
"""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import causality
import pytest
import torch
from tiny_models import assert_same_weights, logits, tiny_ids, tiny_model
from torch import Tensor, nn

from qlm import QLMConfig, QLMForCausalLM, QLMModel
from qlm.checkpoint_files import CheckpointError
from qlm.controls import QUANTUM_MODES
from qlm.heads.amplitudes import MODES
from qlm.heads.base import Head
from qlm.heads.linear import LinearHead
from qlm.registry import HEADS, complete_head, head_class, head_config

SMALL: dict[str, dict[str, Any]] = {"born_low_rank": {"rank": 3}, "born_mps": {"bond": 3, "n_digits": 2}}
MODES_OF = {"linear": ("circuit",), "born_circuit": QUANTUM_MODES, "born_low_rank": MODES, "born_mps": MODES}
EVERY = [pytest.param(kind, mode, id=f"{kind}-{mode}") for kind in HEADS for mode in MODES_OF[kind]]
BORN = [kind for kind in HEADS if kind != "linear"]
SPECIAL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def entry(kind: str, mode: str = "circuit") -> dict[str, Any]:
    return {"kind": kind, **SMALL.get(kind, {}), **({} if kind == "linear" else {"quantum": mode})}


def head(kind: str, mode: str = "circuit", vocab_size: int = 11, d_model: int = 8) -> Head:
    torch.manual_seed(0)
    return head_class(kind)(d_model, vocab_size, head_config(entry(kind, mode), "circuit", vocab_size))  # pyright: ignore[reportCallIssue]


def model(kind: str, mode: str = "circuit", vocab_size: int = 11) -> QLMForCausalLM:
    """A small model whose parameters are away from their start."""
    torch.manual_seed(0)
    config = QLMConfig(
        **SPECIAL, vocab_size=vocab_size, d_model=8, blocks=[{"kind": "harmonic"}], head=entry(kind, mode)
    )
    built = QLMForCausalLM(config)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built.eval()


def ids(batch: int = 3, length: int = 7, vocab_size: int = 11) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_head_runs_and_every_trainable_parameter_learns(kind: str, mode: str, dtype: torch.dtype) -> None:
    built = head(kind, mode).to(dtype).train()
    hidden = torch.randn(2, 5, 8, dtype=dtype, requires_grad=True)
    found = built(hidden)
    assert found.shape == (2, 5, 11)
    assert found.dtype == dtype
    targets = ids(2, 5)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    expected = found.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(built.log_prob(hidden, targets), expected, atol=tolerance, rtol=0)
    (-expected.mean()).backward()
    assert hidden.grad is not None
    assert float(hidden.grad.abs().max()) > 0
    for name, parameter in built.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name


@pytest.mark.parametrize(("kind", "mode"), [case for case in EVERY if case.values[0] != "linear"])
@pytest.mark.parametrize("vocab_size", [2, 11, 16])
def test_born_heads_return_log_probabilities(kind: str, mode: str, vocab_size: int) -> None:
    """They sum to one over the vocabulary, whatever the parameters, and softmax leaves them alone."""
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        built = head(kind, mode, vocab_size).to(dtype).eval()
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(torch.randn_like(parameter))
            logs = built(torch.randn(50, 8, dtype=dtype))
        one = torch.ones(50, dtype=torch.float64)
        torch.testing.assert_close(logs.double().exp().sum(-1), one, atol=tolerance, rtol=0)
        torch.testing.assert_close(logs.log_softmax(-1), logs, atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_head_takes_any_batch_and_answers_each_position_alone(kind: str, mode: str) -> None:
    built = head(kind, mode).double().eval()
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        whole, random = built(hidden), torch.get_rng_state()
        for shape in ((0, 5, 8), (2, 0, 8), (0, 8)):
            assert built(torch.randn(shape, dtype=torch.float64)).shape == (*shape[:-1], 11)
        torch.set_rng_state(random)
        torch.testing.assert_close(built(hidden[1, 3]), whole[1, 3], atol=1e-12, rtol=0)
        assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_stored_entry_builds_the_same_head(kind: str, mode: str) -> None:
    complete = complete_head(entry(kind, mode), "circuit", 11)
    assert json.loads(json.dumps(complete)) == complete
    assert complete_head(complete, "circuit", 11) == complete
    assert head_config(complete, "twin", 11) == head_config(entry(kind, mode), "circuit", 11)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_model_survives_disk_copies_and_half_precision(kind: str, mode: str, tmp_path: Path) -> None:
    whole = model(kind, mode)
    whole.save_pretrained(tmp_path)
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    for twin in (loaded, copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert_same_weights(whole, twin)
        assert torch.equal(logits(twin, ids()), logits(whole, ids()))
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in whole.named_parameters() if p.requires_grad
    }
    assert loaded.config.head == whole.config.head
    trunk = QLMModel.from_pretrained(tmp_path)
    assert torch.equal(trunk(ids()).last_hidden_state, whole.model(ids()).last_hidden_state)
    low = copy.deepcopy(whole).bfloat16()
    drift = (logits(low, ids()).float() - logits(whole, ids())).abs().mean()
    assert 0 < float(drift) < 0.2
    with torch.autocast("cpu", torch.bfloat16):
        drift = (logits(whole, ids()).float() - logits(low.float(), ids())).abs().mean()
    assert 0 < float(drift) < 0.2


@pytest.mark.parametrize("kind", BORN)
def test_a_model_starts_where_its_head_says(kind: str) -> None:
    """Transformers' own initialisation does not undo it: the first loss is near that of the uniform distribution."""
    torch.manual_seed(0)
    fresh = QLMForCausalLM(QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}], head=entry(kind))).eval()
    logs = logits(fresh, tiny_ids(4, 16)).log_softmax(-1)
    excess = -logs.mean() - torch.log(torch.tensor(258.0))  # Kullback-Leibler divergence from uniform, in nats
    assert 0 < float(excess) < 0.5


@pytest.mark.parametrize("kind", BORN)
def test_what_a_born_head_cannot_do_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"head '{kind}' has no weight of the embedding's shape, .*; leave it out"):
        QLMConfig(head=entry(kind), tie_word_embeddings=True)
    whole = model(kind)
    assert whole.config.tie_word_embeddings is False
    assert whole.get_output_embeddings() is None
    with pytest.raises(ValueError, match=f"expects a linear head, got '{kind}', which is built for its 11 tokens"):
        whole.resize_token_embeddings(20)
    assert whole.resize_token_embeddings() is whole.get_input_embeddings()
    whole.model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks tensor 'lm_head\."):
        QLMForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_reports_name_the_head(kind: str, mode: str) -> None:
    whole = model(kind, mode)
    logits(whole, ids())
    assert ("head." + kind in whole.reports()) is (kind != "linear")
    if kind != "linear":
        report = whole.reports()["head." + kind]
        assert report.tokens == 21
        assert 0 <= report.leaked < 1
        assert (report.leaked > 0) is (kind != "born_low_rank" and mode not in ("twin", "off"))


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_generation_samples_searches_and_repeats_itself(kind: str, mode: str) -> None:
    whole: Any = model(kind, mode)  # transformers' protocol asks more of a model than generate() does
    prompt = ids(1, 4)
    how: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "attention_mask": torch.ones_like(prompt)}
    greedy = whole.generate(prompt, do_sample=False, **how)
    assert torch.equal(greedy, whole.generate(prompt, do_sample=False, use_cache=False, **how))
    with torch.no_grad():
        for length in range(4, 9):
            scores = whole(greedy[:, :length]).logits[0, -1]
            scores[0] = -torch.inf  # no end before min_new_tokens
            assert int(scores.argmax()) == int(greedy[0, length])
    assert whole.generate(prompt, num_beams=3, do_sample=False, **how).shape == (1, 9)
    torch.manual_seed(0)
    assert whole.generate(prompt, do_sample=True, top_k=0, **how).shape == (1, 9)


@pytest.mark.parametrize(("kind", "mode"), EVERY)
def test_model_reads_no_later_token_and_no_other_row(kind: str, mode: str) -> None:
    whole = model(kind, mode).double()
    text, run = ids(), causality.whole(whole)
    for way in (run, causality.in_parts(whole, (4,))):
        assert causality.leak_to_earlier(way, text, 11) < causality.TOLERANCE
        assert causality.leak_between_rows(way, text, 11) < causality.TOLERANCE
    assert float((causality.in_parts(whole, (1, 1, 3))(text) - run(text)).abs().max()) < causality.TOLERANCE
    assert causality.effect_on_later(run, text, 11) > 1e-3


def test_model_predicts_no_uniform_tokens() -> None:
    """One head suffices: each answers a position from that position alone, which is tested exactly above."""
    torch.manual_seed(0)
    blocks = [{"kind": "harmonic"}]
    fresh = QLMForCausalLM(QLMConfig(**SPECIAL, vocab_size=16, d_model=8, blocks=blocks, head=entry("born_circuit")))
    assert causality.gain_over_uniform(fresh) < causality.WORST_Z


@pytest.mark.parametrize("kind", BORN)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # peft asks by the old name
def test_lora_adapts_a_model_with_any_head(kind: str) -> None:
    peft = pytest.importorskip("peft")
    whole = model(kind)
    config = peft.LoraConfig(r=2, target_modules=["encode", "value_gate"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(copy.deepcopy(whole), config)
    torch.testing.assert_close(adapted(input_ids=ids()).logits, whole(ids()).logits)
    adapted(input_ids=ids(), labels=ids()).loss.backward()
    trained = {n for n, p in adapted.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert any("lm_head.encode" in name for name in trained)


def test_the_linear_head_is_what_models_had_before(tmp_path: Path) -> None:
    """Its names, its tie, and checkpoints whose config says nothing of a head."""
    old = tiny_model()
    assert type(old.lm_head) is LinearHead
    assert isinstance(old.lm_head, nn.Linear)
    assert old.lm_head.weight is old.model.embed.weight
    assert [name for name in old.state_dict() if name.startswith("lm_head")] == ["lm_head.weight"]
    assert old.config.head == {"kind": "linear"}
    assert old.config.tie_word_embeddings is True
    old.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("head") == {"kind": "linear"}
    path.write_text(json.dumps(stored))
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.head == {"kind": "linear"}
    assert torch.equal(logits(loaded), logits(old))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"kind": "liner"}, ValueError, "unknown head 'liner': did you mean 'linear'"),
        ({"kind": "born_mps", "bnd": 3}, ValueError, "unknown key of head 'born_mps' 'bnd': did you mean 'bond'"),
        ({"kind": "born_mps", "bond": 2.5}, TypeError, "born_mps expects bond as int, got 2.5"),
        ({"kind": "born_mps", "bond": 0}, ValueError, "bond and n_digits of at least 1, got 0 and 3"),
        ({"kind": "born_low_rank", "rank": 0}, ValueError, "a rank of at least 1, got 0"),
        ({"kind": "born_low_rank", "quantum": "off"}, ValueError, "holds no circuit that could be off"),
        ({"kind": "born_low_rank", "quantum": "twn"}, ValueError, "unknown quantum mode 'twn': did you mean 'twin'"),
        ({}, ValueError, "a head expects a dictionary with a 'kind', got {}; write {'kind': 'linear'}"),
        ("linear", TypeError, "config key 'head' expects .*, got 'linear'"),
    ],
)
def test_bad_heads_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        QLMConfig(head=given)


def test_the_models_mode_is_the_heads_unless_it_has_its_own() -> None:
    assert (QLMConfig(quantum="twin", head={"kind": "born_mps"}).head or {})["quantum"] == "twin"
    own = QLMConfig(quantum="frozen", head={"kind": "born_mps", "quantum": "circuit"}).head or {}
    assert own["quantum"] == "circuit"
    with pytest.raises(ValueError, match="give the head its own mode"):
        QLMConfig(quantum="frozen", head={"kind": "born_mps"})

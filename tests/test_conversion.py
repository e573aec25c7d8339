"""Attention replaced by blocks: one model in parts, padded and saved; distilled; refused where it leaks."""

from pathlib import Path
from typing import Any

import causality
import leaky
import pytest
import torch
from small_blocks import SMALL
from small_llamas import CLOSE, SIZE, VOCAB, converted, original, tokens
from tiny_runs import python_docs
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from qlm.console import quiet_transformers
from qlm.conversion import (
    Causality,
    Conversion,
    ConvertedConfig,
    ConvertedForCausalLM,
    LeakError,
    convert,
    measure_causality,
    replace_attention,
)
from qlm.conversion.distil import ConversionRecipe, align, alignment_errors, distillation_loss, learn
from qlm.conversion.text import TokenText, read_tokens, score
from qlm.registry import BLOCKS
from qlm.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE, ByteTokenizer


@pytest.mark.parametrize(
    ("name", "kind", "layers"),
    [
        ("llama", "harmonic", None),
        ("llama", "mamba", [1]),
        ("mistral", "rotational", None),
        ("mistral", "harmonic", [0, 2]),
        ("qwen2", "mamba", None),
        ("qwen2", "rotational", [0]),
        ("qwen3", "harmonic", [1, 2]),
    ],
)
def test_converted_model_is_one_model_whole_in_parts_padded_and_saved(
    name: str, kind: str, layers: list[int] | None, tmp_path: Path
) -> None:
    model, ids = converted(name, kind, layers), tokens()
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        for sizes in ((4,), (1, 1, 3)):
            assert float((causality.in_parts(model, sizes)(ids) - whole).abs().max()) < CLOSE
        padded = functional.pad(ids, (3, 0))
        mask = functional.pad(torch.ones_like(ids), (3, 0))
        for filled in (padded, padded + 5 * (1 - mask)):
            read = model(filled, attention_mask=mask, use_cache=False).logits[:, 3:]
            assert float((read - whole).abs().max()) < CLOSE
        behind = model(functional.pad(ids, (0, 2)), attention_mask=mask.flip(1)[:, :11]).logits[:, :9]
        assert float((behind - whole).abs().max()) < CLOSE
        assert float((model(inputs_embeds=model.get_input_embeddings()(ids)).logits - whole).abs().max()) == 0
    told = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    said = model.generate(ids, attention_mask=torch.ones_like(ids), **told)
    assert said.equal(model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **told))
    assert said[:, 9:].equal(model.generate(padded, attention_mask=mask, **told)[:, 12:])
    beams = {**told, "num_beams": 3, "attention_mask": torch.ones_like(ids)}
    assert model.generate(ids, **beams).equal(model.generate(ids, use_cache=False, **beams))
    with quiet_transformers():
        model.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert isinstance(loaded, ConvertedForCausalLM)
    assert loaded.config.layers == ([0, 1, 2] if layers is None else layers)
    assert loaded(ids, use_cache=False).logits.equal(model(ids, use_cache=False).logits)
    gate = measure_causality(model, length=12)
    assert gate.holds
    assert gate.reach > 1e-3
    exact = model.double()
    assert causality.leak_to_earlier(causality.in_parts(exact, (4,)), ids, VOCAB) < causality.TOLERANCE
    assert causality.leak_between_rows(causality.whole(exact), ids, VOCAB) < CLOSE


@pytest.mark.parametrize("kind", ["harmonic", "mamba", "rotational"])
def test_silent_blocks_leave_what_the_original_is_without_its_attention(kind: str) -> None:
    teacher: Any = original()
    student: Any = replace_attention(teacher, {"kind": kind, **SMALL.get(kind, {})}, [0, 2])
    with torch.no_grad():
        for index in (0, 2):
            torch.nn.init.zeros_(student.mixers()[index].block.out.weight)
            torch.nn.init.zeros_(teacher.model.layers[index].self_attn.o_proj.weight)
    assert student(tokens()).logits.equal(teacher(tokens()).logits)


def test_state_is_constant_where_no_attention_is_left() -> None:
    cached = {}
    for layers in (None, [0, 2]):
        model = converted(layers=layers)
        caches = [model(tokens(length), use_cache=True).past_key_values for length in (5, 50)]
        assert [cache.get_seq_length() for cache in caches] == [5, 50]
        cached[str(layers)] = [cache.n_bytes() for cache in caches]
    state = 2 * 4 * (3 + 3) * 16  # rows, bytes of a number, levels and taps, width: of each layer
    assert cached["None"] == [3 * state, 3 * state]
    assert cached["[0, 2]"] == [2 * state + 2 * 4 * n * 2 * 8 for n in (5, 50)]  # one head of width 8, keys and values


def test_blocks_stay_exact_in_a_narrow_model(tmp_path: Path) -> None:
    """Beside the original's own rounding: what a block adds is small beside what it is added to."""
    exact: Any = replace_attention(original(), layers=[1])
    narrow: Any = replace_attention(original().to(torch.bfloat16), layers=[1])  # pyright: ignore[reportArgumentType] -- as elsewhere
    narrow.mixers()[1].load_state_dict(exact.mixers()[1].state_dict())
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        expected = exact.mixers()[1](x.float())[0]
        assert float((narrow.mixers()[1](x)[0] - expected).norm() / expected.norm()) < 2**-8
    with quiet_transformers():
        narrow.save_pretrained(tmp_path)
        loaded = ConvertedForCausalLM.from_pretrained(tmp_path)
    assert loaded(tokens()).logits.dtype is torch.bfloat16
    assert loaded(tokens()).logits.equal(narrow(tokens()).logits)


def test_fresh_blocks_start_as_they_do_elsewhere_and_draw_nothing_anew() -> None:
    decays = replace_attention(original(), layers=[1]).mixers()[1].block.get_submodule("decay")
    bias: Any = decays.bias
    taus = -1 / torch.sigmoid(bias.detach()).log()
    assert torch.allclose(taus.unflatten(0, (3, -1)), torch.tensor([[4.0], [32.0], [128.0]]), rtol=1e-4)


@pytest.fixture(scope="module")
def taught() -> tuple[LlamaForCausalLM, TokenText, TokenText]:
    """A teacher of bytes that has learned something, and its text."""
    corpus = python_docs()
    train = read_tokens(corpus.train, ByteTokenizer(), VOCAB_SIZE)
    valid = read_tokens(corpus.valid[:3000].decode("utf-8", "ignore").encode(), ByteTokenizer(), VOCAB_SIZE)
    torch.manual_seed(0)
    special = {"pad_token_id": PAD_ID, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID}
    size = {**SIZE, **special, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    teacher = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB_SIZE, **size))
    learn(teacher, train, RECIPE, 250, 1e-2)
    teacher.eval()
    return teacher, train, valid


RECIPE = ConversionRecipe(align_steps=60, distil_steps=20, batch_size=8, context=32, align_rate=1e-2, distil_rate=5e-3)


def test_each_stage_is_worth_its_steps(taught: tuple[LlamaForCausalLM, TokenText, TokenText]) -> None:
    teacher, train, valid = taught
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    random, heard = torch.get_rng_state(), []
    made = convert(teacher, train, valid, RECIPE, told=lambda *said: heard.append(said))
    assert torch.get_rng_state().equal(random)
    assert all(tensor.equal(before[name]) for name, tensor in teacher.state_dict().items())
    assert [said[:2] for said in heard] == [("align", k + 1) for k in range(60)] + [
        ("distil", k + 1) for k in range(20)
    ]
    bits = {stage: found.bits_per_byte for stage, found in made.scores.items()}
    assert bits["teacher"] < bits["aligned"] - 0.02 < bits["replaced"] - 0.2
    assert bits["distilled"] < bits["aligned"] - 0.02
    assert all(after < 0.8 * fresh for fresh, after in made.errors.values())
    twin = replace_attention(LlamaForCausalLM(teacher.config))
    learn(twin, train, RECIPE, 80, RECIPE.distil_rate)
    assert bits["distilled"] < score(twin, valid, 32).bits_per_byte - 0.1
    assert made.causality.holds


def test_alignment_trains_blocks_alone_and_its_error_is_the_relative_one(
    taught: tuple[LlamaForCausalLM, TokenText, TokenText],
) -> None:
    teacher, train, _ = taught
    student: Any = replace_attention(teacher, layers=[1])
    around = {name: tensor.clone() for name, tensor in student.state_dict().items() if ".block." not in name}
    align(student, teacher, train, ConversionRecipe(align_steps=2, batch_size=2, context=8))
    assert all(tensor.equal(around[name]) for name, tensor in student.state_dict().items() if name in around)
    torch.nn.init.zeros_(student.mixers()[1].block.out.weight)
    ids = train.windows(2, 16, torch.Generator())
    with torch.no_grad():
        assert {index: float(error) for index, error in alignment_errors(student, teacher, ids).items()} == {1: 1.0}


def test_loss_of_distillation_is_its_formula() -> None:
    draws = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 2, 5, 7, generator=draws, dtype=torch.float64)
    ids = torch.randint(7, (2, 5), generator=draws)
    p, q, plain = (target / 3).softmax(-1), (logits / 3).softmax(-1), logits.softmax(-1)
    soft = 9 * (p * (p / q).log()).sum(-1).mean()
    hard = -torch.stack([plain[b, t, ids[b, t + 1]].log() for b in range(2) for t in range(4)]).mean()
    found = distillation_loss(logits, target, ids, ConversionRecipe(temperature=3.0, soft_share=0.25))
    assert float(found) == pytest.approx(float(0.25 * soft + 0.75 * hard), rel=1e-6)


def test_score_counts_every_token_once(taught: tuple[LlamaForCausalLM, TokenText, TokenText]) -> None:
    teacher, _, valid = taught
    for length in (2, 31, 32, 33, 64):
        ids = valid.ids[:length]
        nats = 0.0
        for t in range(1, length):
            first = (t - 1) // 31 * 31
            logits = teacher(ids[None, first:t]).logits.detach()[0, -1]
            nats -= float(logits.log_softmax(-1)[ids[t]])
        found = score(teacher, TokenText(ids, length - 1), 32)
        assert found.bits_per_byte == pytest.approx(nats / 0.6931471805599453 / (length - 1), rel=1e-5)
        assert found.perplexity == pytest.approx(2**found.bits_per_byte, rel=1e-9)


@pytest.mark.parametrize("reads", ["next", "mean"])
def test_what_leaks_is_measured_and_refused(
    reads: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taught: tuple[LlamaForCausalLM, TokenText, TokenText]
) -> None:
    monkeypatch.setitem(BLOCKS, "leaky", f"{leaky.__name__}:Leaky")
    entry = {"kind": "leaky", "reads": reads}
    student = replace_attention(original(), entry, [1])
    gate = measure_causality(student, length=8)
    assert min(gate.by_value, gate.by_gradient) > 1e-3
    with pytest.raises(LeakError, match="no later token changes"):
        convert(*taught, RECIPE, entry)
    found = Conversion(student, {}, {}, gate)
    with pytest.raises(LeakError):
        found.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gate_takes_what_is_no_number_for_a_leak() -> None:
    student: Any = converted()
    torch.nn.init.constant_(student.base.lm_head.weight, float("nan"))
    assert not measure_causality(student, length=4).holds
    assert not Causality(0.0, 1e-9, 1.0, 4).holds


def test_input_that_cannot_be_right_is_refused() -> None:
    model, ids = converted(layers=[1]), tokens()
    with pytest.raises(ValueError, match="positions that count up"):
        model(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]))
    with pytest.raises(ValueError, match="attention_mask expects shape"):
        model(ids, attention_mask=torch.ones(2, 1, 9, 9))
    with pytest.raises(TypeError, match="expects a ConvertedCache, got DynamicCache"):
        model(ids, past_key_values=DynamicCache())
    other = converted()(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"states at \[1\], got 3 layers with states at \[0, 1, 2\]"):
        model(ids, past_key_values=other)
    with pytest.raises(ValueError, match="expects to go forward"):
        other.crop(-1)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    headless: Any = original()
    with pytest.raises(TypeError, match="expects a LlamaForCausalLM, got a LlamaModel"):
        replace_attention(headless.model)
    with pytest.raises(ValueError, match="got 'gpt2' as the model_type"):
        replace_attention(GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=8, n_layer=1, n_head=1)))
    base = {"model_type": "llama", **SIZE}
    for changes, said in (
        ({"base": {**base, "model_type": "gpt2"}}, "a model of Llama's layout .*, got 'gpt2'"),
        ({"layers": [0, 3]}, r"layers expect different numbers from 0 to 2, at least one, got \[0, 3\]"),
        ({"layers": []}, "at least one"),
        ({"block": {"kind": "vqc_experts"}}, "a block without a circuit, got 'vqc_experts'"),
        ({"block": {"kind": "harmonik"}}, "did you mean"),
    ):
        with pytest.raises(ValueError, match=said):
            ConvertedConfig(**{"base": base, **changes})

"""The recurrent state as a value: forked, saved, loaded, reset, reordered, and refused where it does not fit.

Axis legend: b batch, l sequence.
"""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DynamicCache

from qlm import QLMConfig, QLMForCausalLM, RecurrentState


@pytest.fixture(scope="module")
def model() -> QLMForCausalLM:
    torch.manual_seed(0)
    small = [{"kind": "harmonic"}, {"kind": "quantum_router", "n_wires": 2, "depth": 1}, {"kind": "harmonic"}]
    model = QLMForCausalLM(QLMConfig(d_model=8, blocks=small)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def ids(batch: int = 3, length: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(seed))


def after(model: QLMForCausalLM, tokens: Tensor, state: RecurrentState | None = None) -> RecurrentState:
    with torch.no_grad():
        return model(tokens, past_key_values=state, use_cache=True).past_key_values


def answer(model: QLMForCausalLM, state: RecurrentState, seed: int = 9) -> Tensor:
    """Logits after one more token per row; the state given is left as it was."""
    rows = len(state.blocks[0][0])
    with torch.no_grad():
        return model(ids(rows, 1, seed), past_key_values=state.fork(), use_cache=True).logits


def same(one: RecurrentState, other: RecurrentState) -> bool:
    pairs = zip(one.blocks, other.blocks, strict=True)
    return one.seen == other.seen and all(
        len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) for a, b in pairs
    )


def test_state_of_a_text(model: QLMForCausalLM) -> None:
    state = after(model, ids())
    assert isinstance(state, RecurrentState)
    assert state.get_seq_length() == state.seen == 7
    assert [len(tensors) for tensors in state.blocks] == [2, 0, 2]
    assert state.blocks[0][0].shape == (3, 3, 8)
    again = after(model, ids(3, 5, 1), state)
    assert again is state
    assert state.get_seq_length() == 12


def test_state_is_constant_in_size(model: QLMForCausalLM) -> None:
    def size(length: int) -> int:
        state = after(model, ids(2, length))
        return sum(tensor.untyped_storage().nbytes() for tensors in state.blocks for tensor in tensors)

    assert size(1) == size(10) == size(300) > 0


def test_forks_go_their_own_ways(model: QLMForCausalLM) -> None:
    state = after(model, ids())
    fork = state.fork()
    before = answer(model, state)
    after(model, ids(3, 4, 1), fork)
    assert (state.seen, fork.seen) == (7, 11)
    assert torch.equal(answer(model, state), before)
    assert not torch.equal(answer(model, fork), before)
    for tensors in fork.blocks:
        for tensor in tensors:
            tensor.zero_()
    assert torch.equal(answer(model, state), before)


def test_save_and_load_are_exact(model: QLMForCausalLM, tmp_path: Path) -> None:
    state = after(model, ids())
    state.save(tmp_path / "state.safetensors")
    loaded = RecurrentState.load(tmp_path / "state.safetensors")
    assert same(loaded, state)
    assert loaded.n_blocks == 3
    assert torch.equal(answer(model, loaded), answer(model, state))
    fresh = RecurrentState(4)
    fresh.save(tmp_path / "fresh.safetensors")
    assert same(RecurrentState.load(tmp_path / "fresh.safetensors"), fresh)


def test_copies_are_exact_and_independent(model: QLMForCausalLM) -> None:
    state = after(model, ids())
    for twin in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), state.to("cpu"), state.detach()):
        assert same(twin, state)
        assert all(tensor.is_meta for tensors in twin.to("meta").blocks for tensor in tensors)
        twin.reset()
        assert state.seen == 7
        assert (twin.seen, twin.blocks) == (0, [(), (), ()])


def test_reset_starts_a_text_anew(model: QLMForCausalLM) -> None:
    state = after(model, ids())
    state.reset()
    assert same(after(model, ids(), state), after(model, ids()))


def test_rows_are_selected_and_repeated(model: QLMForCausalLM) -> None:
    state, order = after(model, ids()), torch.tensor([2, 0, 0, 1])
    before = answer(model, state)

    def rows(index: Tensor) -> list[tuple[Tensor, ...]]:
        return [tuple(tensor[index] for tensor in tensors) for tensors in state.blocks]

    chosen, selected, repeated = state.fork(), state.fork(), state.fork()
    chosen.reorder_cache(order)
    selected.batch_select_indices(torch.tensor([1]))
    repeated.batch_repeat_interleave(2)
    for moved, index in ((chosen, order), (selected, order[-1:]), (repeated, torch.tensor([0, 0, 1, 1, 2, 2]))):
        assert same(moved, RecurrentState(3, 7, rows(index)))
    # A row answers as it did before it moved.
    with torch.no_grad():
        logits = model(ids(3, 1, 9)[order], past_key_values=chosen, use_cache=True).logits
    torch.testing.assert_close(logits, before[order], atol=1e-12, rtol=0)


def test_detached_state_has_no_history(model: QLMForCausalLM) -> None:
    state = model(ids(), use_cache=True).past_key_values
    assert state.blocks[0][0].requires_grad
    assert not state.detach().blocks[0][0].requires_grad
    model(ids(3, 2, 1), past_key_values=state).logits.sum().backward()  # through both parts
    gradient = model.get_parameter("model.embed.weight").grad
    assert gradient is not None
    assert float(gradient[ids()[0, 0]].abs().max()) > 0
    model.zero_grad()


def test_files_that_are_no_state_are_refused(tmp_path: Path, model: QLMForCausalLM) -> None:
    after(model, ids()).save(tmp_path / "good")
    whole = (tmp_path / "good").read_bytes()
    (tmp_path / "truncated").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pickled").write_bytes(pickle.dumps({"0.0": [1.0]}))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("truncated", "pickled", "empty", "missing"):
        with pytest.raises(ValueError, match=f"expects a safetensors file, got .*{name}"):
            RecurrentState.load(tmp_path / name)
    save_file({"0.0": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="expects the format hybridqlm-state-1, got None"):
        RecurrentState.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("metadata", "names", "message"),
    [
        ({}, (), "number of blocks and of tokens seen, got '' and ''"),
        ({"n_blocks": "2"}, (), "got '2' and ''"),
        ({"n_blocks": "two", "seen": "-1"}, (), "got 'two' and '-1'"),
        ({"n_blocks": "2", "seen": "3"}, ("0.0", "0.2"), "tensors named block.part, .* got '0.2'"),
        ({"n_blocks": "2", "seen": "3"}, ("2.0",), "below 2 blocks, got '2.0'"),
        ({"n_blocks": "2", "seen": "3"}, ("weight",), "got 'weight'"),
    ],
)
def test_damaged_metadata_is_refused(
    tmp_path: Path, metadata: dict[str, str], names: tuple[str, ...], message: str
) -> None:
    tensors = {name: torch.zeros(1) for name in names}
    save_file(tensors, tmp_path / "damaged", {"format": "hybridqlm-state-1", **metadata})
    with pytest.raises(ValueError, match=message) as error:
        RecurrentState.load(tmp_path / "damaged")
    assert str(tmp_path) in str(error.value)


def test_a_file_that_cannot_be_written(tmp_path: Path, model: QLMForCausalLM) -> None:
    (tmp_path / "file").write_text("in the way")
    state = after(model, ids())
    for path in (tmp_path / "nowhere" / "state", tmp_path / "file" / "state", tmp_path, Path("/proc/state")):
        with pytest.raises(ValueError, match=r"expects a writable file in a folder that exists, got .*; choose"):
            state.save(path)


def test_states_that_do_not_fit_are_refused(model: QLMForCausalLM) -> None:
    with pytest.raises(ValueError, match="expects a state of 3 blocks and 3 rows, got 2 blocks"):
        model(ids(), past_key_values=RecurrentState(2))
    with pytest.raises(ValueError, match="expects a state of 3 blocks and 2 rows, got 3 blocks and 3 rows"):
        model(ids(2), past_key_values=after(model, ids()))
    with pytest.raises(ValueError, match="3 blocks expects 3 tuples of tensors, got 1"):
        RecurrentState(3, 7, [()])


@pytest.mark.parametrize("foreign", [DynamicCache(), ((torch.zeros(3, 1),),), {"seen": 3}])
def test_caches_of_another_kind_are_refused(model: QLMForCausalLM, foreign: Any) -> None:
    message = f"^past_key_values expects a RecurrentState, got {type(foreign).__name__}; pass what an earlier call"
    with pytest.raises(TypeError, match=message):
        model(ids(), past_key_values=foreign)


def changed(state: RecurrentState, position: int, tensors: tuple[Tensor, ...]) -> RecurrentState:
    blocks = list(state.blocks)
    blocks[position] = tensors
    return RecurrentState(3, state.seen, blocks)


def test_tensors_that_do_not_fit_are_refused(model: QLMForCausalLM) -> None:
    """Of a model of another width, with other levels or taps, of another precision, too many or none."""
    state = after(model, ids())
    levels, tail = state.blocks[0]
    for tensors in (
        (levels[..., :4], tail[..., :4]),
        (levels[..., :1], tail),
        (levels[:, :2], tail),
        (torch.cat((levels, levels), 1), tail),
        (levels, tail[:, 1:]),
        (levels,),
        (levels, tail, tail),
        (),
    ):
        with pytest.raises(ValueError, match=r"block 0 of the model expects states of shapes \(\(3, 8\), \(3, 8\)\)"):
            model(ids(), past_key_values=changed(state, 0, tensors))
    with pytest.raises(
        ValueError, match=r"block 1 of the model expects states of shapes \(\) a row, got \(\(3, 8\),\)"
    ):
        model(ids(), past_key_values=changed(state, 1, (levels,)))
    with pytest.raises(ValueError, match="and 3 rows, got 3 blocks and 0 rows"):
        model(ids(), past_key_values=changed(state, 0, (torch.tensor(1.0), tail)))
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.complex128):
        with pytest.raises(ValueError, match=f"block 0 of the model expects states of float64, got {str(dtype)[6:]}"):
            model(ids(), past_key_values=changed(state, 0, (levels.to(dtype), tail.to(dtype))))
    with pytest.raises(ValueError, match="block 0 of the model expects states of float32 or narrower, got float64"):
        copy.deepcopy(model).float()(ids(), past_key_values=state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_states_check_changes_nothing(model: QLMForCausalLM, dtype: torch.dtype) -> None:
    """Neither random states nor reports; a state saved by one model is continued by its copy."""
    low = copy.deepcopy(model)
    nn.Module.to(low, dtype)  # in place, as modules are
    state = after(low, ids())
    fresh, reports, random = copy.deepcopy(low), low.reports(), torch.get_rng_state()
    fresh.model._check_state(state, fresh.model.embed(ids()))
    assert torch.equal(torch.get_rng_state(), random)
    assert fresh.reports() == reports
    assert torch.equal(answer(fresh, state), answer(low, state))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(answer(fresh, state), answer(low, state))

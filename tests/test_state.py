"""The recurrent state as a value: forked, saved, loaded, reset, reordered, and refused where it does not fit.

Axis legend: b batch, l sequence.
"""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

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


def test_states_that_do_not_fit_are_refused(model: QLMForCausalLM) -> None:
    with pytest.raises(ValueError, match="expects a state of 3 blocks and 3 rows, got 2 blocks"):
        model(ids(), past_key_values=RecurrentState(2))
    with pytest.raises(ValueError, match="expects a state of 3 blocks and 2 rows, got 3 blocks and 3 rows"):
        model(ids(2), past_key_values=after(model, ids()))

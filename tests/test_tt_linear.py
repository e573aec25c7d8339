"""TT layers: both forms and the rule between them, gradients, canonical form, initialisation, housekeeping."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tensornet import TTEmbedding, TTLinear
from tensornet.contraction import choose, multiply, possible_plans

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = tuple(TOLERANCE)
FACTORS = st.integers(1, 4).flatmap(
    lambda d: st.tuples(*(st.lists(st.integers(1, 4), min_size=d, max_size=d).map(tuple) for _ in range(2)))
)


def _layer(max_rank: int = 4, dtype: torch.dtype = torch.float64, bias: bool = True) -> TTLinear:
    torch.manual_seed(7)
    return TTLinear(24, 30, max_rank, rows=(5, 3, 2), columns=(2, 3, 4), bias=bias, dtype=dtype)


def _input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_128_by_128_at_rank_4_has_512_parameters() -> None:
    for rows, columns in (((8, 4, 4), (4, 4, 8)), (None, None)):
        layer = TTLinear(128, 128, 4, rows, columns, bias=False)
        assert [tuple(core.shape) for core in layer.cores] == [(1, 8, 4, 4), (4, 4, 4, 4), (4, 4, 8, 1)]
        assert layer.n_parameters == sum(p.numel() for p in layer.parameters()) == 512
    assert TTLinear(128, 128, 4).n_parameters == 512 + 128


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_full_rank_reproduces_the_dense_layer(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(128, 64, bias=bias, dtype=dtype)
    layer = TTLinear.from_linear(dense, max_rank=128, rows=(4, 4, 4), columns=(4, 4, 8))
    assert layer.max_rank == 32
    torch.testing.assert_close(layer.weight(), dense.weight, rtol=0, atol=TOLERANCE[dtype])
    x = _input(5, 128, dtype=dtype)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=5 * TOLERANCE[dtype])
    assert layer.cores[0].dtype == dtype
    assert (layer.bias is not None) == bias


def test_two_cores_compress_as_well_as_the_best_matrix() -> None:
    """For d = 2 the error at every rank is that of the rearranged matrix' SVD, also at prefixes of one layer."""
    dense = nn.Linear(12, 20, dtype=torch.float64)
    layer = TTLinear.from_linear(dense, max_rank=16, rows=(5, 4), columns=(3, 4))
    rearranged = dense.weight.detach().reshape(5, 4, 3, 4).permute(0, 2, 1, 3).reshape(15, 16)
    s = torch.linalg.svdvals(rearranged)
    assert layer.max_rank == 15
    for rank in range(1, 16):
        error = torch.linalg.vector_norm(layer.weight(rank) - dense.weight).item()
        assert error == pytest.approx(torch.linalg.vector_norm(s[rank:]).item(), abs=1e-12)


@given(FACTORS, st.integers(1, 5), st.integers(0, 4), st.sampled_from(DTYPES))
@settings(max_examples=40)
def test_every_plan_is_the_dense_product(
    factors: tuple[tuple[int, ...], tuple[int, ...]], max_rank: int, n_tokens: int, dtype: torch.dtype
) -> None:
    """Each grouping, from each end, also without tokens; and its flops are what torch's own counter counts."""
    rows, columns = factors
    layer = TTLinear(math.prod(columns), math.prod(rows), max_rank, rows, columns, dtype=dtype)
    x, cores = _input(n_tokens, layer.in_features, dtype=dtype), list(layer.cores)
    expected = F.linear(x, layer.weight(), layer.bias)
    for plan in possible_plans(layer._sites(None), n_tokens):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            y = multiply(x, cores, plan, layer.bias)
        torch.testing.assert_close(y, expected, rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])
        assert counter.get_total_flops() == plan.work.flops
    assert layer.plan(n_tokens).reconstruct.groups == (len(rows),)


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_forms_agree_with_gradients(dtype: torch.dtype) -> None:
    layer = _layer(dtype=dtype)
    choice = layer.plan(6)
    assert choice.contract is not None
    results = []
    for plan in (choice.reconstruct, choice.contract):
        x = _input(6, 24, dtype=dtype).requires_grad_()
        y = multiply(x, list(layer.cores), plan, layer.bias)
        results.append((y, *torch.autograd.grad(y.square().mean(), [x, *layer.parameters()])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("form", ["reconstruct", "contract"])
def test_gradcheck(form: str) -> None:
    layer = TTLinear(8, 6, 3, rows=(3, 2), columns=(2, 4), dtype=torch.float64)
    plan = getattr(layer.plan(3), form)
    x = _input(3, 8).requires_grad_()

    def run(x: Tensor, *cores: Tensor) -> Tensor:
        return multiply(x, cores, plan, layer.bias)

    assert torch.autograd.gradcheck(run, (x, *layer.cores))
    assert torch.autograd.gradcheck(lambda x: layer.forward_masked(x, torch.tensor([1, 3, 2])), (x,))
    assert torch.autograd.gradcheck(lambda x: layer.forward_grouped(x, torch.tensor([1, 3, 2])), (x,))


def test_the_rule_weighs_flops_and_bytes() -> None:
    """Few tokens on a large matrix are contracted, many tokens on a small one reconstruct; the pick is the cheaper."""
    small, large = TTLinear(128, 128, 8), TTLinear(1024, 1024, 4)
    assert small.plan(4096).form == "reconstruct"
    assert large.plan(1).form == "contract"
    assert TTLinear(4, 4, 1, (4,), (4,)).plan(1).contract is None
    for layer, n_tokens in ((small, 1), (small, 300), (large, 64), (large, 10_000)):
        choice = layer.plan(n_tokens)
        assert choice.contract is not None
        cheaper = choice.reconstruct.work.cost <= choice.contract.work.cost
        assert choice.form == ("reconstruct" if cheaper else "contract")
        assert choice.flops == getattr(choice, choice.form).work.flops
    dense = 2 * 128 * 128 * 300
    assert small.plan(300).reconstruct.work.flops == dense + 2 * 8 * (32 * 128 + 512 * 32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_canonical_form_keeps_the_weight_and_orders_the_bonds(dtype: torch.dtype) -> None:
    layer = _layer(dtype=dtype)
    with torch.no_grad():
        for core in layer.cores:
            core.copy_(torch.randn_like(core))
    before = layer.weight().detach()
    scale = before.abs().max()
    assert layer.canonicalize_() is layer
    torch.testing.assert_close(layer.weight() / scale, before / scale, rtol=0, atol=TOLERANCE[dtype])
    norms = torch.stack([torch.linalg.vector_norm(core) for core in layer.cores])
    torch.testing.assert_close(norms, norms.mean().expand(3), rtol=1e-5, atol=0)
    spectra = layer.train_at().singular_values()
    for cut, core in enumerate(layer.cores[:-1]):
        gram = torch.einsum("rmnq,rmns->qs", core, core)  # left environment: an isometry times one scale
        torch.testing.assert_close(gram / gram[0, 0], torch.eye(len(gram), dtype=dtype), rtol=0, atol=1e-5)
        assert (spectra[cut].diff() < 0).all()
    lengths = torch.linalg.vector_norm(layer.cores[-1].flatten(1), dim=1)  # the last bond's singular values, scaled
    torch.testing.assert_close(lengths / lengths[0], spectra[-1] / spectra[-1][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n_in", "n_out", "max_rank"), [(128, 128, 4), (64, 256, 8), (100, 30, 1), (7, 11, 3)])
def test_fresh_weights_have_the_variance_of_a_dense_layer(n_in: int, n_out: int, max_rank: int) -> None:
    layer = TTLinear(n_in, n_out, max_rank, dtype=torch.float64)
    assert layer.weight().square().mean().item() == pytest.approx(1 / (3 * n_in), rel=1e-10)
    assert layer.bias is not None
    assert layer.bias.abs().max() <= 1 / math.sqrt(n_in)
    again = TTLinear(n_in, n_out, max_rank, dtype=torch.float64)
    assert not torch.equal(again.weight(), layer.weight())


def test_the_zero_layer_is_compressed_without_nan() -> None:
    dense = nn.Linear(8, 8)
    nn.init.zeros_(dense.weight)
    layer = TTLinear.from_linear(dense, 2, (4, 2), (2, 4))
    assert torch.equal(layer.weight(), torch.zeros(8, 8))
    layer(torch.ones(1, 8)).sum().backward()
    assert layer.cores[-1].grad is not None
    assert layer.cores[-1].grad.abs().max() > 0


def test_layers_copy_pickle_and_reload() -> None:
    layer, x = _layer(dtype=torch.float32), _input(3, 24, dtype=torch.float32)
    assert list(layer.state_dict()) == ["bias", "cores.0", "cores.1", "cores.2"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
    fresh = TTLinear(24, 30, 4, rows=(5, 3, 2), columns=(2, 3, 4))
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    assert layer.double()(x.double()).dtype == torch.float64
    assert "ranks=(4, 4)" in repr(layer)


def test_layers_are_made_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer, table = TTLinear(64, 64), TTEmbedding(64, 16)
    assert layer(torch.zeros(2, 64, device="meta")).shape == (2, 64)
    assert {p.device.type for p in (*layer.parameters(), *table.parameters())} == {"meta"}


@pytest.mark.parametrize("n_tokens", [2, 4096])
def test_autocast_computes_in_bfloat16_near_the_float32_result(n_tokens: int) -> None:
    layer, x = TTLinear(64, 64, 4), torch.randn(n_tokens, 64)
    ranks = torch.arange(n_tokens) % 4 + 1
    expected = layer.forward_grouped(x, ranks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y in (layer.forward_grouped(x, ranks), layer.forward_masked(x, ranks)):
            assert y.dtype in (torch.bfloat16, torch.float32)
            assert (y.float() - expected).abs().max() < 0.1 * expected.abs().max()
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_choices_are_remembered() -> None:
    sites = TTLinear(64, 64, 4)._sites(None)
    assert choose(sites, 17) is choose(sites, 17)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda layer, x: TTLinear(24, 30, 4, rows=(5, 3, 3)), ValueError, r"product is 30.*\(5, 3, 2\) would do"),
        (lambda layer, x: TTLinear(24, 30, 4, columns=(5, 5)), ValueError, "columns whose product is 24"),
        (lambda layer, x: TTLinear(24, 30, 4, (6, 5), (2, 3, 4)), ValueError, "pad the shorter with ones"),
        (lambda layer, x: TTLinear(24, 30, 4, rows=(-5, -6)), ValueError, "integers of at least 1"),
        (lambda layer, x: TTLinear(24, 30, 0), ValueError, "max_rank of at least 1, got 0"),
        (lambda layer, x: layer(x[:, :5]), ValueError, r"expected x of shape \(..., 24\), got \(2, 5\)"),
        (lambda layer, x: layer(x, 5), ValueError, "from 1 to the 4 that the cores hold, got 5"),
        (lambda layer, x: layer(x, 0), ValueError, "got 0"),
        (lambda layer, x: layer.weight(9), ValueError, "got 9"),
        (lambda layer, x: layer.plan(-1), ValueError, "at least 0"),
    ],
)
def test_what_is_wrong_is_said(call: Any, error: type[Exception], words: str) -> None:
    layer = _layer()
    with pytest.raises(error, match=words):
        call(layer, _input(2, 24))

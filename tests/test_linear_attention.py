"""Causal linear attention: chunks, blocks and the plain loop say the same, with their gradients.

Axes: b batch, l sequence, c numbers of a row, e of a value, n amplitudes, f features.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from classical_kernels import causal_attention, causal_linear_attention, causal_linear_attention_reference
from classical_kernels.linear_attention.chunked import chunk_for, final_state
from classical_kernels.linear_attention.features import FeatureMap, Fidelity, Overlap, Plain, ScaledDot

MAPS = [Plain(), Overlap(), Fidelity()]
DOUBLE = torch.float64


def draw(length: int, batch: int = 2, width: int = 8, values: int = 3, dtype: torch.dtype = DOUBLE) -> list[Tensor]:
    """Rows of norm 1 and values, wanting gradients."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(batch, length, width, generator=generator, dtype=DOUBLE) for _ in range(2))
    v = torch.randn(batch, length, values, generator=generator, dtype=DOUBLE)
    rows = [torch.nn.functional.normalize(x, dim=-1) for x in (q, k)]
    return [x.to(dtype).requires_grad_() for x in (*rows, v)]


def padding(length: int) -> Tensor:
    """Left padding in row 0, holes in row 1."""
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, : length // 3] = False
    mask[1, 1::3] = False
    return mask


def gradients(outputs: tuple[Tensor, ...], operands: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    total = sum((x * torch.randn(x.shape, generator=generator, dtype=DOUBLE).to(x)).sum() for x in outputs)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, operands)


def assert_same(one: tuple[Tensor, ...], other: tuple[Tensor, ...], atol: float = 1e-10) -> None:
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, atol=atol, rtol=0)


def test_one_sum_by_hand() -> None:
    q, k = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[5.0], [7.0]]])
    v, bias = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]]), torch.tensor([[0.5, 0.25]])
    # w_00 = 10.5, w_10 = 15.25, w_11 = 21.25
    for function in (causal_linear_attention_reference, causal_linear_attention):
        out, total, state = function(q, k, v, bias=bias)
        assert out.tolist() == [[[10.5, 105.0], [57.75, 577.5]]]
        assert total.tolist() == [[10.5, 36.5]]
        assert state.tolist() == [[[19.0, 190.0, 12.0], [3.0, 30.0, 2.0]]]
    out, total = causal_attention(q, k, v, bias=bias)
    assert out.tolist() == [[[10.5, 105.0], [57.75, 577.5]]]
    assert total.tolist() == [[10.5, 36.5]]


@pytest.mark.parametrize("feature_map", MAPS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (12, 4), (13, 4), (3, 8), (70, None)])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_and_blocks_equal_the_loop_with_gradients(
    feature_map: FeatureMap, length: int, chunk: int | None, masked: bool
) -> None:
    q, k, v = draw(length)
    bias = torch.rand(2, length, dtype=DOUBLE, requires_grad=True)
    mask = padding(length) if masked else None
    start = torch.randn(2, feature_map.features(q).shape[-1] + 1, 4, dtype=DOUBLE, requires_grad=True)
    loop = causal_linear_attention_reference(q, k, v, start, mask, bias, feature_map)
    fast = causal_linear_attention(q, k, v, start, mask, bias, feature_map, chunk)
    assert_same(fast, loop)
    wanted = [q, k, v, start, bias]
    assert_same(gradients(fast, wanted), gradients(loop, wanted))
    fresh = causal_linear_attention_reference(q, k, v, None, mask, bias, feature_map)
    blocks = causal_attention(q, k, v, mask, bias, feature_map, block=chunk or 32)
    assert_same(blocks, fresh[:2])
    assert_same(gradients(blocks, [q, k, v, bias]), gradients(fresh[:2], [q, k, v, bias]))
    assert_same((final_state(k, v, mask, feature_map),), fresh[2:])


@pytest.mark.parametrize("feature_map", MAPS, ids=lambda m: type(m).__name__)
def test_features_are_those_of_the_similarity(feature_map: FeatureMap) -> None:
    q, k, _ = draw(9)
    products = feature_map.features(q) @ feature_map.features(k).mT
    assert_same((products,), (feature_map.inner(q, k),))


def test_fidelity_is_the_trace_of_two_density_matrices() -> None:
    q, k, _ = (x.detach() for x in draw(5, width=8))
    psi, phi = (torch.complex(*x.chunk(2, -1)) for x in (q, k))
    rho, sigma = (torch.einsum("bli,blj->blij", x, x.conj()) for x in (psi, phi))
    expected = torch.einsum("blij,bsji->bls", rho, sigma)
    assert float(expected.imag.abs().max()) < 1e-15
    assert_same((Fidelity().inner(q, k),), (expected.real,), 1e-14)
    vec = torch.view_as_real(rho)  # the usual real features: the diagonal, and sqrt(2) times what lies above it
    upper = torch.triu_indices(4, 4, 1)
    usual = torch.cat((vec.diagonal(dim1=2, dim2=3)[:, :, 0], 2**0.5 * vec[:, :, upper[0], upper[1]].flatten(2)), -1)
    ours = Fidelity().features(q)
    assert usual.shape == ours.shape == (2, 5, 16)
    assert_same((ours @ ours.mT,), (usual @ usual.mT,), 1e-14)


def test_overlap_is_the_fidelity_of_real_states() -> None:
    q, k, _ = draw(5)
    real = [torch.cat((x, torch.zeros_like(x)), -1) for x in (q, k)]
    assert_same((Overlap().inner(q, k),), (Fidelity().inner(*real),), 1e-14)
    assert_same((Overlap().features(q),), (Fidelity().features(real[0]),), 1e-14)


@pytest.mark.parametrize("sizes", [(5, 6), (1, 1, 9), (11, 0), (3, 4, 4)])
def test_parts_with_carried_state_equal_the_whole(sizes: tuple[int, ...]) -> None:
    q, k, v = draw(sum(sizes))
    mask = padding(sum(sizes))
    whole = causal_linear_attention(q, k, v, mask=mask, feature_map=Fidelity(), chunk=4)
    state, outs, start = None, [], 0
    for size in sizes:
        part = slice(start, start + size)
        out, total, state = causal_linear_attention(
            q[:, part], k[:, part], v[:, part], state, mask[:, part], feature_map=Fidelity(), chunk=2
        )
        outs.append((out, total))
        start += size
    assert state is not None
    parts = (torch.cat([out for out, _ in outs], 1), torch.cat([total for _, total in outs], 1), state)
    assert_same(parts, whole)


def test_float32_stays_near_float64() -> None:
    single, double = draw(300, dtype=torch.float32), draw(300)

    def linear(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return causal_linear_attention(q, k, v, feature_map=Fidelity())

    def quadratic(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return causal_attention(q, k, v, similarity=Fidelity())

    for function in (linear, quadratic):
        ours, exact = function(*single), function(*double)
        assert all(x.dtype == torch.float32 for x in ours)
        for x, y in zip(gradients(ours[:2], single), gradients(exact[:2], double), strict=True):
            torch.testing.assert_close(x.double(), y, atol=3e-4, rtol=1e-4)
        assert_same(tuple(x.double() for x in ours[:2]), exact[:2], 2e-4)


@pytest.mark.parametrize("length", [7, 40])
@pytest.mark.parametrize("past", [0, 3])
def test_softmax_is_torchs_own_attention(length: int, past: int) -> None:
    q, k, v = draw(length + past)
    q = q[:, past:].detach().requires_grad_()
    tau = 0.3
    found, total = causal_attention(q, k, v, similarity=ScaledDot(), tau=tau, block=16)
    seen = torch.ones(length, length + past, dtype=torch.bool).tril(past)
    expected = torch.nn.functional.scaled_dot_product_attention(q / tau, k, v, attn_mask=seen)
    assert_same((found, total), (expected, torch.ones_like(total)))
    assert_same(gradients((found,), [q, k, v]), gradients((expected,), [q, k, v]))


def test_softmax_reads_no_padding_and_a_query_without_tokens_reads_nothing() -> None:
    q, k, v = draw(20)
    mask = padding(20)
    found, total = causal_attention(q, k, v, mask, similarity=Fidelity(), tau=0.2, block=8)
    assert bool((total[0, :6] == 0).all())
    assert bool((found[0, :6] == 0).all())
    row = mask[1].nonzero().squeeze(1)
    alone, _ = causal_attention(q[1:, row], k[1:, row], v[1:, row], similarity=Fidelity(), tau=0.2)
    assert_same((found[1:, row],), (alone,))
    assert all(bool(torch.isfinite(g).all()) for g in gradients((found,), [q, k, v]))


def test_second_derivatives_exist_in_chunks_and_in_one_block_and_are_refused_beyond() -> None:
    operands = [x.detach()[:1, :5, :4].requires_grad_() for x in draw(5, width=4)]

    def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_linear_attention(q, k, v, feature_map=Fidelity(), chunk=2)[0]

    def quadratic(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_attention(q, k, v, similarity=Fidelity())[0]

    for function in (linear, quadratic):
        assert torch.autograd.gradgradcheck(function, operands)
    q, k, v = operands
    out, _ = causal_attention(q, k, v, similarity=Fidelity(), block=2)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        torch.autograd.grad(out.sum(), operands, create_graph=True)


def saved_bytes(call: Callable[..., tuple[Tensor, ...]], length: int) -> int:
    """Bytes that autograd keeps between a call and its gradient, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    operands = draw(length, batch=1, width=16, values=16, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = call(*operands)
    assert outputs[0].requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("form", ["linear", "quadratic"])
def test_memory_kept_for_the_gradient_is_linear_in_the_sequence(form: str) -> None:
    def linear(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return causal_linear_attention(q, k, v, feature_map=Fidelity())

    def quadratic(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return causal_attention(q, k, v, similarity=Fidelity())

    sizes = [saved_bytes(linear if form == "linear" else quadratic, length) for length in (512, 1024, 2048)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)
    assert sizes[2] == pytest.approx(4 * sizes[0], rel=0.05)
    assert sizes[2] < 0.5 * 4 * 2048 * 64 * 16  # not one (l, f, e)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_nothing_is_answered_with_nothing(shape: tuple[int, int]) -> None:
    x, state = torch.zeros(*shape, 4), torch.ones(shape[0], 5, 4)
    for function in (causal_linear_attention, causal_linear_attention_reference):
        out, total, last = function(x, x, torch.zeros(*shape, 3), state)
        assert (out.shape, total.shape) == ((*shape, 3), shape)
        assert torch.equal(last, state)
    assert causal_attention(x, x, torch.zeros(*shape, 3))[0].shape == (*shape, 3)


def test_rows_without_numbers_weigh_by_the_bias_alone() -> None:
    """The uniform average: what remains when there is no kernel."""
    v = draw(9)[2].detach()
    rows, bias = v[..., :0], torch.full((2, 9), 0.5, dtype=DOUBLE)
    expected = v.cumsum(1) / torch.arange(1, 10)[:, None]
    for out, total in (
        causal_linear_attention(rows, rows, v, bias=bias)[:2],
        causal_attention(rows, rows, v, None, bias),
    ):
        assert_same((out / total[..., None],), (expected,))


def test_chunks_grow_with_the_features() -> None:
    sizes = [chunk_for(4**n) for n in range(9)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (64, 512)


def test_bad_operands_are_refused_in_one_sentence() -> None:
    x = torch.zeros(2, 3, 4)
    cases = [
        ((x, x, torch.zeros(2, 2, 4)), {}, ValueError, "q, k .batch, seq, c. and v"),
        ((x, torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)), {}, ValueError, "got .2, 3, 4., .2, 4, 4."),
        ((x, x.double(), x), {}, TypeError, "one dtype, float32 or float64, got k of torch.float64"),
        ((x, x, [1.0]), {}, TypeError, "v expects a torch tensor, got list"),
        ((x.half(), x.half(), x.half()), {}, TypeError, "got q of torch.float16"),
        ((x, x, x), {"mask": torch.ones(2, 3)}, ValueError, "mask expects booleans .2, 3."),
        ((x, x, x), {"mask": torch.ones(2, 3, 3, dtype=torch.bool)}, ValueError, "takes a padding mask alone"),
        ((x, x, x), {"bias": torch.ones(3)}, ValueError, "bias expects one number per query"),
        ((x, x, x), {"state": torch.zeros(2, 4, 4)}, ValueError, r"state expects shape .* = \(2, 5, 5\)"),
    ]
    for (operands, options, error, message), function in itertools.product(
        cases, (causal_linear_attention, causal_linear_attention_reference)
    ):
        with pytest.raises(error, match=message):
            function(*operands, **options)
    with pytest.raises(ValueError, match=r"q, k \(batch, seq, c\) and v"):
        causal_attention(torch.zeros(2, 4, 4), x, x)
    for tau, bias in ((0.0, None), (0.1, torch.zeros(2, 3))):
        with pytest.raises(ValueError, match="tau > 0, without a bias"):
            causal_attention(x, x, x, None, bias, tau=tau)

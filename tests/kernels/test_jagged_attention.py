"""Packed attention: parity with the formula, layouts of every kind, torch's own checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.jagged_attention import attend, available
from kernels.jagged_attention.ops import WIDTHS, backward, forward
from kernels.jagged_attention.reference import attention

if not available(16, torch.device("cpu")):
    pytest.skip("this machine has no GCC", allow_module_level=True)

QUERIES = [3, 50, 0, 1, 130, 8, 17, 2]
KEYS = [700, 37, 5, 0, 16, 515, 15, 1100]  # chunks are of 512 keys, vectors of 16


def ends(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def both(
    queries: Tensor,
    key_value: Tensor | None,
    asks: Tensor,
    holds: Tensor,
    *,
    heads: int,
    visible: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of the kernel, and of the formula in float64."""
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (queries, key_value) if x is not None]
        if dtype == torch.float32:
            out, lse = attend(leaves[0], *leaves[1:] or (None,), asks, holds, heads=heads, visible=visible)
        else:
            parts = leaves[0].chunk(3, 1) if key_value is None else (leaves[0], *leaves[1].chunk(2, 1))
            out, lse = attention(*parts, asks, holds, heads=heads, visible=visible)
        seen = torch.isfinite(lse)
        loss = (out * random(*out.shape, seed=1).to(dtype)).sum()
        loss = loss + (lse * random(*lse.shape, seed=2).to(dtype))[seen].sum()
        loss.backward()
        results.append([out.detach(), lse.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    return results[0], results[1]


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(b[torch.isfinite(b)].abs().max())) if b.isfinite().any() else 1.0
        torch.testing.assert_close(a.double(), b, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("heads", [1, 2, 5])
@pytest.mark.parametrize("width", WIDTHS)
def test_outputs_and_gradients_are_those_of_the_formula(width: int, heads: int) -> None:
    size = width * heads
    close(
        *both(random(sum(QUERIES), size), random(sum(KEYS), 2 * size), ends(QUERIES), ends(KEYS), heads=heads)
    )


def test_queries_that_see_a_part() -> None:
    visible = torch.randint(0, 1200, (sum(QUERIES),), generator=torch.Generator().manual_seed(0))
    visible[:3] = torch.tensor([0, 1, 2000])
    given_ = random(sum(QUERIES), 32), random(sum(KEYS), 64)
    close(*both(*given_, ends(QUERIES), ends(KEYS), heads=2, visible=visible))


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_in_one_tensor(causal: bool) -> None:
    offsets = ends(KEYS)
    visible = torch.cat([torch.arange(1, n + 1) for n in KEYS]) if causal else None
    close(*both(random(sum(KEYS), 96), None, offsets, offsets, heads=2, visible=visible))


@pytest.mark.parametrize("scale", [1e-6, 30.0])
def test_small_and_large_scores(scale: float) -> None:
    given_ = random(60, 16, scale=scale), random(90, 32, scale=scale)
    found, wanted = both(*given_, ends([60]), ends([90]), heads=1)
    assert all(x.isfinite().all() for x in found)
    # Scores of a thousand hold four digits behind the point in float32.
    torch.testing.assert_close(found[0].double(), wanted[0], atol=2e-3 * scale, rtol=1e-2)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=5),
    width=st.sampled_from(WIDTHS),
    seed=st.integers(0, 99),
)
def test_any_layout(lengths: list[tuple[int, int]], width: int, seed: int) -> None:
    asks, holds = ([pair[i] for pair in lengths] for i in (0, 1))
    given_ = random(sum(asks), width, seed=seed), random(sum(holds), 2 * width, seed=seed + 1)
    if not lengths:
        out, lse = attend(*given_, ends([]), ends([]), heads=1)
        assert out.shape == (0, width) and lse.shape == (0, 1)
        return
    close(*both(*given_, ends(asks), ends(holds), heads=1))


def test_nothing_of_one_request_reaches_another() -> None:
    query, key_value = random(9, 16), random(12, 32)
    asks, holds = ends([3, 3, 3]), ends([4, 4, 4])
    clean = attend(query, key_value, asks, holds, heads=1)[0]
    broken = key_value.detach().clone()
    broken[4:8] = torch.nan
    out = attend(query, broken, asks, holds, heads=1)[0]
    assert torch.equal(out[:3], clean[:3]) and torch.equal(out[6:], clean[6:]) and out[3:6].isnan().all()


def test_rows_are_read_where_they_lie() -> None:
    wide, tall, pairs = (
        random(sum(QUERIES), 50),
        random(50, sum(QUERIES), seed=1),
        random(sum(KEYS), 70, seed=2),
    )
    key_value, offsets = pairs[:, 3:67], (ends(QUERIES), ends(KEYS))
    visible = (torch.arange(2 * sum(QUERIES)) % 40)[::2]
    for asked in (wide[:, 5:37], tall[9:41].t(), wide[:1, :32].expand(sum(QUERIES), 32)):
        results = []
        for given_ in (
            (asked, key_value, visible),
            (asked.contiguous(), key_value.contiguous(), visible + 0),
        ):
            outs = attend(*given_[:2], *offsets, heads=2, visible=given_[2])
            loss = outs[0].square().sum() + outs[1][outs[1].isfinite()].sum()
            grads = torch.autograd.grad(loss, (wide, tall, pairs), allow_unused=True)
            results.append([*outs, *(x for x in grads if x is not None)])
        assert not visible.is_contiguous() and not asked.is_contiguous() and len(results[0]) == 4
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_bfloat16_is_computed_in_float32() -> None:
    half = [x.detach().bfloat16().requires_grad_() for x in (random(40, 32), random(50, 64))]
    full = [x.detach().float().requires_grad_() for x in half]
    out, lse = attend(*half, ends([40]), ends([50]), heads=2)
    wanted, _ = attend(*full, ends([40]), ends([50]), heads=2)
    assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    assert torch.equal(out, wanted.bfloat16())
    exact = torch.autograd.grad(wanted.sum(), full)
    for mine, plain in zip(torch.autograd.grad(out.float().sum(), half), exact, strict=True):
        assert torch.equal(mine, plain.bfloat16())


@pytest.mark.parametrize("part", [0, 1, 2], ids=["query", "key", "value"])
def test_nan_shows_where_it_is_and_nowhere_else(part: int, threads: None) -> None:
    torch.set_num_threads(1)  # the requests behind the first find in its scratch what it left
    lengths = [130, 5, 17, 1, 0, 2]
    rows = random(sum(lengths), 96).detach()
    rows[70, 32 * part : 32 * part + 32] = torch.nan
    found = []
    for given_ in (rows.nan_to_num(), rows):
        leaf = given_.clone().requires_grad_()
        out, lse = attend(leaf, None, ends(lengths), ends(lengths), heads=2)
        found.append([out.detach(), lse.detach(), *torch.autograd.grad(out.sum() + lse.sum(), leaf)])
    assert all(torch.equal(clean[130:], spoilt[130:]) for clean, spoilt in zip(*found, strict=True))
    out, lse, gradient = found[1]
    asked = slice(70, 71) if part == 0 else slice(130)
    assert out[asked].isnan().all() and bool(lse[asked].isnan().all()) == (part < 2)
    assert gradient[asked, :32].isnan().all()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_neither_threads_nor_what_ran_before_change_a_bit(threads: None) -> None:
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        attend(random(5 * number, 64), random(900, 128), ends([5 * number]), ends([900]), heads=1)
        leaves = random(sum(QUERIES), 64), random(sum(KEYS), 128)
        out, lse = attend(*leaves, ends(QUERIES), ends(KEYS), heads=4)
        out.square().sum().backward()
        results.append([out, lse, *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("alone", [False, True])
def test_opcheck(alone: bool) -> None:
    asks, holds, visible = ends([2, 0, 3]), ends([2, 0, 3]), torch.tensor([1, 2, 0, 3, 1])
    rows = (random(5, 48), None) if alone else (random(5, 16), random(5, 32))
    torch.library.opcheck(forward, (*rows, asks, holds, visible, 2))
    out, lse = forward(*rows, asks, holds, visible, 2)
    gradients = torch.ones_like(out), torch.ones_like(lse)
    plain = [None if x is None else x.detach() for x in rows]
    tests = ("test_schema", "test_faketensor")
    given_ = (*plain, asks, holds, visible, 2, out.detach(), lse.detach(), *gradients)
    torch.library.opcheck(backward, given_, test_utils=tests)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query_offsets": ends([4])}, "rise from 0"),
        ({"key_offsets": torch.tensor([0, 7, 5])}, "rise from 0"),
        ({"key_offsets": ends([2, 3])}, "as many requests"),
        ({"key_value": torch.zeros(5, 30)}, "2 D"),
        ({"heads": 3}, "multiple of 3 heads"),
        ({"queries": torch.zeros(5, 1, 16)}, "must be"),
        ({"key_value": torch.zeros(5, 1, 32)}, "must be"),
        ({"visible": torch.zeros(4, dtype=torch.int64)}, "visible"),
        ({"visible": torch.zeros(5, dtype=torch.int32)}, "must be int64, got visible torch.int32"),
        ({"key_offsets": ends([5]).int()}, "must be int64, got key_offsets torch.int32"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], says: str) -> None:
    given_ = {
        "queries": torch.zeros(5, 16),
        "key_value": torch.zeros(5, 32),
        "query_offsets": ends([5]),
        "key_offsets": ends([5]),
        "heads": 1,
    }
    with pytest.raises(ValueError, match=says):
        attend(**{**given_, **change})  # type: ignore[arg-type]


def test_other_widths_and_devices_have_no_kernel() -> None:
    assert not available(12, torch.device("cpu")) and not available(16, torch.device("cuda"))
    with pytest.raises(NotImplementedError, match="no compiled attention for heads of width 12"):
        attend(random(2, 24), random(2, 48), ends([2]), ends([2]), heads=2)


def test_a_second_derivative_is_refused_not_zero() -> None:
    queries, key_value = random(5, 16).requires_grad_(), random(5, 32).requires_grad_()
    out, _ = attend(queries, key_value, ends([5]), ends([5]), heads=1)
    (first,) = torch.autograd.grad(out.square().sum(), queries, create_graph=True)
    with pytest.raises(NotImplementedError, match="CTR_NATIVE=0"):
        first.square().sum().backward()


def test_rows_that_overlap_in_memory() -> None:
    base = random(23, 1).flatten()
    key_value = random(9, 32)

    def gradient(queries: Tensor) -> Tensor:
        queries = queries.detach().requires_grad_()
        out, _ = attend(queries, key_value, ends([8]), ends([9]), heads=1)
        (found,) = torch.autograd.grad(out.square().sum(), queries)
        return found

    overlapping = base.unfold(0, 16, 1)
    assert torch.equal(gradient(overlapping), gradient(overlapping.contiguous()))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FC000FF, -0x3FFF01])
def test_a_nan_with_other_bits_is_one_too(bits: int) -> None:
    key_value = random(9, 32).detach()
    key_value.view(torch.int32)[4, 3] = bits
    assert key_value[4, 3].isnan()
    out, lse = attend(random(5, 16), key_value, ends([5]), ends([9]), heads=1)
    assert out.isnan().all() and lse.isnan().all()


@pytest.mark.parametrize("queries", [2, 3, 8, 9, 10, 11])
def test_a_key_that_no_query_sees_gets_no_gradient_whatever_it_holds(queries: int) -> None:
    key_value = random(20, 32).detach()
    key_value[15, :16] = torch.nan
    key_value.requires_grad_()
    visible = torch.full((queries,), 5)
    out, _ = attend(random(queries, 16), key_value, ends([queries]), ends([20]), heads=1, visible=visible)
    out.sum().backward()
    gradient = key_value.grad
    assert gradient is not None and gradient[:5].any() and not gradient[5:].any()


def test_fewer_than_no_key_are_none() -> None:
    visible = torch.tensor([-(2**32) + 3, -1, 0, 9])
    out, lse = attend(random(4, 16), random(9, 32), ends([4]), ends([9]), heads=1, visible=visible)
    assert not out[:3].any() and (lse[:3] == -torch.inf).all() and out[3].all()

"""The registered operators: torch's own checks, compiled graphs, autocast, bags, threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.unique_pooling import columns as columns_module
from kernels.unique_pooling import gather_bags, gather_sum, gather_sum_joined, segment_sum
from kernels.unique_pooling.bags import Bags, transpose
from kernels.unique_pooling.ops import bag_sum_op, segment_sum_op

BAGS = {
    "plain": Bags(torch.tensor([2, 0, 2, 1])),
    "columns": Bags(torch.tensor([[2, 0], [1, 1], [0, 2]])),
    "lists": Bags(torch.tensor([2, 0, 2, 1]), torch.tensor([0, 3, 3, 4]), torch.tensor([0.5, 0.2, 0.3, 1])),
    "empty": Bags(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0])),
    "sorted": Bags(torch.arange(1500) * 7 % 3),
}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)
    return made.requires_grad_()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("bags", BAGS.values(), ids=list(BAGS))
def test_opcheck(bags: Bags) -> None:
    torch.library.opcheck(bag_sum_op, (random(3, 5), *bags))
    torch.library.opcheck(segment_sum_op, (random(bags.num_bags, 5), *bags, 3))


@pytest.mark.parametrize("bags", BAGS.values(), ids=list(BAGS))
def test_each_is_the_gradient_of_the_other(bags: Bags) -> None:
    if bags.num_bags > 4:
        return
    rows, tokens = random(3, 2, dtype=torch.float64), random(bags.num_bags, 2, dtype=torch.float64)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda r: bag_sum_op(r, *bags), (rows,))
        assert check(lambda g: segment_sum_op(g, *bags, 3), (tokens,))


def pooled(rows: Tensor, inverse: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    lists = gather_bags(rows, inverse, offsets, weights).sum(0) + gather_bags(rows, inverse, offsets).sum(0)
    return lists + gather_bags(rows, inverse).sum(0) + gather_sum([rows, 2 * rows], [inverse, inverse]).sum(0)


def test_one_compiled_graph() -> None:
    given_ = (torch.tensor([0, 1, 4, 4]), torch.tensor([0, 3, 3, 4]), torch.rand(4))
    rows = random(5, 3)
    (wanted,) = torch.autograd.grad(pooled(rows, *given_).square().sum(), rows)
    compiled: Callable[..., Tensor] = torch.compile(pooled, fullgraph=True, backend="aot_eager")
    out = compiled(rows, *given_)
    torch.testing.assert_close(out, pooled(rows, *given_))
    (got,) = torch.autograd.grad(out.square().sum(), rows)
    torch.testing.assert_close(got, wanted)


def test_autocast_leaves_the_dtype_to_the_rows() -> None:
    rows, weight, inverse = random(4, 3), random(6, 3), torch.tensor([3, 0, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gather_bags(rows, inverse).dtype == torch.float32
        mapped = torch.nn.functional.linear(rows, weight)
        out = gather_sum([mapped, mapped], [inverse, inverse])
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert rows.grad is not None and rows.grad.dtype == torch.float32 and not rows.grad[2].any()


@pytest.mark.parametrize("unique", [1, 20, 3000])
def test_sums_do_not_depend_on_threads(unique: int) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20_000, 8, generator=generator)
    inverse = torch.randint(unique, (20_000,), generator=generator)
    both = torch.stack([inverse, inverse.flip(0)], dim=1)
    threads = torch.get_num_threads()

    def sums() -> Tensor:
        columns = segment_sum_op(gradients, both, None, None, unique)
        return torch.cat(
            [segment_sum(gradients, inverse, unique), columns, bag_sum_op(columns, both, None, None)]
        )

    try:
        torch.set_num_threads(1)
        one = sums()
        torch.set_num_threads(3)
        assert all(torch.equal(one, sums()) for _ in range(3))
    finally:
        torch.set_num_threads(threads)


@given(
    lists=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8), weighted=st.booleans()
)
def test_transpose_keeps_every_entry(lists: list[list[int]], weighted: bool) -> None:
    indices = torch.tensor([row for one in lists for row in one], dtype=torch.int64)
    starts = torch.tensor([0, *(len(one) for one in lists)]).cumsum(0)
    weights = torch.arange(1.0, len(indices) + 1) if weighted else None
    bag_of, by_row, moved = transpose(Bags(indices, starts, weights), 6)
    entries = sorted((row, bag) for bag, one in enumerate(lists) for row in one)
    rows = torch.repeat_interleave(by_row.diff())
    assert list(zip(rows.tolist(), bag_of.tolist(), strict=True)) == entries
    if weights is not None and moved is not None:
        assert moved.tolist() == weights[indices.argsort(stable=True)].tolist()


@pytest.mark.parametrize("width", [1, 16, 21, 64, 100])
def test_columns_summed_by_compiled_code_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    sizes, n = [700, 1, 40, 3000], 2500
    make = torch.Generator().manual_seed(width)
    columns = [torch.randint(0, size, (n, 2), generator=make)[:, 0] for size in sizes]  # strided
    rows = torch.randn(sum(sizes), width, generator=make).requires_grad_()
    gradient = torch.randn(n, width, generator=make)

    def results() -> tuple[Tensor, Tensor]:
        tokens = gather_sum_joined(rows, sizes, columns)
        (of_rows,) = torch.autograd.grad(tokens, rows, gradient)
        return tokens.detach(), of_rows

    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results())
    torch.set_num_threads(before)
    monkeypatch.setattr(columns_module, "compiled", lambda *_: False)
    tokens, of_rows = results()
    for pair in found:
        torch.testing.assert_close(pair[0], tokens, atol=1e-5, rtol=0)
        assert torch.equal(pair[0], found[0][0]) and torch.equal(pair[1], of_rows)


def test_columns_of_no_token() -> None:
    rows = torch.randn(5, 4, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    assert gather_sum_joined(rows, [2, 3], [none, none]).shape == (0, 4)


def test_a_gradient_of_the_gradient_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    columns = [torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2])]

    def second() -> Tensor:
        tokens = gather_sum_joined(rows, [2, 3], columns)
        (first,) = torch.autograd.grad(tokens.pow(3).sum(), rows, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), rows)[0]

    found = second()
    monkeypatch.setattr(columns_module, "compiled", lambda *_: False)
    torch.testing.assert_close(found, second())

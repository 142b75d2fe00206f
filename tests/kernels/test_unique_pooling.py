"""kernels.unique_pooling: outputs and gradients against the reference, edge cases, error texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.unique_pooling import gather_bags, gather_sum, ops, segment_sum
from kernels.unique_pooling.reference import gather_bags_reference, gather_sum_reference

BF16 = torch.bfloat16


def inputs(
    unique: int,
    entries: int,
    bags: int | None,
    *,
    weighted: bool = False,
    dtype: torch.dtype = torch.float32,
    width: int = 7,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(unique * 31 + entries)
    rows = torch.randn(unique, width, generator=generator).to(dtype).requires_grad_()
    inverse = (
        torch.randint(unique, (entries,), generator=generator)
        if entries
        else torch.empty(0, dtype=torch.int64)
    )
    if bags is None:
        return rows, inverse, None, None
    cuts = torch.randint(entries + 1, (bags - 1,), generator=generator).sort().values
    offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([entries])])
    weights = torch.rand(entries, generator=generator) - 0.2 if weighted else None
    return rows, inverse, offsets, weights


def assert_parity(out: Tensor, exact: Tensor, rows: list[Tensor], exact_rows: list[Tensor]) -> None:
    """Outputs and gradients against those of a reference in float64."""
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out.dtype)
    got = torch.autograd.grad(out, rows, upstream)
    wanted = torch.autograd.grad(exact, exact_rows, upstream.double())
    tolerance = {"rtol": 2e-2, "atol": 5e-2} if out.dtype == BF16 else {"rtol": 1e-5, "atol": 5e-5}
    for mine, plain in zip([out, *got], [exact, *wanted], strict=True):
        assert mine.dtype == rows[0].dtype
        torch.testing.assert_close(mine.double(), plain, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("bags", [None, 1, 9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("unique", "entries"), [(5, 33), (1, 20), (33, 5), (4, 0), (300, 1500)])
def test_equals_reference(
    dtype: torch.dtype, bags: int | None, weighted: bool, unique: int, entries: int
) -> None:
    rows, inverse, offsets, weights = inputs(unique, entries, bags, weighted=weighted, dtype=dtype)
    exact_rows = rows.detach().double().requires_grad_()
    exact = gather_bags_reference(exact_rows, inverse, offsets, None if weights is None else weights.double())
    assert_parity(gather_bags(rows, inverse, offsets, weights), exact, [rows], [exact_rows])


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("width", [1, 3, 64, 65])
@pytest.mark.parametrize("bags", [None, 9])
def test_any_width(dtype: torch.dtype, width: int, bags: int | None) -> None:
    rows, inverse, offsets, _ = inputs(200, 1300, bags, dtype=dtype, width=width)
    exact_rows = rows.detach().double().requires_grad_()
    exact = gather_bags_reference(exact_rows, inverse, offsets)
    # Sums of so many bf16 gradients are large; the tolerance of the rows is relative to one.
    assert_parity(gather_bags(rows, inverse, offsets), exact, [rows], [exact_rows])


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("width", [1, 3, 64, 65])
@pytest.mark.parametrize(
    ("unique", "entries"), [([5], 33), ([5, 1, 20], 33), ([7, 3], 0), ([90, 300, 2], 700)]
)
def test_sum_of_columns(dtype: torch.dtype, width: int, unique: list[int], entries: int) -> None:
    columns = [inputs(count, entries, None, dtype=dtype, width=width)[:2] for count in unique]
    rows, inverse = [c[0] for c in columns], [c[1] for c in columns]
    exact_rows = [table.detach().double().requires_grad_() for table in rows]
    assert_parity(gather_sum(rows, inverse), gather_sum_reference(exact_rows, inverse), rows, exact_rows)


def test_unused_rows_are_not_read() -> None:
    rows = torch.full((4, 3), torch.nan)
    rows[1] = 1.0
    rows.requires_grad_()
    ones = torch.ones(2000, dtype=torch.int64)
    total = gather_bags(rows, ones).sum(0) + gather_bags(rows, ones, torch.tensor([0, 0, 2000]))[1]
    (total + gather_sum([rows, rows], [ones, ones]).sum(0)).sum().backward()
    assert total.tolist() == [2001.0] * 3
    assert rows.grad is not None and rows.grad[:, 0].tolist() == [0.0, 6001.0, 0.0, 0.0]


@pytest.mark.parametrize("entries", [40, 3000])  # added one by one, and sorted
def test_gradients_need_not_be_contiguous(entries: int) -> None:
    gradients = torch.randn(5, entries, generator=torch.Generator().manual_seed(1))
    inverse = torch.arange(entries) * 7 % 11
    rows = torch.zeros(11, 5, requires_grad=True)
    gather_bags(rows, inverse).backward(gradients.t())
    assert rows.grad is not None
    assert torch.equal(rows.grad, segment_sum(gradients.t().contiguous(), inverse, 11))


def test_a_token_may_go_to_several_rows() -> None:
    gradients = torch.randn(30, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    several = torch.stack([torch.arange(30) * 7 % 11, torch.arange(30) * 5 % 11], dim=1)
    total = segment_sum(gradients, several, 11)
    torch.testing.assert_close(total, sum(segment_sum(gradients, column, 11) for column in several.T))
    total.square().sum().backward()
    torch.testing.assert_close(gradients.grad, 2 * total.detach()[several].sum(dim=1))


def test_the_entries_of_lists_are_never_a_tensor() -> None:
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            floats = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.is_floating_point()]
            self.size = max([self.size, *(t.numel() for t in floats)])
            return out

    rows, inverse, offsets, weights = inputs(20, 5000, 30, weighted=True, width=16)
    with Largest() as seen:
        ops._bag_sum(rows.detach(), inverse, offsets, weights)
        ops._segment_sum(torch.ones(30, 16), inverse, offsets, weights, 20)
        ops._bag_sum(rows.detach(), inverse.view(-1, 10), None, None)
    assert 0 < seen.size <= 500 * 16  # the largest result; the entries would be 5000 * 16


@pytest.mark.gpu
@pytest.mark.parametrize("bags", [None, 9])
def test_gpu_equals_cpu(bags: int | None) -> None:
    rows, *use = inputs(500, 3000, bags, weighted=True)
    there = rows.detach().cuda().requires_grad_()
    out, out_there = (
        gather_bags(rows, *use),
        gather_bags(there, *(None if t is None else t.cuda() for t in use)),
    )
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    out.backward(upstream)
    out_there.backward(upstream.cuda())
    torch.testing.assert_close(out_there.cpu(), out)
    assert rows.grad is not None and there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), rows.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bags", [None, 4])
def test_gradcheck(bags: int | None) -> None:
    rows, inverse, offsets, weights = inputs(5, 12, bags, weighted=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: gather_bags(r, inverse, offsets, weights), (rows,))


def test_empty_lists_and_weightless_lists_are_zero() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    out = gather_bags(rows, torch.tensor([0, 1]), torch.tensor([0, 0, 2, 2]), torch.zeros(2))
    assert out.tolist() == [[0.0] * 3] * 3
    out.sum().backward()
    assert rows.grad is not None and not rows.grad.any()


def test_no_owner_and_no_row() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert gather_bags(torch.empty(0, 3), none).shape == (0, 3)
    assert gather_bags(torch.empty(0, 3), none, torch.tensor([0])).shape == (0, 3)
    assert gather_bags(torch.empty(0, 3), none, torch.tensor([0, 0, 0])).tolist() == [[0.0] * 3] * 2


def test_one_row_everywhere_sums_all_uses() -> None:
    rows = torch.zeros(3, 2, requires_grad=True)
    gather_bags(rows, torch.ones(1000, dtype=torch.int64)).sum().backward()
    assert rows.grad is not None and rows.grad.tolist() == [[0.0, 0.0], [1000.0, 1000.0], [0.0, 0.0]]


def test_reduce_of_16_bit_gradients_sums_in_float32() -> None:
    many = torch.ones(1000, 1, dtype=torch.bfloat16)  # bf16 sums of ones stop at 256
    assert segment_sum(many, torch.zeros(1000, dtype=torch.int64), 1).item() == 1000


@pytest.mark.parametrize(
    ("inverse", "offsets", "weights", "message"),
    [
        (
            [0, 7],
            None,
            None,
            r"inverse_indices must lie in \[0, 3\) \(the number of unique rows\), got 0 to 7; take",
        ),
        ([-1], None, None, r"got -1 to -1"),
        (
            [0, 1],
            [0, 1],
            None,
            r"offsets must go up from 0 to 2 \(the number of inverse_indices\), got \[0, 1\]",
        ),
        ([0, 1], [0, 2, 1, 2], None, r"offsets must go up from 0 to 2"),
        ([0, 1], [], None, r"offsets must go up from 0 to 2"),
        (
            [0, 1],
            [0, 2],
            [1.0],
            r"weights must be \(V,\) = \(2,\) and come with offsets, got \(1,\) with offsets",
        ),
        ([0, 1], None, [1.0, 1.0], r"weights .* without offsets"),
    ],
)
def test_wrong_inputs_are_named(
    inverse: list[int], offsets: list[int] | None, weights: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gather_bags(
            torch.zeros(3, 2),
            torch.tensor(inverse),
            None if offsets is None else torch.tensor(offsets, dtype=torch.int64),
            None if weights is None else torch.tensor(weights),
        )


def test_wrong_types_are_named() -> None:
    with pytest.raises(ValueError, match="rows must be floating point"):
        gather_bags(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([0]))
    with pytest.raises(ValueError, match="inverse_indices must be int64"):
        gather_bags(torch.zeros(3, 2), torch.tensor([0], dtype=torch.int32))


@pytest.mark.parametrize(
    ("rows", "entries", "message"),
    [
        ([], [], r"one inverse_indices \(V,\) for each of its rows .* got 0 rows"),
        ([(3, 2)], [4, 4], r"got 1 rows of widths \[2\] and 2 inverse_indices"),
        ([(3, 2), (3, 2)], [4, 5], r"lengths \[4, 5\]; take the columns of one level"),
        ([(3, 2), (3, 5)], [4, 4], r"widths \[2, 5\]"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    rows: list[tuple[int, int]], entries: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gather_sum([torch.zeros(r) for r in rows], [torch.zeros(n, dtype=torch.int64) for n in entries])


def test_a_column_never_reads_the_next_one() -> None:
    inverse = [torch.tensor([0, 3]), torch.tensor([0, 0])]
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\) .* got 0 to 3"):
        gather_sum([torch.zeros(3, 2), torch.zeros(3, 2)], inverse)


def test_gradients_that_do_not_fit_are_named() -> None:
    inverse = torch.arange(10)
    for gradients, indices, message in [
        (torch.ones(3, 4), inverse, "one of the 10 inverse_indices"),
        (torch.ones(10), inverse, "must be floating point"),
        (torch.ones(10, 4, dtype=torch.int64), inverse, "must be floating point"),
        (torch.ones(10, 4), inverse.int(), "must be int64"),
        (torch.ones(10, 4), inverse.to("meta"), "on cpu, got meta"),
        (torch.ones(10, 4), inverse + 1, r"must lie in \[0, 10\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            segment_sum(gradients, indices, 10)


def test_indices_elsewhere_are_named() -> None:
    here, there = torch.tensor([0, 1]), torch.tensor([0, 1], device="meta")
    for columns in ([there], [here, there]):
        with pytest.raises(ValueError, match="must be where their rows are, on cpu, got meta"):
            gather_sum([torch.zeros(3, 2) for _ in columns], columns)

"""kernels.unique_pooling: outputs and gradients against the reference, edge cases, error texts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.unique_pooling import expand, reduce
from kernels.unique_pooling.reference import expand_reference


def inputs(
    unique: int, uses: int, owners: int | None, *, weighted: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(unique * 31 + uses)
    rows = torch.randn(unique, 7, generator=generator).to(dtype).requires_grad_()
    inverse = (
        torch.randint(unique, (uses,), generator=generator) if uses else torch.empty(0, dtype=torch.int64)
    )
    if owners is None:
        return rows, inverse, None, None
    cuts = torch.randint(uses + 1, (owners - 1,), generator=generator).sort().values
    offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([uses])])
    weights = torch.rand(uses, generator=generator) - 0.2 if weighted else None
    return rows, inverse, offsets, weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("owners", [None, 1, 9])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("unique", "uses"), [(5, 33), (1, 20), (33, 5), (4, 0)])
def test_equals_reference(
    dtype: torch.dtype, owners: int | None, weighted: bool, unique: int, uses: int
) -> None:
    rows, inverse, offsets, weights = inputs(unique, uses, owners, weighted=weighted, dtype=dtype)
    out = expand(rows, inverse, offsets, weights)
    exact_rows = rows.detach().double().requires_grad_()
    exact = expand_reference(exact_rows, inverse, offsets, None if weights is None else weights.double())
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    (got,) = torch.autograd.grad(out, rows, upstream)
    (wanted,) = torch.autograd.grad(exact, exact_rows, upstream.double())
    tolerance = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    assert out.dtype == got.dtype == dtype
    torch.testing.assert_close(out.double(), exact, **tolerance)
    torch.testing.assert_close(got.double(), wanted, **tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("owners", [None, 9])
def test_gpu_equals_cpu(owners: int | None) -> None:
    rows, *use = inputs(500, 3000, owners, weighted=True)
    there = rows.detach().cuda().requires_grad_()
    out, out_there = expand(rows, *use), expand(there, *(None if t is None else t.cuda() for t in use))
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    out.backward(upstream)
    out_there.backward(upstream.cuda())
    torch.testing.assert_close(out_there.cpu(), out)
    assert rows.grad is not None and there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), rows.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("owners", [None, 4])
def test_gradcheck(owners: int | None) -> None:
    rows, inverse, offsets, weights = inputs(5, 12, owners, weighted=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: expand(r, inverse, offsets, weights), (rows,))


def test_empty_lists_and_weightless_lists_are_zero() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    out = expand(rows, torch.tensor([0, 1]), torch.tensor([0, 0, 2, 2]), torch.zeros(2))
    assert out.tolist() == [[0.0] * 3] * 3
    out.sum().backward()
    assert rows.grad is not None and not rows.grad.any()


def test_no_owner_and_no_row() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert expand(torch.empty(0, 3), none).shape == (0, 3)
    assert expand(torch.empty(0, 3), none, torch.tensor([0])).shape == (0, 3)
    assert expand(torch.empty(0, 3), none, torch.tensor([0, 0, 0])).tolist() == [[0.0] * 3] * 2


def test_one_row_everywhere_sums_all_uses() -> None:
    rows = torch.zeros(3, 2, requires_grad=True)
    expand(rows, torch.ones(1000, dtype=torch.int64)).sum().backward()
    assert rows.grad is not None and rows.grad.tolist() == [[0.0, 0.0], [1000.0, 1000.0], [0.0, 0.0]]


def test_reduce_of_16_bit_gradients_sums_in_float32() -> None:
    many = torch.ones(1000, 1, dtype=torch.bfloat16)  # bf16 sums of ones stop at 256
    assert reduce(many, torch.zeros(1000, dtype=torch.int64), 1).item() == 1000


def test_sum_does_not_depend_on_threads() -> None:
    gradients = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    inverse = torch.randint(3000, (20_000,), generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = reduce(gradients, inverse, 3000)
        torch.set_num_threads(3)
        assert all(torch.equal(one, reduce(gradients, inverse, 3000)) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


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
        ([0, 1], [0, 1], None, r"offsets must go up from 0 to 2 \(the number of uses\), got \[0, 1\]"),
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
        expand(
            torch.zeros(3, 2),
            torch.tensor(inverse),
            None if offsets is None else torch.tensor(offsets, dtype=torch.int64),
            None if weights is None else torch.tensor(weights),
        )


def test_wrong_types_are_named() -> None:
    with pytest.raises(ValueError, match="rows must be floating point"):
        expand(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([0]))
    with pytest.raises(ValueError, match="inverse_indices must be int64"):
        expand(torch.zeros(3, 2), torch.tensor([0], dtype=torch.int32))

"""The GPU kernels of unique pooling against torch: compiled where there is a GPU, else interpreted."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from kernels.unique_pooling import gather_bags, gather_sum, segment_sum
from kernels.unique_pooling.bags import Bags, transpose

ON_GPU = torch.cuda.is_available()
pytest.importorskip("triton", reason="triton is not installed: see requirements/dev.txt")
pytestmark = [pytest.mark.gpu] if ON_GPU else []

DEVICE = "cuda" if ON_GPU else "cpu"
WIDTHS = [1, 3, 64, 65]
DTYPES = [torch.float32, torch.bfloat16]


def bag_sum(rows: Tensor, bags: Bags) -> Tensor:
    """The kernel, with its inputs brought to the device and its result back."""
    from kernels.unique_pooling import triton

    there = [None if part is None else part.to(DEVICE) for part in bags]
    return triton.bag_sum(rows.to(DEVICE), Bags(*there)).cpu()  # type: ignore[arg-type]


def tokens(uses: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(uses, width, generator=torch.Generator().manual_seed(width)).to(dtype)


def skewed(uses: int, rows: int) -> Tensor:
    """Positions among the rows but the last; one row owns half of them, and thus whole chunks."""
    generator = torch.Generator().manual_seed(uses)
    inverse = torch.randint(rows - 1, (uses,), generator=generator)
    inverse[torch.rand(uses, generator=generator) < 0.5] = 1
    return inverse


def assert_close(got: Tensor, wanted: Tensor) -> None:
    tolerance = 2e-2 if got.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_expand(dtype: torch.dtype, width: int) -> None:
    rows = tokens(9, width, dtype)
    rows[-1] = torch.nan  # a row that nothing uses
    inverse = skewed(100, 9)
    assert torch.equal(bag_sum(rows, Bags(inverse)), rows[inverse])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_expand_sum(dtype: torch.dtype, width: int) -> None:
    rows = tokens(9, width, dtype)
    rows[-1] = torch.nan
    indices = skewed(3 * 70, 9).view(70, 3)
    assert_close(bag_sum(rows, Bags(indices)), rows.double()[indices].sum(dim=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_pool_of_lists(dtype: torch.dtype, width: int) -> None:
    rows = tokens(9, width, dtype)
    rows[-1] = torch.nan
    inverse, starts = skewed(60, 9), torch.tensor([0, 0, 1, 40, 40, 60])
    weights = torch.rand(60, generator=torch.Generator().manual_seed(1))
    share = torch.zeros(5, 60, dtype=torch.float64)
    for bag, (start, stop) in enumerate(pairwise(starts)):
        share[bag, start:stop] = weights[start:stop].double()
    assert_close(bag_sum(rows, Bags(inverse, starts, weights)), share @ rows[inverse].double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_reduce_by_sorted_segments(dtype: torch.dtype, width: int) -> None:
    inverse = skewed(1500, 9)
    gradients = tokens(1500, width, dtype) / 16
    wanted = torch.zeros(9, width, dtype=torch.float64).index_add_(0, inverse, gradients.double())
    got = bag_sum(gradients, transpose(Bags(inverse), 9))
    assert_close(got, wanted)
    assert not got[-1].any()


@pytest.mark.parametrize("uses", [1, 255, 256, 257, 1024])
def test_one_row_everywhere(uses: int) -> None:
    by_row = transpose(Bags(torch.ones(uses, dtype=torch.int64)), 3)
    got = bag_sum(torch.ones(uses, 2, dtype=torch.bfloat16), by_row)
    assert got.tolist() == [[0.0] * 2, [float(torch.tensor(float(uses)).bfloat16())] * 2, [0.0] * 2]


@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_public_functions_agree_with_the_cpu_and_can_repeat_themselves() -> None:
    inverse, rows = skewed(200_000, 5000), tokens(5000, 64, torch.float32)
    gradients = tokens(200_000, 64, torch.float32)
    there = inverse.cuda()
    assert torch.equal(gather_bags(rows.cuda(), there).cpu(), gather_bags(rows, inverse))
    assert_close(gather_sum([rows.cuda()] * 3, [there] * 3).cpu(), 3 * rows[inverse].double())
    wanted = segment_sum(gradients, inverse, 5000)
    torch.testing.assert_close(segment_sum(gradients.cuda(), there, 5000).cpu(), wanted, rtol=1e-4, atol=1e-3)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (segment_sum(gradients.cuda(), there, 5000) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first.cpu(), wanted, rtol=1e-4, atol=1e-3)

"""The plain path computes what the operators compute: gathers of single rows, lists, weighted lists, sums."""

from __future__ import annotations

import pytest
import torch

from kernels import plain
from kernels.unique_pooling import gather_bags, gather_sum
from kernels.unique_pooling.reference import gather_bags_reference, gather_sum_reference

ROWS = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
INDICES = torch.tensor([6, 0, 3, 3, 1, 2])
OFFSETS = torch.tensor([0, 2, 2, 5, 6])
WEIGHTS = {
    "ones": None,
    "some": torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0, 0.25], dtype=torch.float64),
    "negative": torch.tensor([-1.0, 2.0, 1.0, 0.0, -3.0, 0.25], dtype=torch.float64),
    "all zero in a bag": torch.tensor([0.0, 0.0, 1.0, 0.0, 3.0, 0.0], dtype=torch.float64),
}


def test_single_rows() -> None:
    got = plain.gather_bags(ROWS, INDICES, None, None)
    torch.testing.assert_close(got, gather_bags(ROWS, INDICES), rtol=0, atol=0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_lists(name: str) -> None:
    got = plain.gather_bags(ROWS, INDICES, OFFSETS, WEIGHTS[name])
    torch.testing.assert_close(got, gather_bags(ROWS, INDICES, OFFSETS, WEIGHTS[name]))
    torch.testing.assert_close(got, gather_bags_reference(ROWS, INDICES, OFFSETS, WEIGHTS[name]))


@pytest.mark.parametrize("columns", [1, 3])
def test_sums(columns: int) -> None:
    rows, indices = [ROWS + j for j in range(columns)], [INDICES.roll(j) for j in range(columns)]
    got = plain.gather_sum(rows, indices)
    torch.testing.assert_close(got, gather_sum(rows, indices))
    torch.testing.assert_close(got, gather_sum_reference(rows, indices))


def test_graphs_hold_operators_of_torch_alone() -> None:
    """While a graph is exported the operators stand aside, so that it loads without this package."""

    class Gather(torch.nn.Module):
        def forward(self, rows: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
            return (
                gather_bags(rows, indices, offsets).sum() + gather_sum([rows, rows], [indices, indices]).sum()
            )

    program = torch.export.export(Gather(), (ROWS, INDICES, OFFSETS))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("unique_pooling" in name for name in names), names
    torch.testing.assert_close(program.module()(ROWS, INDICES, OFFSETS), Gather()(ROWS, INDICES, OFFSETS))

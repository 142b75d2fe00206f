"""kernels.unique: positions lead back to the IDs, tables never mix, wrong IDs are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.unique import unique_ids

COLUMNS = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5)


@settings(deadline=None, max_examples=80)
@given(columns=COLUMNS, rows=st.sampled_from([None, 41, 10_000]))  # 10_000 rows: sorted rather than marked
def test_inverse_leads_back(columns: list[list[int]], rows: int | None) -> None:
    arrays = [np.array(column, dtype=np.int32) for column in columns]
    unique, inverse = unique_ids(arrays, rows=rows)
    assert unique.tolist() == sorted({value for column in columns for value in column})
    assert len(inverse) == len(columns)
    for column, positions in zip(columns, inverse, strict=True):
        assert positions.dtype == np.int64
        assert unique[positions].tolist() == column


def test_columns_may_be_tensors() -> None:
    unique, (first, second) = unique_ids([torch.tensor([3, 1]), np.array([1])])
    assert (unique.tolist(), first.tolist(), second.tolist()) == ([1, 3], [1, 0], [0])


@pytest.mark.parametrize("wrong", [[-1, 2], [5, 0]])
def test_ids_outside_the_table(wrong: list[int]) -> None:
    message = (
        rf"IDs must lie in \[0, 5\) \(the number of table rows\), got {min(wrong)} to {max(wrong)}; encode"
    )
    with pytest.raises(ValueError, match=message):
        unique_ids([np.array([1]), np.array(wrong)], rows=5)

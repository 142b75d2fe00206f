"""kernels.unique: positions lead back to the IDs, tables never mix, wrong IDs are named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.unique import cpu, unique_ids, unique_ids_on_device

COLUMNS = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=5)
# IDs next to each other are marked, IDs far apart stamped, IDs that no array can hold sorted.
APART = {"marked": 1, "stamped": 10_007, "sorted": 10**12}


@pytest.mark.parametrize("apart", APART.values(), ids=list(APART))
@given(columns=COLUMNS)
@example(columns=[[40] * 30, [], [40, 0]])
def test_inverse_leads_back(apart: int, columns: list[list[int]]) -> None:
    arrays = [np.array(column, dtype=np.int64) * apart for column in columns]
    unique, inverse = unique_ids(arrays)
    assert unique.dtype == np.int64
    assert unique.tolist() == sorted({value for column in arrays for value in column.tolist()})
    assert len(inverse) == len(columns)
    for column, positions in zip(arrays, inverse, strict=True):
        assert positions.dtype == np.int64
        assert unique[positions].tolist() == column.tolist()


@pytest.mark.parametrize("values", [[3, 1, 3], [70_000, 5], [-4, 2, -4], [1 << 60, 0]])
def test_every_way_gives_the_same(values: list[int]) -> None:
    column = np.array(values)
    wanted = np.unique(column, return_inverse=True)
    ways = [cpu._by_sorting(column)]
    if column.min() >= 0 and column.max() < cpu._MOST_ROWS:
        scratch = cpu._scratch(int(column.max()) + 1)
        ways += [cpu._by_marks(column, scratch, int(column.max()) + 1), cpu._by_stamps(column, scratch)]
    for way in [*ways, unique_ids([column])]:
        assert [np.asarray(part).reshape(-1).tolist() for part in way] == [part.tolist() for part in wanted]


@given(tables=st.lists(COLUMNS, min_size=2, max_size=4))
def test_tables_never_mix(tables: list[list[list[int]]]) -> None:
    """The scratch array kept between calls carries nothing from one table to the next."""
    for apart, columns in zip((10_007, 1, 9_973, 20_011), tables, strict=False):
        unique, inverse = unique_ids([np.array(column, dtype=np.int32) * apart for column in columns])
        back = [(unique[positions] // apart).tolist() for positions in inverse]
        assert back == columns
        assert len(unique) == len({value for column in columns for value in column})


def test_threads_do_not_share_the_scratch_array() -> None:
    batches = [np.random.default_rng(seed).integers(0, 500_000, 3000) for seed in range(40)]
    with ThreadPoolExecutor(4) as threads:
        for column, (unique, (inverse,)) in zip(
            batches, threads.map(lambda b: unique_ids([b], rows=500_000), batches), strict=True
        ):
            assert np.array_equal(unique[inverse], column)
            assert np.array_equal(unique, np.unique(column))


def test_columns_may_be_tensors() -> None:
    unique, (first, second) = unique_ids([torch.tensor([3, 1]), np.array([1])])
    assert (unique.tolist(), first.tolist(), second.tolist()) == ([1, 3], [1, 0], [0])


@given(columns=COLUMNS.filter(bool))
def test_on_a_device(columns: list[list[int]]) -> None:
    unique, inverse = unique_ids_on_device([torch.tensor(column, dtype=torch.int64) for column in columns])
    wanted, positions = unique_ids([np.array(column, dtype=np.int64) for column in columns])
    assert unique.tolist() == wanted.tolist()
    assert [part.tolist() for part in inverse] == [part.tolist() for part in positions]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    columns = [torch.randint(0, 5000, (3000,), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    unique, inverse = unique_ids_on_device([column.cuda() for column in columns])
    wanted, positions = unique_ids(columns)
    assert unique.tolist() == wanted.tolist()
    assert [part.tolist() for part in inverse] == [part.tolist() for part in positions]


def test_a_device_needs_a_column() -> None:
    with pytest.raises(ValueError, match=r"at least one column, got none; skip"):
        unique_ids_on_device([])


@pytest.mark.parametrize("wrong", [[-1, 2], [5, 0]])
def test_ids_outside_the_table(wrong: list[int]) -> None:
    message = (
        rf"IDs must lie in \[0, 5\) \(the number of table rows\), got {min(wrong)} to {max(wrong)}; encode"
    )
    with pytest.raises(ValueError, match=message):
        unique_ids([np.array([1]), np.array(wrong)], rows=5)

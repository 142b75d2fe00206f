"""More rows than memory: runs on disk give the same figures, and nothing stays behind."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ctr.metrics import MetricAccumulator, Summary
from ctr.metrics.external_sort import NamedColumns, Order, RowBuffer, SortedRuns
from ctr.metrics.records import Records, compress


def rows_of(n: int, levels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    user = rng.integers(0, 50, n)
    score = (1 + rng.integers(0, levels, n)) / (levels + 1)
    return {
        "label": (rng.random(n) < score).astype(np.int8),
        "score": score,
        "user": user,
        "request": user * 1000 + rng.integers(0, 20, n),
    }


def summarise(rows: dict[str, np.ndarray], chunk_rows: int, piece: int) -> Summary:
    with MetricAccumulator(draws=30, chunk_rows=chunk_rows) as accumulator:
        for start in range(0, len(rows["label"]), piece):
            accumulator.update(**{name: column[start : start + piece] for name, column in rows.items()})
        return accumulator.compute()


@pytest.mark.parametrize("levels", [1, 7, 10**6])
def test_spilled_rows_give_the_figures_of_memory(
    levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = rows_of(3000, levels)
    inside, spilled = summarise(rows, 10**6, 3000), summarise(rows, 128, 311)
    for name, metric in inside.metrics.items():
        other = spilled.metrics[name]
        assert (other.reason, other.n, other.groups) == (metric.reason, metric.n, metric.groups)
        for end in ("value", "low", "high"):
            assert getattr(other, end) == pytest.approx(getattr(metric, end), abs=1e-10), (name, end)
    np.testing.assert_array_equal(spilled.curves.tpr, inside.curves.tpr)
    np.testing.assert_allclose(spilled.curves.bin_label, inside.curves.bin_label, rtol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError), MetricAccumulator(chunk_rows=10) as accumulator:
        accumulator.update(np.zeros(50), np.full(50, 0.5))
        assert list(tmp_path.iterdir())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def parts_of(columns: NamedColumns, each: int) -> list[NamedColumns]:
    rows = len(columns["key"])
    return [{n: c[k : k + each] for n, c in columns.items()} for k in range(0, rows, each)]


def test_chunks_ascend_whole_and_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"key": rng.integers(0, 10**6, 5000), "value": rng.random(5000)}
    runs, chunk = SortedRuns(tmp_path, "rows", Order(key="key")), 200
    for part in parts_of(columns, 250):
        runs.add(part)
    chunks = list(runs.chunks(chunk))
    assert max(len(rows["key"]) for rows in chunks) <= 2 * chunk
    assert all(a["key"].max() < b["key"].min() for a, b in pairwise(chunks))
    found = {name: np.concatenate([rows[name] for rows in chunks]) for name in columns}
    order, expected = (
        np.lexsort((found["value"], found["key"])),
        np.lexsort((columns["value"], columns["key"])),
    )
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name][order], column[expected])


def test_a_buffer_gives_every_row_in_every_order_from_memory_and_disk() -> None:
    rng = np.random.default_rng(1)
    columns = {"key": rng.integers(0, 50, 1000), "other": rng.permutation(1000)}
    for limit in (0, 100, 999, 1000):
        orders = {name: Order(key=name) for name in columns}
        with RowBuffer(orders, limit=limit, prefix="ctr-test-") as buffer:
            for part in parts_of(columns, 130):
                buffer.add(part)
            assert buffer.on_disk == (limit < 1000)
            for name in columns:
                chunks = list(buffer.chunks(name, 100))
                assert (len(chunks) == 1) == (limit == 1000)
                pairs = np.concatenate([rows["key"] * 1000 + rows["other"] for rows in chunks])
                assert set(pairs) == set(columns["key"] * 1000 + columns["other"]) and len(pairs) == 1000


def test_equal_rows_become_one_record() -> None:
    same = np.zeros(10**5, dtype=np.int64)
    records = compress(Records(same + 0.25, same, same, same + 1, same))
    assert [column.tolist() for column in records] == [[0.25], [0], [0], [10**5], [0]]

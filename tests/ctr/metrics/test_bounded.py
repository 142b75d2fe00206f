"""More rows than memory: runs on disk give the same figures, and nothing stays behind."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ctr.metrics import MetricAccumulator, Summary
from ctr.metrics.records import Records, SortedRuns, compress


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


def test_chunks_are_sorted_whole_and_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs, chunk = SortedRuns(tmp_path, "score"), 200
    major, minor = rng.integers(0, 10**6, 5000), rng.random(5000)
    ones = np.ones(5000, dtype=np.int64)
    for start in range(0, 5000, 250):
        part = slice(start, start + 250)
        runs.add(Records(major[part], minor[part], 0 * ones[part], ones[part], 0 * ones[part]))
    chunks = list(runs.chunks(chunk))
    assert max(len(records.major) for records in chunks) <= 2 * chunk
    np.testing.assert_array_equal(np.concatenate([records.major for records in chunks]), np.sort(major))
    assert all(a.major[-1] < b.major[0] for a, b in pairwise(chunks))


def test_equal_rows_become_one_record() -> None:
    same = np.zeros(10**5, dtype=np.int64)
    records = compress(Records(same + 0.25, same, same, same + 1, same))
    assert [column.tolist() for column in records] == [[0.25], [0], [0], [10**5], [0]]

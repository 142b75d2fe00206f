from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest

from features.dataset import read_arrow
from features.store.write import BATCH_ROWS, hash_files, new_dataset, write_arrow, write_json


@pytest.mark.parametrize(("rows", "batches"), [(0, 1), (1, 1), (BATCH_ROWS + 1, 2)])
def test_record_batches(tmp_path: Path, rows: int, batches: int) -> None:
    """Small batches for reading in windows; one for an event store; lists start anew in each."""
    lists = pa.LargeListArray.from_arrays(
        pa.array(np.arange(rows + 1)), pa.array(np.arange(rows, dtype=np.int32))
    )
    table = pa.table({"x": np.arange(rows), "id.list": lists})
    for name, size, count in (("many", BATCH_ROWS, batches), ("one", None, 1)):
        write_arrow(tmp_path / name, table, batch_rows=size)
        assert ipc.open_file(tmp_path / name).num_record_batches == count
        assert read_arrow(tmp_path / name).equals(table)


def test_slices_are_written_like_copies(tmp_path: Path) -> None:
    """A part of a larger array leaves nothing of the rest in the file."""
    lists = pa.LargeListArray.from_arrays(pa.array([0, 1, 3, 4]), pa.array([1, 2, 3, 4], type=pa.int32()))
    write_arrow(tmp_path / "slice", pa.table({"a": lists.slice(1, 1)}))
    copy = pa.LargeListArray.from_arrays(pa.array([0, 2]), pa.array([2, 3], type=pa.int32()))
    write_arrow(tmp_path / "copy", pa.table({"a": copy}))
    assert (tmp_path / "slice").read_bytes() == (tmp_path / "copy").read_bytes()


def test_a_new_directory_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "dataset"
    with new_dataset(out, overwrite=False) as root:
        write_json(root / "a" / "b.json", {"x": 1})
        assert not out.exists() and root.parent == out.parent
        assert list(hash_files(root)) == ["a/b.json"]
    assert (out / "a" / "b.json").is_file() and [p.name for p in out.parent.iterdir()] == ["dataset"]


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    with new_dataset(tmp_path, overwrite=False) as root:
        (root / "x").touch()
    assert (tmp_path / "x").exists()


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"x": float("nan")})

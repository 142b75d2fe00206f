from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.build import open_dataset, training_loader
from ctr.config import dump_config
from ctr.errors import CtrError
from ctr.loader.teacher import read_teacher
from ctr.predictions import SplitRows
from features.dataset import Dataset
from features.errors import DataError
from tests.ctr.tiny_run import tiny_config, tiny_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("teacher"))


def places(rows: int) -> pa.Table:
    """Where rows stood in the log: the last one first."""
    files = pa.array([f"part-{k % 2}" for k in range(rows)]).dictionary_encode()
    return pa.table({"log_row": np.arange(rows)[::-1], "log_file": files})


def table_of(root: Path) -> pa.Table:
    """What `ctr predict --split train` writes, with places, and logits that tell the row."""
    rows = SplitRows(Dataset(root), "train")
    table = pa.table(rows.columns(0, rows.rows))
    for name, column in zip(("log_row", "log_file"), places(rows.rows).columns, strict=True):
        table = table.append_column(name, column)
    return table.append_column("logit", pa.array(table["row_id"].to_numpy() / 8, pa.float32()))


def settings(file: Path, **options: Any) -> list[str]:
    found = {"predictions": str(file), **options}
    return [f"train.distill.{name}={value}" for name, value in found.items()]


@pytest.mark.parametrize("known", ["places", "codes"])
def test_rows_are_found_by_place_or_by_all_codes(
    known: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, with further rows beside them; of two teachers the mean."""
    table, order = table_of(root), np.random.default_rng(0).permutation(table_of(root).num_rows)
    dataset, other = Dataset(root), table
    if known == "places":  # another data set of the log: its codes are its own
        monkeypatch.setattr(dataset, "origin", lambda: places(table.num_rows))
        other = table.set_column(0, "row_id", pa.array(order)).set_column(
            table.column_names.index("user_id"), "user_id", pa.array(order)
        )
    further = table.slice(0, 1).to_pylist()[0] | {"row_id": 9999, "log_row": 9999}
    shuffled = pa.concat_tables(
        [other.take(pa.array(order)), pa.Table.from_pylist([further], schema=table.schema)]
    )
    pq.write_table(shuffled, tmp_path / "a.parquet")
    config = tiny_config(root, tmp_path / "run", *settings(tmp_path / "a.parquet"))
    teacher = read_teacher(config, dataset)
    assert teacher is not None and np.array_equal(teacher.logits, np.arange(table.num_rows) / 8)
    column = table.column_names.index("logit")
    double = shuffled.set_column(column, "logit", pa.array(shuffled["logit"].to_numpy() * 3, pa.float32()))
    pq.write_table(double, tmp_path / "b.parquet")
    names = f"[{tmp_path / 'a.parquet'}, {tmp_path / 'b.parquet'}]"
    both = read_teacher(tiny_config(root, tmp_path / "run", f"train.distill.predictions={names}"), dataset)
    assert both is not None and np.array_equal(both.logits, 2 * teacher.logits)
    assert both.digest != teacher.digest and "0.5 of the loss" in both.lines[0]


def test_every_candidate_of_every_batch_has_its_own_logit(root: Path, tmp_path: Path) -> None:
    pq.write_table(table_of(root), tmp_path / "t.parquet")
    config = tiny_config(
        root,
        tmp_path / "run",
        *settings(tmp_path / "t.parquet"),
        "train.negatives=0.5",
        "loader.micro_batches=2",
    )
    batches = list(training_loader(config, open_dataset(config)).iterate(1))
    assert 0 < sum(batch.num_rows for batch in batches) < table_of(root).num_rows
    for batch in (part for whole in batches for part in (whole, *whole.parts)):
        teacher = next(iter(batch.targets.values())).teacher
        assert teacher is not None and np.array_equal(teacher.numpy(), batch.row_id.numpy() / 8)
    off = tiny_config(root, tmp_path / "run", *settings(tmp_path / "absent.parquet", weight=0.0))
    first = next(training_loader(off, open_dataset(off)).iterate(0))
    assert next(iter(first.targets.values())).teacher is None


KINDS: dict[str, list[pa.DataType]] = {
    "logit": [pa.string(), pa.bool_(), pa.null(), pa.list_(pa.float32()), pa.decimal128(20, 3)],
    "time": [pa.float64(), pa.string(), pa.timestamp("s")],
    "label": [pa.string(), pa.null()],
    "row_id": [pa.float32(), pa.string()],
    "user_id": [pa.large_string()],
}


@pytest.mark.parametrize(
    ("column", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds]
)
def test_a_column_of_another_kind_is_refused_by_file_and_name(
    column: str, kind: pa.DataType, root: Path, tmp_path: Path
) -> None:
    table, file = table_of(root), tmp_path / "t.parquet"
    at = table.column_names.index(column)
    empty = pa.types.is_nested(kind) or pa.types.is_null(kind)
    changed = pa.nulls(table.num_rows, kind) if empty else table[column].cast(kind)
    pq.write_table(table.set_column(at, column, changed), file)
    with pytest.raises(DataError, match=rf"t\.parquet must have .* in column {column}, got "):
        read_teacher(tiny_config(root, tmp_path / "run", *settings(file)), Dataset(root))


def test_whole_numbers_of_any_width_are_the_same_rows(root: Path, tmp_path: Path) -> None:
    table, file = table_of(root), tmp_path / "t.parquet"
    config, dataset = tiny_config(root, tmp_path / "run", *settings(file)), Dataset(root)
    found = []
    for kind in (pa.int64(), pa.int32(), pa.uint64()):
        for name in ("row_id", "time", "user_id", "label"):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
        pq.write_table(table, file)
        found.append(read_teacher(config, dataset))
    assert len({teacher.digest for teacher in found if teacher is not None}) == 1


def test_what_is_not_a_teacher_of_these_rows_is_refused(root: Path, tmp_path: Path) -> None:
    table, file = table_of(root), tmp_path / "t.parquet"
    rows = table.num_rows
    label, logit = (table.column_names.index(name) for name in ("label", "logit"))
    nan = np.where(np.arange(rows) == 7, np.nan, 0.0).astype(np.float32)
    wrong = {
        f"finite float32 logit of each .* 1 of {rows} rows lack, first row_id 3": pa.concat_tables(
            [table.slice(0, 3), table.slice(4)]
        ),
        "1 rows are repeated": pa.concat_tables([table, table.slice(5, 1)]),
        "first row_id 7": table.set_column(logit, "logit", pa.array(nan)),
        f"finite float32 logit .* {rows} of {rows} rows lack": table.set_column(
            logit, "logit", pa.array([1e300] * rows)
        ),
        "one column of a name, logit is there twice": table.append_column("logit", table["logit"]),
        "have the labels of the data set": table.set_column(
            label, "label", pa.array(1 - table["label"].to_numpy())
        ),
        "must have the columns": table.drop_columns("logit"),
    }
    dataset, config = Dataset(root), tiny_config(root, tmp_path / "run", *settings(file))
    for said, bad in wrong.items():
        pq.write_table(bad, file)
        with pytest.raises(CtrError, match=said):
            read_teacher(config, dataset)
    pq.write_table(table, file)
    run = tmp_path / "final"
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(tiny_config(root, run, "train.data=train+valid")))
    refused = {
        "there is no .*absent": settings(tmp_path / "absent.parquet"),
        "got .*final with train.data: train.valid": settings(run),
        "train.data must be train": [*settings(file), "train.data=train+valid"],
        "learns joint chances": [*settings(file), "tasks.kind=esmm"],
    }
    for said, options in refused.items():
        with pytest.raises(CtrError, match=said):
            read_teacher(tiny_config(root, tmp_path / "run", *options), dataset)

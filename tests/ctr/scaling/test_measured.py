"""Points from tables: the same from every format, and a word for every wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from ctr.scaling.measured import read_points
from features.errors import DataError

TABLE = pa.table(
    {"x": [4, 1, 1, 2], "y": [0.4, 0.1, 0.2, 0.3], "seed": [1, 1, 2, 1], "flops": [40.0, 10.0, 30.0, 25.0]}
)


def test_every_format_says_the_same(tmp_path: Path) -> None:
    pa_csv.write_csv(TABLE, tmp_path / "t.csv")
    pq.write_table(TABLE, tmp_path / "t.parquet")
    (tmp_path / "t.json").write_text(json.dumps(TABLE.to_pylist()))
    found = [read_points(tmp_path / f"t.{kind}", metric="auc") for kind in ("csv", "parquet", "json")]
    assert found[0] == found[1] == found[2]
    assert [(p.x, list(p.values["auc"]), p.flops) for p in found[0]] == [
        (1.0, [0.1, 0.2], 20.0), (2.0, [0.3], 25.0), (4.0, [0.4], 40.0)
    ]  # fmt: skip
    assert found[0][0].parameters is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,y\n1,2\n", "no x"),
        ("x,y\n0,2\n", "must be positive"),
        ("x,y\n1,2\n1,high\n", "row 2: y must be a finite number, got 'high'"),
        ("x,y\n1,nan\n", "finite"),
        ("x,y,seed\n1,2,1\n1,3,1\n", "seeds of a point must differ"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=word):
        read_points(tmp_path / "t.csv", metric="auc")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content in (("t.json", '{"x": 1}'), ("u.json", "["), ("t.parquet", "no"), ("t.txt", "x,y")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=name):
            read_points(tmp_path / name, metric="auc")
    with pytest.raises(DataError, match="check the path"):
        read_points(tmp_path / "absent.csv", metric="auc")

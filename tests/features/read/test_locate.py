"""Which rows a message is about: the lines of the table, and files that cannot be taken for each other."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features.errors import DataError
from features.read.locate import locate
from tests.features.small_log import RATINGS_SPEC, changed, rating_tables, run


def test_files_of_one_name_are_told_with_as_many_folders_as_they_need() -> None:
    files = ["log/a/x/p.tsv", "log/b/x/p.tsv", "log/b/x/q.tsv"]
    frame = pl.DataFrame({"__row": [0, 1, 2], "__file": files, "__line": [1, 1, 2]})
    every = pl.Series([True, True, True])
    assert locate(frame, every) == "3 rows (line 1 of a/x/p.tsv, line 1 of b/x/p.tsv, line 2 of q.tsv)"
    assert locate(frame.drop("__line"), every) == "3 rows (rows 0, 1, 2 in a/x/p.tsv, b/x/p.tsv, q.tsv)"


def test_rows_that_were_made_of_one_line_are_one() -> None:
    frame = pl.DataFrame({"__row": [4, 4, 5], "__file": ["a.csv"] * 3, "__line": [6, 6, None]})
    assert locate(frame, pl.Series([True, True, False])) == "1 rows (line 6 of a.csv)"
    assert locate(frame, pl.Series([True, True, True])) == "2 rows (rows 4, 5 in a.csv)"
    lines = pl.DataFrame({"__file": ["a.csv", "b.parquet", "b.parquet"], "__line": [6, None, None]})
    assert locate(lines, pl.Series([True, True, True])) == "3 rows (in a.csv, b.parquet)"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_contradicting_rows_of_an_entity_are_told_with_their_places(tmp_path: Path, form: str) -> None:
    tables = rating_tables()
    users = tables["users"]
    again = users.filter(pl.col("user_id") == 3).with_columns(pl.lit("x").alias("sex"))
    (tmp_path / "raw").mkdir()
    both = pl.concat([users, again])
    both.write_csv(tmp_path / "raw" / "people.csv")
    both.write_parquet(tmp_path / "raw" / "people.parquet")
    spec = changed(RATINGS_SPEC, source__tables__users={"path": f"people.{form}", "format": form})
    place = r"line 4 of people.csv, line 14 of people.csv" if form == "csv" else r"in people.parquet"
    with pytest.raises(
        DataError, match=rf"have several: \['?3'?\], in 2 rows \({place}\); keep one row each"
    ):
        run(tmp_path, spec, tables)

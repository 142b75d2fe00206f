from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.dataset import SPLITS, Dataset
from features.errors import ConfigError, DataError
from features.prepare import check, prepare
from features.spec import parse_spec

LINES = [  # impression, user, time, shown
    ("1", "U1", "11/11/2019 9:05:58 AM", "N5-0 N6-1"),
    ("2", "U2", "11/12/2019 10:22:32 AM", " N5-1  N-7-0 N8-0 "),
    ("3", "U1", "11/12/2019 11:22:32 PM", "N9-0 N5-1"),
    ("4", "U3", "11/13/2019 1:22:32 AM", "N9-1"),
    ("5", "U2", "11/14/2019 6:00:00 AM", "N9-0 N6-0"),
    ("6", "U2", "11/14/2019 6:00:00 AM", "N6-1 N9-0"),  # another line of the same user and time
]
# time in file order, then what stands in each line: item and label, in its order
SHOWN = [
    [("N5", 0), ("N6", 1)],
    [("N5", 1), ("N-7", 0), ("N8", 0)],
    [("N9", 0), ("N5", 1)],
    [("N9", 1)],
    [("N9", 0), ("N6", 0)],
    [("N6", 1), ("N9", 0)],
]
COLUMNS = ["impression", "user", "time", "shown"]
SPEC: dict[str, Any] = {
    "name": "packed",
    "source": {"tables": {"behaviors": {
        "path": "behaviors.tsv", "format": "csv", "separator": "\t", "header": False, "columns": COLUMNS,
        "time_format": "%m/%d/%Y %I:%M:%S %p",
    }}},
    "impressions": {
        "table": "behaviors", "user": "user", "item": "news", "time": "time", "position": "slot",
        "label": {"column": "clicked"},
        "explode": {"column": "shown", "separator": " ", "label_separator": "-"},
    },
    "tables": {"news": {}, "slot": {}},
    "features": {"news": {"column": "news", "table": "news"}, "slot": {"column": "slot", "table": "slot"}},
    "tokens": {"news": ["news", "slot"]},
    "split": {"valid": 0, "test": 0},
}  # fmt: skip


def write_lines(folder: Path, lines: list[tuple[str, ...]]) -> None:
    (folder / "behaviors.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))


def changed(**impressions: Any) -> dict[str, Any]:
    return SPEC | {"impressions": SPEC["impressions"] | impressions}


def prepared(folder: Path, spec: dict[str, Any]) -> Dataset:
    check(parse_spec(spec), base=folder)
    prepare(parse_spec(spec), folder / "out", base=folder, overwrite=True)
    return Dataset(folder / "out")


def requests_of(data: Dataset) -> list[list[tuple[Any, int]]]:
    """The items and labels of every request, in order."""
    keys, found = data.keys("items"), []
    assert keys is not None
    for name in SPLITS:
        split = data.split(name)
        items, labels = (split.impressions[c].to_pylist() for c in ("item_id", "label"))
        rows = [(keys[i].as_py(), label) for i, label in zip(items, labels, strict=True)]
        offsets = split.row_offsets.tolist()
        found += [rows[a:b] for a, b in pairwise(offsets)]
    return found


def test_a_line_is_one_request_with_its_items_in_order(tmp_path: Path) -> None:
    """Two lines of one user and one time stay two requests."""
    write_lines(tmp_path, LINES)
    data = prepared(tmp_path, SPEC)
    assert requests_of(data) == SHOWN
    assert data.manifest.counters["impressions.lines"] == len(LINES)
    origin = data.origin()
    assert origin is not None
    assert origin["log_line"].to_pylist() == [1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6]


def test_lists_and_what_was_clicked_of_them(tmp_path: Path) -> None:
    rows = {
        "user": [1, 2, 1],
        "time": [1_600_000_000, 1_600_000_100, 1_600_000_200],
        "shown": [[5, 6], [7, 5, 8], []],
        "clicks": [[6], [], []],
    }
    frame = pl.DataFrame(rows, schema_overrides={"shown": pl.List(pl.Int32), "clicks": pl.List(pl.Int32)})
    frame.write_parquet(tmp_path / "log.parquet")
    spec = changed(explode={"column": "shown", "clicked": "clicks"}, position=None)
    spec |= {"source": {"tables": {"behaviors": {"path": "log.parquet"}}}}
    spec |= {"features": {"news": SPEC["features"]["news"]}, "tokens": {"news": ["news"]}}
    data = prepared(tmp_path, spec)
    assert requests_of(data) == [[(5, 0), (6, 1)], [(7, 0), (5, 0), (8, 0)]]
    assert data.manifest.counters["impressions.lines_without_items"] == 1


def test_texts_with_the_clicked_ones_in_a_column_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty field means that nothing was clicked; a click on what was not shown is told."""
    text = "user;time;shown;clicks\nu;2020-01-01;a, b;b\nu;2020-01-02;a, c;\nv;2020-01-03;c;d, c, c\n"
    (tmp_path / "log.csv").write_text(text)
    spec = changed(explode={"column": "shown", "clicked": "clicks", "separator": ","})
    spec |= {"source": {"tables": {"behaviors": {"path": "log.csv", "format": "csv", "separator": ";"}}}}
    data = prepared(tmp_path, spec)
    assert requests_of(data) == [[("a", 0), ("b", 1)], [("a", 0), ("c", 0)], [("c", 1)]]
    assert data.manifest.counters["impressions.clicked_but_not_shown"] == 1
    assert "1 clicked items are not among those shown" in caplog.text


CSV = {"path": "log.csv", "format": "csv", "separator": ";"}
PARQUET = {"path": "log.parquet"}
NULLS = {"nulls": [r"\N"]}


@pytest.mark.parametrize(
    ("table", "split", "none", "unknown"),
    [
        (PARQUET, {}, [], None),
        (PARQUET, {"separator": " "}, "", None),
        (PARQUET | NULLS, {"separator": " "}, "", r"\N"),
        (PARQUET, {"format": "json"}, "[]", None),
        (PARQUET, {"format": "json"}, "[]", "null"),
        (CSV | NULLS, {"separator": " "}, None, r"\N"),
        (CSV | NULLS, {"format": "json"}, "[]", r"\N"),
        (CSV, {"separator": " "}, "", None),
        (CSV, {"format": "json"}, "[]", "null"),
    ],
)
def test_clicks_that_nobody_knows_are_no_absence_of_clicks(
    tmp_path: Path, table: dict[str, Any], split: dict[str, Any], none: Any, unknown: Any
) -> None:
    """A missing label is an error; an empty list, or an empty field of a text file, is no click."""
    shown: Any = {"separator": "a b", "format": '["a", "b"]'}.get(next(iter(split), ""), ["a", "b"])
    spec = changed(explode={"column": "shown", "clicked": "clicks", **split})
    spec |= {"source": {"tables": {"behaviors": table}}}

    def labels(cell: Any) -> list[int]:
        frame = pl.DataFrame({"user": ["u"] * 3, "time": [f"2020-01-0{day}" for day in (1, 2, 3)]})
        clicks = [["b"] if shown == ["a", "b"] else "b" if shown == "a b" else '["b"]', cell, cell]
        frame = frame.with_columns(shown=pl.Series([shown] * 3), clicks=pl.Series(clicks))
        path = tmp_path / table["path"]
        frame.write_parquet(path) if table["path"].endswith("t") else frame.write_csv(path, separator=";")
        return [label for request in requests_of(prepared(tmp_path, spec)) for _, label in request]

    if none is not None:
        assert labels(none) == [0, 1, 0, 0, 0, 0]
    if table is CSV and unknown is None:  # the empty field: nothing else is missing there
        assert labels(unknown) == [0, 1, 0, 0, 0, 0]
        return
    with pytest.raises(DataError, match=r"log\..*column 'clicks' must hold a list .*(line 3|[12] rows)"):
        labels(unknown)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("N1-0 N2", r"read like ITEM-LABEL, but 1 rows \(line 7 of behaviors.tsv\) hold \['N2'\]"),
        ("N1-0 -1", r"read like ITEM-LABEL, but 1 rows \(line 7 of behaviors.tsv\) hold \['-1'\]"),
        ("N1-0 N2-", r"read like ITEM-LABEL, but 1 rows \(line 7 of behaviors.tsv\) hold \['N2-'\]"),
        ("N1-0 N2-yes", r"end with 0 or 1.*\(line 7 of behaviors.tsv\) hold \['N2-yes'\]"),
        ("N1-0 N2-7", r"must be 0 or 1, but 1 rows \(line 7 of behaviors.tsv\)"),
        ("", r"hold the items shown in every line, but 1 rows \(line 7 of behaviors.tsv\)"),
        ("N1-0 N1-1", "a request shows an item to a user once"),  # one item twice in one request
    ],
)
def test_malformed_cells_are_refused_by_line_and_value(tmp_path: Path, cell: str, told: str) -> None:
    write_lines(tmp_path, [*LINES, ("7", "U1", "11/15/2019 8:55:22 AM", cell)])
    with pytest.raises(DataError, match=told):
        prepared(tmp_path, SPEC)


def test_one_wrong_time_is_one_line_whatever_its_line_shows(tmp_path: Path) -> None:
    """Three items of one line, and two files of one name."""
    spec = SPEC | {"source": {"tables": {"behaviors": dict(SPEC["source"]["tables"]["behaviors"])}}}
    spec["source"]["tables"]["behaviors"]["path"] = "*/behaviors.tsv"
    for folder, shown in (("train", "N1-0 N2-1 N3-0"), ("dev", "N1-1")):
        (tmp_path / folder).mkdir()
        wrong = ("7", "U1", "11/45/2019 8:55:22 AM", shown)
        write_lines(tmp_path / folder, [*LINES, wrong] if folder == "train" else LINES)
    with pytest.raises(DataError, match=r" 1 rows \(line 7 of train/behaviors.tsv\)"):
        prepared(tmp_path, spec)


def test_labels_by_a_rule(tmp_path: Path) -> None:
    lines = [(*line[:3], line[3].replace("-0", "-view").replace("-1", "-click")) for line in LINES]
    write_lines(tmp_path, lines)
    data = prepared(tmp_path, changed(label={"column": "clicked", "equals": "click"}))
    assert requests_of(data) == SHOWN


def test_the_packed_column_is_no_feature(tmp_path: Path) -> None:
    """It holds the labels."""
    write_lines(tmp_path, LINES)
    feature = {"column": "shown", "table": "news", "separator": " "}
    with pytest.raises(ConfigError, match="'shown', one of the columns that rows and labels are made of"):
        prepared(tmp_path, SPEC | {"features": SPEC["features"] | {"news": feature}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": "news"}, r"\['news'\] are columns of the whole line; give what is made other names"),
        ({"context": ["slot"]}, r"\['slot'\] are columns of the whole line"),
        ({"label": {"column": "shown"}}, r"\['shown'\] are columns of the whole line"),
        ({"position": "news"}, r"need names of their own, got \['news', 'clicked', 'news'\]"),
        ({"position": "impression"}, r"\['impression'\] are columns of table 'behaviors' itself"),
    ],
)
def test_the_made_columns_are_new(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Which the types of the tables tell: the dry run finds it as well."""
    write_lines(tmp_path, LINES)
    spec = changed(**change)
    if "position" in change or "context" in change:
        spec["features"] = {"news": spec["features"]["news"]}
        spec["tokens"] = {"news": ["news"]}
    with pytest.raises(ConfigError, match=message):
        check(parse_spec(spec), base=tmp_path)
    with pytest.raises(ConfigError, match=message):
        prepare(parse_spec(spec), tmp_path / "out", base=tmp_path)


@pytest.mark.parametrize(
    ("explode", "told"),
    [
        ({"column": "shown", "separator": " "}, "label_separator or from clicked"),
        ({"column": "shown", "clicked": "c", "label_separator": "-"}, "label_separator or from clicked"),
        ({"column": "shown", "clicked": "c", "separator": " ", "format": "json"}, "give one"),
    ],
)
def test_half_a_rule_is_refused(explode: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_spec(changed(explode=explode))

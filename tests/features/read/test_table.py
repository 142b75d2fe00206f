"""Tables of several files: what differs between them is widened without loss, or refused where it is read."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ConfigError, DataError
from features.read.roles import Role, TableRoles
from features.read.scan import collect, open_files
from features.source import RawTable, Source

BIG = 2**53
DAY = datetime(2024, 3, 1)


def read(root: Path, roles: dict[str, set[Role]], **table: Any) -> pl.DataFrame:
    raw = RawTable(**{"path": "*.parquet", **table})
    found = open_files(
        Source(tables={"t": raw}),
        base=root,
        needed={"t": dict.fromkeys(roles, "the test")},
        roles={"t": TableRoles(roles)},
    )
    return collect(found["t"].select(list(roles)), what="table 't'")


def both(root: Path, one: pl.Series, other: pl.Series, role: Role | None, **table: Any) -> pl.Series:
    for name, values in (("1", one), ("2", other)):
        pl.DataFrame({"x": values}).write_parquet(root / f"{name}.parquet")
    return read(root, {"x": {role} if role else set()}, **table)["x"]


@pytest.mark.parametrize(
    ("one", "other", "role", "values"),
    [
        (pl.Series([1], dtype=pl.Int32), pl.Series([2]), "time", [1, 2]),
        (pl.Series([None]), pl.Series(["a"]), "category", [None, "a"]),
        (pl.Series([[]]), pl.Series([["a"]]), "category", [[], ["a"]]),
        (pl.Series([1], dtype=pl.UInt8), pl.Series([-1], dtype=pl.Int8), "category", [1, -1]),
        (pl.Series([2**64 - 1], dtype=pl.UInt64), pl.Series([-1]), "category", [2**64 - 1, -1]),
        (pl.Series([BIG + 1]), pl.Series([2.0, None, float("nan")]), "category", [BIG + 1, 2, None, None]),
        (pl.Series([BIG + 1]), pl.Series([Decimal("2.0")]), "category", [BIG + 1, 2]),
        (pl.Series([1]), pl.Series([1.5]), "number", [1.0, 1.5]),
        (pl.Series([1]), pl.Series([True]), "flag", [1.0, 1.0]),
        (pl.Series(["a"]), pl.Series(["b"], dtype=pl.Categorical), "category", ["a", "b"]),
        (pl.Series(["a"]), pl.Series([b"b"]), "category", ["a", "b"]),
        (pl.Series([DAY]), pl.Series([DAY], dtype=pl.Datetime("ns")), "time", [DAY, DAY]),
        (pl.Series([DAY.date()]), pl.Series([DAY]), "category", [DAY, DAY]),
        (pl.Series([[1.5]]), pl.Series([[1.0]], dtype=pl.Array(pl.Float64, 1)), "number", [[1.5], [1.0]]),
    ],
)
def test_types_are_widened_without_loss(
    tmp_path: Path, one: pl.Series, other: pl.Series, role: Role, values: list[object]
) -> None:
    assert both(tmp_path, one, other, role).to_list() == values
    assert set(map(str, both(tmp_path, other, one, role).to_list())) == set(map(str, values))


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("one", "other", "role", "message"),
    [
        (pl.Series([BIG]), pl.Series([float(BIG)]), "category", "2.parquet: column 'x': an ID of 9,007,199,"),
        (pl.Series([1]), pl.Series([0.5]), "order", "2.parquet: column 'x': an ID must be a whole number"),
        (pl.Series([1]), pl.Series(["1"]), "category", "is Int64 in .*1.parquet and String in .*2.parquet"),
        (pl.Series([True]), pl.Series([1]), "category", "is Boolean in"),
        (pl.Series([DAY]), pl.Series([1]), "time", "is Datetime"),
        (pl.Series([["a"]]), pl.Series(["a"]), "category", "is List"),
        (
            pl.Series([DAY.date()]),
            pl.Series([DAY]),
            "time",
            "an event of a day may lie anywhere in it.*tick: 1d",
        ),
        (pl.Series([DAY]), pl.Series([DAY.replace(tzinfo=UTC)]), "time", "set time_zone in the table"),
    ],
)
def test_what_would_lose_is_refused(
    tmp_path: Path, one: pl.Series, other: pl.Series, role: Role, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        both(tmp_path, one, other, role)


def test_naive_and_utc_meet_by_declaration(tmp_path: Path) -> None:
    naive, utc = pl.Series([DAY]), pl.Series([DAY.replace(tzinfo=UTC)])
    assert both(tmp_path, naive, utc, "time", time_zone="UTC").to_list() == [DAY.replace(tzinfo=UTC)] * 2
    berlin = both(tmp_path, naive, utc, "time", time_zone="Europe/Berlin")
    assert [m.hour for m in berlin.dt.convert_time_zone("UTC")] == [23, 0]


def test_days_and_moments_meet_by_declaration(tmp_path: Path) -> None:
    days, moments = pl.Series([DAY.date()]), pl.Series([DAY])
    assert both(tmp_path, days, moments, "time", types={"x": "time"}).to_list() == [DAY, DAY]


def test_numbers_and_texts_meet_by_declaration(tmp_path: Path) -> None:
    numbers, texts = pl.Series([7]), pl.Series(["7", "x"])
    assert both(tmp_path, numbers, texts, "category", types={"x": "text"}).to_list() == ["7", "7", "x"]
    with pytest.raises(DataError, match="must hold a whole number of 64 bits in every row, but 1 rows hold"):
        both(tmp_path, numbers, texts, "category", types={"x": "int"})


def test_columns_that_nobody_reads_may_differ(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1], "note": ["a"], "more": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"note": [[1.5]], "x": [2]}).write_parquet(tmp_path / "2.parquet")
    assert read(tmp_path, {"x": set()})["x"].to_list() == [1, 2]


def test_texts_of_parquet_are_converted_by_role(tmp_path: Path) -> None:
    frame = pl.DataFrame({"price": ["1", "NULL", "nan"], "user": ["007", "7", "NULL"]})
    frame.write_parquet(tmp_path / "1.parquet")
    roles: dict[str, set[Role]] = {"price": {"number"}, "user": {"category", "order"}}
    table = read(tmp_path, roles, nulls=["NULL"])
    assert table["price"].fill_nan(None).to_list() == [1.0, None, None]
    assert table["user"].to_list() == ["007", "7", None]
    with pytest.raises(
        DataError, match="column 'price' must hold a number in every row, but 1 rows hold oth"
    ):
        read(tmp_path, roles)


def test_fields_of_structs_by_their_dotted_names(tmp_path: Path) -> None:
    frame = pl.DataFrame({"geo": [{"city": {"name": "x"}, "zip": 1}], "geo.zip": [2]})
    frame.write_parquet(tmp_path / "1.parquet")
    table = read(tmp_path, {"geo.city.name": {"category"}, "geo.zip": {"category"}})
    assert table.rows() == [("x", 2)]
    assert read(tmp_path, {"town": {"category"}}, rename={"geo.city.name": "town"}).rows() == [("x",)]


def test_a_missing_vector_is_missing_and_stops_nobody(tmp_path: Path) -> None:
    vector = pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2))
    frame = pl.DataFrame({"x": [1, 2], "v": vector})
    for write in (lambda p: frame.write_parquet(p), lambda p: pq.write_table(frame.to_arrow(), p)):
        write(tmp_path / "1.parquet")
        assert read(tmp_path, {"x": set()})["x"].to_list() == [1, 2]
        assert read(tmp_path, {"v": {"number"}})["v"].to_list() == [[1.0, 2.0], None]


def test_what_spark_writes(tmp_path: Path) -> None:
    """A directory, marks beside the parts, partitions in the path, INT96."""
    for i, country in enumerate(("DE", "F%2FR", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "log" / f"day=2024-03-0{i + 1}" / f"country={country}"
        folder.mkdir(parents=True)
        frame = pl.DataFrame({"x": [i], "at": [DAY]})
        path = folder / "part-0.c000.snappy.parquet"
        pq.write_table(frame.to_arrow(), path, use_deprecated_int96_timestamps=True)
        (folder / ".part-0.crc").write_bytes(b"crc")
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / "_committed_1").write_text("{}")
    roles: dict[str, set[Role]] = {
        "x": {"category"},
        "country": {"category"},
        "day": {"time"},
        "at": {"time"},
    }
    for path in ("log", "log/", "log/**/*", "log/**/*.parquet", "log/*/*"):
        table = read(tmp_path, roles, path=path)
        assert table["country"].to_list() == ["DE", "F/R", None]
        assert table["day"].to_list() == [f"2024-03-0{d}" for d in (1, 2, 3)]
        assert table["at"].to_list() == [DAY] * 3
    assert read(tmp_path, {"day": {"time"}}, path="log", types={"day": "time"})["day"][0] == DAY


@pytest.mark.fault(36)
def test_text_that_is_no_utf_8_is_refused_where_it_is_read(tmp_path: Path) -> None:
    """A writer may put any bytes into a text column; they are never changed into other text."""
    offsets, content = pa.py_buffer(struct.pack("<4i", 0, 1, 3, 4)), pa.py_buffer(b"a\xff\xfeb")
    broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, content])
    rows = pa.table({"x": [1, 2, 3], "text": broken})
    pq.write_table(rows, tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"(1\.parquet|table).*cannot be read.*UTF-8"):
        read(tmp_path, {"text": {"category"}})
    assert read(tmp_path, {"x": {"category"}}).height == 3
    pq.write_table(rows.set_column(1, "text", broken.view(pa.binary())), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"bytes must be UTF-8 text, got others, such as b'.xff.xfe'"):
        read(tmp_path, {"text": {"category"}})


def test_what_path_and_file_both_say_must_agree(tmp_path: Path) -> None:
    """Polars and others keep the column in the file too; where it differs, nobody knows what is meant."""
    for month in (2, 3):
        folder = tmp_path / "log" / f"month={month:02}"
        folder.mkdir(parents=True)
        pl.DataFrame({"x": [month], "month": [month]}).write_parquet(folder / "a.parquet")
    roles: dict[str, set[Role]] = {"month": {"category"}, "x": {"category"}}
    assert read(tmp_path, roles, path="log").rows() == [(2, 2), (3, 3)]
    pl.DataFrame({"x": [3], "month": [4]}).write_parquet(tmp_path / "log" / "month=03" / "b.parquet")
    with pytest.raises(
        DataError, match=r"b\.parquet: column 'month' is '03' in the path, but holds 4 in the file"
    ):
        read(tmp_path, roles, path="log")
    assert read(tmp_path, {"x": {"category"}}, path="log")["x"].to_list() == [2, 3, 3]


def test_a_column_of_the_path_is_renamed_like_others(tmp_path: Path) -> None:
    (tmp_path / "dt=7").mkdir()
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "dt=7" / "a.parquet")
    found = read(tmp_path, {"day": {"category"}}, path="dt=7/*.parquet", rename={"dt": "day"})
    assert found["day"].to_list() == ["7"]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_two_columns_that_get_one_name_are_refused(tmp_path: Path, name: str) -> None:
    """By rename, or by a pattern that reads a name which the file has twice."""
    frame = pl.DataFrame({"user": ["a"], "uid": ["b"], "p1": [1]})
    (frame.write_csv if name.endswith("csv") else frame.write_parquet)(tmp_path / name)
    table = {"path": name, "format": name[2:], "rename": {"uid": "user"}}
    with pytest.raises(DataError, match=r"has column 'user' twice, and the test reads it.*or under rename"):
        read(tmp_path, {"user": {"category"}}, **table)
    assert read(tmp_path, {"p1": {"category"}}, **table).height == 1
    raw = RawTable(**{**table, "rename": {"uid": "p1"}})
    with pytest.raises(DataError, match="has column 'p1' twice, and a pattern of a feature reads it"):
        open_files(
            Source(tables={"t": raw}),
            base=tmp_path,
            needed={"t": {}},
            roles={"t": TableRoles(patterns=[("", "p*")])},
        )


@pytest.mark.parametrize("mark", ["_delta_log/0.json", ".hoodie/a", "metadata/version-hint.text"])
def test_directories_that_keep_old_versions_are_refused(tmp_path: Path, mark: str) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "1.parquet")
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).touch()
    with pytest.raises(DataError, match="whose files also hold rows of older versions"):
        read(tmp_path, {"x": set()})


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "1.parquet")
    tables = {"a": RawTable(path="1.parquet"), "b": RawTable(path="gone.parquet")}
    needed = {"a": {"y": "feature 'y'", "z": "feature 'z'"}, "b": {"x": "b"}, "c": {"x": "c"}}
    with pytest.raises(DataError) as error:
        open_files(Source(tables=tables), base=tmp_path, needed=needed)
    for part in (
        "columns 'y', which feature 'y' reads, 'z'",
        "no file matches 'gone.parquet'",
        "table 'c'",
    ):
        assert part in str(error.value)


def test_derived_columns(tmp_path: Path) -> None:
    pl.DataFrame({"play": [1, 3], "length": [2, 0], "at": [DAY, DAY]}).write_parquet(tmp_path / "1.parquet")
    (tmp_path / "1.csv").write_text("play,length,kind\n1,2,a\n3,4.5,b\n")
    derive = {"ratio": "play / length", "more": "play + 1"}
    table = read(tmp_path, {"ratio": {"number"}, "more": {"number"}}, derive=derive)
    assert table.rows() == [(0.5, 2), (float("inf"), 4)]
    derive |= {"is_a": "CASE WHEN kind = 'a' THEN 1 ELSE 0 END"}
    csv = {"path": "1.csv", "format": "csv", "derive": derive}
    table = read(tmp_path, {"ratio": {"number"}, "is_a": {"category"}}, **csv)
    assert table.rows() == [(0.5, 1), (3 / 4.5, 0)]
    with pytest.raises(ConfigError, match=r"derived column 'r' cannot be computed: .*correct the expression"):
        read(tmp_path, {"r": {"number"}}, derive={"r": "at > 'x'"})
    with pytest.raises(ConfigError, match="unsupported function 'user'; a column whose name is a word of"):
        read(tmp_path, {"r": {"number"}}, derive={"r": "user + 1"})
    with pytest.raises(DataError, match="must have column 'gone', which derived column 'r' reads"):
        read(tmp_path, {"r": {"number"}}, derive={"r": "play / gone"})
    with pytest.raises(ConfigError, match=r"derive gives \['play'\], which are columns already"):
        read(tmp_path, {"play": {"number"}}, derive={"play": "length + 1"})
    with pytest.raises(ConfigError, match=r"nothing says whether 'play' is a number or a text"):
        read(tmp_path, {"r": {"number"}}, path="1.csv", format="csv", derive={"r": "play > length"})


def test_a_page_that_nobody_reads_may_be_damaged(tmp_path: Path) -> None:
    table = pa.table({"x": list(range(5000)), "junk": list(range(7, 5007))})
    path = tmp_path / "1.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[3 * len(content) // 4] ^= 1
    path.write_bytes(content)
    assert read(tmp_path, {"x": set()}).height == 5000
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, {"junk": set()})


@pytest.mark.parametrize(
    "foreign",
    [
        pa.array([1, 2], type=pa.timestamp("us", tz="+05:30")),
        pa.array([Decimal(1), None], type=pa.decimal256(60, 3)),
        pa.array([[1.0, 2.0], None], type=pa.list_(pa.float32(), 2)),
        pa.array([{"v": [1.0, 2.0]}, {"v": None}], type=pa.struct([("v", pa.list_(pa.float32(), 2))])),
        pa.array([[("a", 1)], []], type=pa.map_(pa.string(), pa.int32())),
        pa.array([b"0" * 16, b"1" * 16], type=pa.uuid()),
        pa.array([1, 2], type=pa.time64("us")),
        pa.array([None, None], type=pa.null()),
    ],
    ids=lambda array: str(array.type),
)
def test_no_column_that_nobody_reads_stops_a_file(tmp_path: Path, foreign: pa.Array) -> None:
    rows = pa.table({"x": [1, 2], "s": [{"a": 3}, {"a": 4}], "foreign": foreign})
    pq.write_table(rows, tmp_path / "1.parquet")
    assert read(tmp_path, {"x": {"category"}, "s.a": set()}).rows() == [(1, 3), (2, 4)]


def test_a_name_that_occurs_twice_is_refused_if_it_is_read(tmp_path: Path) -> None:
    column = pa.array([1, 2])
    pq.write_table(pa.table([column] * 3, names=["x", "y", "y"]), tmp_path / "1.parquet")
    assert read(tmp_path, {"x": set()}).rows() == [(1,), (2,)]
    with pytest.raises(DataError, match=r"\['y'\] are there, but twice or of a type that cannot be read"):
        read(tmp_path, {"y": set()})


def test_times_with_an_offset_for_a_zone(tmp_path: Path) -> None:
    at = pa.array([datetime(2024, 3, 1, 12, tzinfo=UTC)], type=pa.timestamp("us", tz="+05:30"))
    pq.write_table(pa.table({"at": at}), tmp_path / "1.parquet")
    assert read(tmp_path, {"at": {"time"}}).rows() == [(datetime(2024, 3, 1, 12, tzinfo=UTC),)]

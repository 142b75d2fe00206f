"""CSV through a table: every row or an error with file and line; types from roles, never from first rows."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from features.errors import ConfigError, DataError
from features.read.csv import open_csv
from features.read.locate import LINE
from features.read.roles import TableRoles
from features.read.scan import collect, open_files
from features.source import RawTable, Source
from features.spec import parse_spec

ROLES: dict[str, set[Any]] = {
    "user": {"category"},
    "price": {"number"},
    "click": {"flag"},
    "no": {"order"},
    "slot": {"category", "number"},
    "tags": {"json"},
    "time": {"time"},
}


def read(root: Path, content: str | bytes, wanted: list[str], **table: Any) -> pl.DataFrame:
    (root / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    raw = RawTable(**{"path": "a.csv", "format": "csv", **table})
    found = open_files(
        Source(tables={"t": raw}),
        base=root,
        needed={"t": dict.fromkeys(wanted, "the test")},
        roles={"t": TableRoles({c: set(ROLES.get(c, set())) for c in wanted})},
    )
    return collect(found["t"].select(wanted), what="table 't'")


def test_types_follow_from_roles_and_not_from_first_rows(tmp_path: Path) -> None:
    """Twelve thousand whole prices, then halves; users of digits, then text."""
    many = "".join(f"{i % 5},{i},0,{i},{i % 3}\n" for i in range(12_000))
    text = f"user,price,click,no,slot\n{many}guest,0.5,true,12000,7\n"
    table = read(tmp_path, text, ["user", "price", "click", "no", "slot"])
    assert table.dtypes == [pl.String, pl.Float64, pl.Float64, pl.Int64, pl.Int64]
    assert table.row(-1) == ("guest", 0.5, 1.0, 12_000, 7) and table.height == 12_001


def test_a_category_is_the_text_that_stands_there(tmp_path: Path) -> None:
    users = ["007", "7", "1e5", "1.10", "+1", " 1", "true", "12345678901234567890", "0x10", "NaN"]
    text = "user,other\n" + "".join(f"{u},1\n" for u in users)
    assert read(tmp_path, text, ["user"])["user"].to_list() == users


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("price", "1,5", r"line 3 holds '1,5'; write plain numbers"),
        ("price", "5%", "must hold a number in every row, but line 3 holds '5%'"),
        ("price", "NULL", r"line 3 holds 'NULL'; if it means missing, add nulls: \['NULL'\]"),
        ("price", "price", "line 3 holds 'price'; that line repeats the header"),
        ("no", "1.5", "must hold a whole number of 64 bits"),
        ("no", "9223372036854775808", "must hold a whole number of 64 bits"),
        ("slot", "007", r"since the column is both.*types: \{slot: text\} or \{slot: int\}"),
        ("click", "yes", "line 3 holds 'yes'; set at_least or equals"),
        ("tags", "a|b", "must hold a list in JSON"),
    ],
)
def test_a_value_that_does_not_convert_is_told_with_its_line(
    tmp_path: Path, column: str, value: str, message: str
) -> None:
    good = {"tags": '"[""a""]"'}.get(column, "1")
    text = f'{column},unread\n{good},1\n"{value}",1\n'
    with pytest.raises(DataError, match=rf"a\.csv: column '{column}' .*{message}"):
        read(tmp_path, text, [column])


def test_the_line_counts_lines_inside_fields_and_blank_ones(tmp_path: Path) -> None:
    text = 'price,note\n1,"two\nlines"\n\n2,x\nbad,x\n'
    with pytest.raises(DataError, match="line 6 holds 'bad'"):
        read(tmp_path, text, ["price"])


def test_numbers_and_what_is_missing(tmp_path: Path) -> None:
    text = 'price,user\n 2 ,a\n"",""\n,\nnan,b\nTrue,c\n1e400,d\n'
    table = read(tmp_path, text, ["price", "user"])
    assert table["user"].to_list() == ["a", "", None, "b", "c", "d"]
    assert table["price"].fill_nan(None).to_list() == [2.0, None, None, None, 1.0, float("inf")]
    declared = read(tmp_path, "user,price\nNULL,NULL\n\\N,1\n", ["user", "price"], nulls=["NULL", "\\N"])
    assert declared.rows() == [(None, None), (None, 1.0)]


def test_declared_types_override_roles(tmp_path: Path) -> None:
    text = "user,slot,at,flag\n007,007,2024-03-01T01:00:00+01:00,TRUE\n3.0,7,2024-03-02,0\n"
    types = {"user": "int", "slot": "text", "at": "time", "flag": "bool"}
    table = read(tmp_path, text, ["user", "slot", "at", "flag"], types=types)
    assert table["user"].to_list() == [7, 3] and table["slot"].to_list() == ["007", "7"]
    assert table["at"].dt.date().cast(pl.String).to_list() == ["2024-03-01", "2024-03-02"]
    assert table["flag"].to_list() == [True, False]
    with pytest.raises(ConfigError, match=r"types names \['usr'\], but it has \['at',"):
        read(tmp_path, text, ["user"], types={"usr": "int"})


def test_lists_of_json(tmp_path: Path) -> None:
    text = 'tags,user\n"[""a, b"", 1, 1.10, true, null]",x\n[],y\n,z\n'
    assert read(tmp_path, text, ["tags"])["tags"].to_list() == [["a, b", "1", "1.10", "true", None], [], None]


@pytest.mark.parametrize(
    ("content", "line", "fields"),
    [
        ("user,price\na,1\nb,2,3\n", 3, 3),
        ("user,price\na,1\nb\n", 3, 1),
        ("user,price\na,1\n  \n", 3, 1),
        ('user,price\n"a\nb",1\nc\n', 4, 1),
        ("user,price\na,1,\n", 2, 3),
    ],
)
def test_ragged_lines_are_named(tmp_path: Path, content: str, line: int, fields: int) -> None:
    with pytest.raises(
        DataError, match=f"must have 2 fields, as its header has, but line {line} has {fields}:"
    ):
        read(tmp_path, content, ["user"])


def test_ragged_lines_of_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have 2 fields, as its header has, but line 3 has 1"):
        read(tmp_path, b"user,price\na,1\n\xff\xff\n", ["user"])


@pytest.mark.parametrize(
    "content",
    [
        "user,note\nä,1\nb,2\n".encode(),
        b"\xef\xbb\xbf" + "user,note\nä,1\nb,2".encode(),
        "user,note\r\nä,1\r\nb,2\r\n".encode(),
        "user,note\rä,1\rb,2".encode(),
        '"user","note"\n"ä","1"\n"b","2"\n'.encode(),
        gzip.compress("user,note\nä,1\n".encode(), mtime=0) + gzip.compress(b"b,2\n", mtime=0),
        "user,note\n\nä,1\n\n\nb,2\n\n".encode(),
        'user,note\nä,12" v\nb,"say ""hi"""\n'.encode(),
        "user,note\nä,1\nb,\xfc\n".encode()[:-3] + b"\xfc\n",  # no UTF-8, in a column that nobody reads
        b"user,note\n\xc3\xa4,a\x00b\nb,2\n",
    ],
)
def test_forms_of_one_table(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content, ["user"])["user"].to_list() == ["ä", "b"]


@pytest.mark.fault(36)
def test_encodings(tmp_path: Path) -> None:
    text = "user,note\nä,1\nb,2\n"
    for name in ("latin-1", "utf-16", "cp1252", "utf-8-sig"):
        assert read(tmp_path, text.encode(name), ["user"], encoding=name)["user"].to_list() == ["ä", "b"]
    with pytest.raises(DataError, match=r"byte 0xe4 in line 2 is no UTF-8; set encoding"):
        read(tmp_path, text.encode("latin-1"), ["user"])
    with pytest.raises(DataError, match="set encoding: utf-16"):
        read(tmp_path, text.encode("utf-16"), ["user"])
    with pytest.raises(DataError, match="zero bytes: if it is UTF-16"):
        read(tmp_path, text.encode("utf-16-le"), ["user"])


@pytest.mark.parametrize("written", ["\t", r"\t", "tab", "TAB", r"\x09"])
def test_a_tab_in_any_spelling(tmp_path: Path, written: str) -> None:
    assert read(tmp_path, "user\tprice\na,b\t1\n", ["user"], separator=written)["user"].to_list() == ["a,b"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"separator": "::"}, r"separator must be one ASCII character, such as ',' or '\\t', got '::'"),
        ({"separator": ""}, "separator must be one ASCII character"),
        ({"separator": "§"}, "separator must be one ASCII character"),
        ({"quote": "''"}, "quote must be one ASCII character"),
        ({"quote": ","}, "separator and quote must differ"),
        ({"encoding": "utf-9"}, "encoding must be one that Python knows"),
        ({"header": False}, "columns must be given where header is false"),
        ({"columns": ["a"]}, "columns must be given where header is false, and only there"),
        ({"seperator": ";"}, "unknown key"),
    ],
)
def test_options_that_cannot_be_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_spec({"source": {"tables": {"t": {"path": "a.csv", "format": "csv", **table}}}})


def test_no_header_and_no_quotes(tmp_path: Path) -> None:
    text = 'a,"1\nb,2"\n'
    table = read(tmp_path, text, ["user", "note"], header=False, columns=["user", "note"], quote="none")
    assert table.rows() == [("a", '"1'), ("b", '2"')]
    assert RawTable(path="a", quote=None).quote is None


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("user;price\na;1\n", "its one column 'user;price' suggests separator: ';'"),
        ("user\tprice\n", r"suggests separator: '\\t'"),
        ("u1,17,0\n", "its first line looks like data: if there is no header, set header: false"),
        ("# made in 2024\nuser,price\n", "its first line is a comment"),
        ('{"user": 1}\n', "it looks like JSON lines"),
        (" User,price\na,1\n", "' User' differ in case or blanks"),
        ("user,price,user\na,1,b\n", "has column 'user' twice, and the test reads it"),
    ],
)
def test_a_header_without_the_column_hints_at_why(tmp_path: Path, content: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        read(tmp_path, content, ["user"])


def test_a_second_column_of_a_name_matters_only_if_it_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "user,x,x\na,1,2\n", ["user"]).rows() == [("a",)]


def test_lines_are_known_and_rows_filtered_in_the_reader(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('user,price\na,1\n"b\nc",2\nd,3\n')
    frame = open_csv(tmp_path / "a.csv", RawTable(path="a.csv", format="csv"), ",", lambda size: None).scan(
        {"user": "text", "price": "float"}
    )
    assert frame.collect()[LINE].to_list() == [2, 3, 5]
    assert frame.filter(pl.col("price") > 1).select("user").collect()["user"].to_list() == ["b\nc", "d"]
    assert frame.head(1).collect().height == 1
    assert frame.select(pl.len()).collect().item() == 3


def test_small_blocks_read_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "user,price\n" + "".join(f'"u,{i}\n",{i}.5\n' for i in range(200))
    whole = read(tmp_path, text, ["user", "price"], quote='"')
    file = open_csv(tmp_path / "a.csv", RawTable(path="a.csv", quote='"'), ",", lambda size: None)
    parts = list(file._frames({"user": "text", "price": "float"}, size=64))
    assert len(parts) > 20 and pl.concat(parts).select("user", "price").equals(whole)


def test_packed_by_zstd(tmp_path: Path) -> None:
    content = pa.compress(b"user,price\na,1\n", codec="zstd", asbytes=True)
    assert read(tmp_path, content, ["user"]).height == 1

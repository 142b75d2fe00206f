r"""Escapes in CSV: what Python's writer and MySQL write is read back; what has no sure meaning is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.read.records import Dialect, read_blocks
from features.read.roles import TableRoles
from features.read.scan import collect, open_files
from features.source import RawTable, Source

Rows = list[tuple[str | None, ...]]


def read(path: Path, **table: Any) -> Rows:
    raw = RawTable(**{"path": path.name, "format": "csv", "escape": "\\", **table})
    found = open_files(
        Source(tables={"t": raw}),
        base=path.parent,
        needed={"t": {"a": "the test", "b": "the test"}},
        roles={"t": TableRoles({"a": {"category"}, "b": {"category"}})},
    )
    return collect(found["t"].select("a", "b"), what="table 't'").rows()


def written(rows: Rows, **dialect: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, doublequote=False, escapechar="\\", lineterminator="\n", **dialect).writerows(
        [("a", "b"), *rows]
    )
    return text.getvalue().encode()


def read_by_python(content: bytes, **dialect: Any) -> Rows | None:
    text = io.StringIO(content.decode(), newline="")
    try:
        found = csv.reader(text, doublequote=False, escapechar="\\", strict=True, **dialect)
        return [tuple(row) for row in found][1:]
    except csv.Error:
        return None


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE])
@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(*[st.text('ab"\\,; \n\ré', min_size=1, max_size=6)] * 2), min_size=1, max_size=6),
    size=st.sampled_from([1, 2, 3, 7, 2**24]),
)
def test_what_a_writer_escapes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, quoting: Any, rows: Rows, size: int
) -> None:
    """Quotes, separators, line ends and escapes, wherever a piece of the file ends."""
    path = tmp_path_factory.mktemp("t") / "a.csv"
    content = written(rows, quoting=quoting)
    assume(read_by_python(content, quoting=quoting) == rows)  # it cannot read all that it writes
    path.write_bytes(content)
    known = Dialect(escape="\\", sure=True)
    blocks = list(read_blocks(path, known, size=size))
    assert sum(len(b.ends) for b in blocks) == len(rows) + 1
    assert read(path, quote='"') == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b\n1,"say \\"hi\\""\n2,x\n', [("1", 'say "hi"'), ("2", "x")]),
        ("a,b\n1,x\\,y\n", [("1", "x,y")]),
        ("a,b\n1,x\\\ny\n2,z\n", [("1", "x\ny"), ("2", "z")]),
        ('a,b\n1,"C:\\\\"\n', [("1", "C:\\")]),
        ('a,b\n1,"x "" y \\" z"\n', [("1", 'x " y " z')]),
        ('a,b\nx\\,"y,z\n', [('x,"y', "z")]),  # the separator before the quote is none: the field goes on
        ("a\tb\n1\tx\\\ty\n", [("1", "x\ty")]),
    ],
)
def test_exactly(tmp_path: Path, text: str, rows: Rows) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert read(path, separator="\t" if "\t" in text else ",") == rows


def test_an_escaped_null_is_missing_where_that_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n\\N,N\nN,\\N\n"\\"",\\N\n')
    assert read(path, nulls=["\\N"]) == [(None, "N"), ("N", None), ('"', None)]
    with pytest.raises(DataError, match=r"line 2 holds '\\\\N'.*add nulls: \['\\N'\]"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,x\n2,C:\\dir\n",
            r"line 3 holds '\\\\d', which programs read differently; write the escape twice",
        ),
        ('a,b\n1,"x\\ny"\n', r"line 2 holds '\\\\n'"),
        ('a,b\n1,"x,\\N,y"\n', r"line 2 holds '\\\\N'"),  # inside a quoted field
        ("a,b\n1,x\\", "the last record must end, but an escape stands at its end"),
        ("a,b\n1,x\\\n", "the last record must end"),
        ('a,b\n1,"x\\"\n', "the quote in line 2 is never closed"),
        ("a,b\n1,x\\,y,z\n", "line 2 has 3"),
    ],
)
def test_what_is_not_sure_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    with pytest.raises(DataError, match=message):
        read(path, nulls=["\\N"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"say \\"hi\\""\n', "goes on behind a quote in line 2; if a backslash stands before quotes"),
        ("a,b\n1,x\\,y\n", "line 2 has 3: .*set escape: '"),
    ],
)
def test_a_file_with_undeclared_escapes_is_told_of_the_option(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    with pytest.raises(DataError, match=message):
        read(path, escape=None)


def test_a_backslash_before_a_quote_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,x\n2,5\\" tv\n3,6\\" tv\n')
    assert read(path, escape=None) == [("1", "x"), ("2", '5\\" tv'), ("3", '6\\" tv')]
    assert [r.getMessage().split(": ")[1][:15] for r in caplog.records] == ['line 3 holds \\"']


@pytest.mark.parametrize(("escape", "more"), [(",", {}), ('"', {}), (";", {"separator": ";"})])
def test_escape_differs_from_separator_and_quote(escape: str, more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="escape must differ from separator and quote"):
        RawTable(path="a.csv", format="csv", escape=escape, **more)


def test_a_table_of_escapes_counts_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n1,x\\\ny\n"2\n",z\n3,w\n')
    begins = [int(n) for block in read_blocks(path, Dialect(escape="\\")) for n in block.lines]
    assert begins == [1, 2, 4, 6]

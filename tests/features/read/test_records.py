from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.read.records import Dialect, read_blocks


def records(path: Path, content: bytes, *, size: int = 2**24, dialect: Dialect | None = None) -> list[str]:
    path.write_bytes(content)
    blocks = list(read_blocks(path, dialect or Dialect(), size=size))
    return [block.record(i) for block in blocks for i in range(len(block.ends))]


def lines(path: Path, content: bytes, *, size: int = 2**24) -> list[int]:
    path.write_bytes(content)
    return [int(n) for block in read_blocks(path, Dialect(), size=size) for n in block.lines]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 2**24])
@pytest.mark.parametrize(
    ("content", "expected", "begins"),
    [
        (b"a,b\n1,2\n", ["a,b", "1,2"], [1, 2]),
        (b"a,b\r\n1,2", ["a,b", "1,2"], [1, 2]),
        (b"a,b\r1,2\r", ["a,b", "1,2"], [1, 2]),
        (b"a,b\n\n\r\n1,2\n\n", ["a,b", "1,2"], [1, 4]),
        (b'a,"b\nc"\nd,e\n', ['a,"b\nc"', "d,e"], [1, 3]),
        (b'a,12" v\nb,"5"" x"\nc,6"\n', ['a,12" v', 'b,"5"" x"', 'c,6"'], [1, 2, 3]),
        (b'a,""\nb,""""\n', ['a,""', 'b,""""'], [1, 2]),
        (b"a\x00b,c\n", ["a\x00b,c"], [1]),
        (b"\xef\xbb\xbfa,b\n", ["a,b"], [1]),
        (b"", [], []),
    ],
)
def test_records_whatever_the_size_of_the_pieces(
    path: Path, content: bytes, expected: list[str], begins: list[int], size: int
) -> None:
    assert records(path, content, size=size) == expected
    assert lines(path, content, size=size) == begins


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'a,b\n1,"x\n2,y\n', r"a.csv: the quote in line 2 is never closed; .*set quote: none"),
        (b'a,b\n1,"x"y\n', r"begins in line 2 goes on behind a quote in line 2"),
        (b'a,b\n1,"x\n2,"y\n3,z\n', r"begins in line 2 goes on behind a quote in line 3"),
        (b'a,b\n1,"say \\"hi\\""\n', r"begins in line 2 goes on behind a quote in line 2"),
        # Two quotes that belong to two rows: the lines between them would be one field.
        (b'a,b\n1,"The Best\n2,tv\n3,tv 12"\n4,x\n', r"lines 2 to 4 are one quoted field, but each of them"),
        (b'a,b,c\n1,"q,c\n2,x",c\n', r"lines 2 to 3 are one quoted field, but each of them looks like"),
    ],
)
@pytest.mark.parametrize("size", [4, 2**24])
def test_a_quote_that_would_swallow_rows_is_named(
    path: Path, content: bytes, message: str, size: int
) -> None:
    with pytest.raises(DataError, match=message):
        records(path, content, size=size)
    plain = Dialect(quote=None)
    assert len(records(path, content, size=size, dialect=plain)) == content.count(b"\n")


def test_lines_inside_a_field_are_believed_where_the_quote_is_declared(path: Path) -> None:
    content = b'a,b\n1,"The Best\n2,tv\n3,tv 12"\n4,x\n'
    assert len(records(path, content, dialect=Dialect(sure=True))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04....", "but is a zip archive; unpack it"),
        (b"PAR1....PAR1", "but is Parquet; set format: parquet"),
        ("a,b\n1,2\n".encode("utf-16"), "set encoding: utf-16"),
        ("a,b\n1,2\n".encode("utf-32"), "set encoding: utf-32"),
    ],
)
def test_files_of_another_kind_are_named(path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        records(path, content)


def test_other_encodings(path: Path) -> None:
    text = "a,b\nü,1\né,2\n"
    for name in ("latin-1", "utf-16", "utf-32", "cp1252", "gb18030"):
        assert records(path, text.encode(name), size=3, dialect=Dialect(encoding=name)) == text.split()
    with pytest.raises(DataError, match="is no utf-16"):
        records(path, b"abc", dialect=Dialect(encoding="utf-16"))
    for size in (3, 2**24):
        with pytest.raises(DataError, match="is no cp1252: byte 0x81 in line 3 is none of its characters"):
            records(path, b"a,b\n1,2\n\x81,3\n", size=size, dialect=Dialect(encoding="cp1252"))


fields = st.text(st.sampled_from('ab,"\n é'), max_size=6)


@settings(deadline=None)
@given(
    st.lists(st.lists(fields, min_size=3, max_size=3), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_csv_writer_writes_is_read_record_by_record(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], size: int, quoting: int
) -> None:
    """Python's csv module is the oracle: as many records, and each of them the same."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    found = records(path, text.getvalue().encode(), size=size, dialect=Dialect(sure=True))
    assert [next(csv.reader(io.StringIO(r, newline=""))) for r in found] == rows

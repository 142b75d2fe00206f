from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ConfigError, DataError
from features.read.decoded import decoded_bytes
from features.read.locate import FILE
from features.read.scan import collect, open_files
from features.source import RawTable, Source

NEEDED = {"clicks": {"user": "impressions.user", "item": "feature 'item'"}}


def opened(root: Path, *, options: dict[str, Any] | None = None, **table: Any) -> pl.DataFrame:
    raw = RawTable(**{"path": "*.parquet", **table})
    tables = open_files(Source(tables={"clicks": raw}, options=options or {}), base=root, needed=NEEDED)
    return collect(tables["clicks"], what=f"table 'clicks' ({raw.path})")


def write(path: Path, **columns: list[Any]) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_files_follow_one_another_in_name_order(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", item=[3], user=[1])
    write(tmp_path / "a.parquet", user=[1, 1], item=[1, 2])
    table = opened(tmp_path)
    assert table["item"].to_list() == [1, 2, 3]
    assert [Path(f).name for f in table[FILE]] == ["a.parquet", "a.parquet", "b.parquet"]


def test_csv_renamed_with_a_separator_under_a_path_with_odd_characters(tmp_path: Path) -> None:
    root = tmp_path / "my [odd] logs"
    root.mkdir()
    (root / "a.csv").write_text("UID;item;price\n1;x;1\n2;y;2\n")
    (root / "b.csv").write_text("UID;item;price\n3;z;2.5\n")
    options = {"separator": ";"}
    table = opened(root, path="*.csv", format="csv", rename={"UID": "user"}, options=options)
    assert table["user"].to_list() == ["1", "2", "3"] and table["price"].to_list() == ["1", "2", "2.5"]


@pytest.mark.fault(12)
def test_missing_column_names_file_and_reader(tmp_path: Path) -> None:
    """Fault 12."""
    write(tmp_path / "a.parquet", user=[1], item=[1])
    write(tmp_path / "b.parquet", user=[1])
    with pytest.raises(DataError, match=r"b.parquet must have column 'item', which feature 'item' reads"):
        opened(tmp_path)
    assert opened(tmp_path, optional={"item": 7})["item"].to_list() == [1, 7]


@pytest.mark.fault(11)
def test_changed_type_names_both_files_and_types(tmp_path: Path) -> None:
    """Fault 11."""
    write(tmp_path / "a.parquet", user=[1], item=[1])
    write(tmp_path / "b.parquet", user=[1], item=["1"])
    with pytest.raises(
        DataError, match=r"'item' must have one type.*Int64 in .*a.parquet and String in .*b.parquet"
    ):
        opened(tmp_path)


@pytest.mark.fault(13)
def test_extra_columns_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 13; the order of columns does not matter."""
    for name in ("b", "c"):
        write(tmp_path / f"{name}.parquet", item=[2], more=[0], user=[2])
    write(tmp_path / "a.parquet", user=[1], item=[1])
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path)["item"].to_list() == [1, 2, 2]
    assert [r.getMessage() for r in caplog.records] == [
        "table 'clicks': columns ['more'] are not in every file and are left out"
    ]


@pytest.mark.fault(9)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_empty_files_are_named(tmp_path: Path, suffix: str) -> None:
    """Fault 9."""
    (tmp_path / f"a.{suffix}").touch()
    with pytest.raises(DataError, match=rf"a.{suffix} is empty \(0 bytes\)"):
        opened(tmp_path, path=f"*.{suffix}", format=suffix)


@pytest.mark.fault(9)
def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", user=list(range(1000)), item=list(range(1000)))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        opened(tmp_path)
    path.write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        opened(tmp_path)


@pytest.mark.fault(10)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_flipped_bits_in_pages_are_found(
    tmp_path: Path, compression: str, chaos_seed: int, counted: Callable[..., None]
) -> None:
    """With page checksums, which Polars alone does not verify: refused, or the values are what they were.

    Harmless are bits of a page's header that say nothing of its values.
    """
    path = tmp_path / "a.parquet"
    table = pa.table({"user": np.arange(5000), "item": np.arange(5000) ** 2})
    pq.write_table(table, path, write_page_checksum=True, compression=compression, use_dictionary=False)
    with pq.ParquetFile(path) as file:
        columns = [file.metadata.row_group(0).column(i) for i in range(2)]
        pages = [(c.data_page_offset, c.data_page_offset + c.total_compressed_size) for c in columns]
    whole, draw, refused, wrong = path.read_bytes(), random.Random(chaos_seed), 0, 0
    for trial in range(40):
        flipped = bytearray(whole)
        flipped[draw.randrange(*pages[trial % 2])] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            found = opened(tmp_path)
            assert found["user"].to_list() == table["user"].to_pylist(), trial
            assert found["item"].to_list() == table["item"].to_pylist(), trial
        except DataError as error:
            assert "a.parquet cannot be read" in str(error)
            refused += 1
        with suppress(DataError):
            unchecked = opened(tmp_path, options={"check_pages": False})
            wrong += unchecked["item"].to_list() != table["item"].to_pylist()
    assert refused >= 36 and (compression != "none" or wrong > 10)  # without the check they pass unseen
    counted(flips=40)


@pytest.mark.fault(32)
def test_bombs_are_refused(tmp_path: Path) -> None:
    """Fault 32: by the sizes in the footer, before anything is unpacked."""
    write(tmp_path / "a.parquet", user=list(range(1000)), item=list(range(1000)))
    with pytest.raises(DataError, match=r"a.parquet unpacks to .* bytes, \d+ times its size"):
        opened(tmp_path, options={"max_bytes": 1000})


@pytest.mark.fault(32, 42)
@pytest.mark.parametrize("kind", ["dictionary", "lists", "structs", "many row groups"])
def test_what_footers_call_small_is_refused_by_what_it_decodes_to(tmp_path: Path, kind: str) -> None:
    """Less than a megabyte that decodes to over 300 MB; the footer states the sizes of the pages."""
    rows, path = 5 * 2**22, tmp_path / "a.parquet"
    nulls = pa.nulls(rows, pa.int64())
    column = {
        "dictionary": pa.array(np.zeros(rows, dtype=np.int64)),
        "lists": pa.ListArray.from_arrays([0, 2 * rows], pa.nulls(2 * rows, pa.int64())),
        "structs": pa.StructArray.from_arrays([nulls], ["id"]),
        "many row groups": nulls,
    }[kind]
    table = pa.table({"who": column, "item": pa.nulls(len(column), pa.int64())})
    pq.write_table(table, path, row_group_size=2**20 if kind == "many row groups" else None)
    with pq.ParquetFile(path) as file:
        stated = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    assert max(path.stat().st_size, stated) < 2**20
    raw = RawTable(path="a.parquet", rename={"who.id" if kind == "structs" else "who": "user"})
    for dry in (False, True):
        with pytest.raises(DataError, match=r"a.parquet unpacks to at least [3-9]\d\d,\d+,\d+ bytes, \d+"):
            open_files(Source(tables={"clicks": raw}), base=tmp_path, needed=NEEDED, dry=dry)


def test_decoded_bytes_count_what_is_read_alone(tmp_path: Path) -> None:
    path, text = tmp_path / "a.parquet", "x" * 1000
    struct = {"a": [{"b": 1, "c": 2.0}] * 10, "lists": [[1, 2, 3]] * 10}
    small = {"int8": pa.array([1] * 10, pa.int8()), "flag": [True] * 10, "text": [text] * 10}
    pq.write_table(pa.table({**struct, **small}), path)
    sizes = {name: decoded_bytes(path, [name]) for name in ("a", "a.b", "lists", "int8", "flag", "nothing")}
    assert sizes == {"a": 160, "a.b": 80, "lists": 320, "int8": 10, "flag": 10, "nothing": 0}
    assert 160 < decoded_bytes(path, ["text"]) < 160 + 4 * len(text)  # ten views of one text
    assert decoded_bytes(path, ["a", "int8"]) == 170


@pytest.mark.parametrize("wrong", ["big", -1, None])
def test_limits_of_sizes_are_numbers(tmp_path: Path, wrong: object) -> None:
    write(tmp_path / "a.parquet", user=[1], item=[2])
    with pytest.raises(ConfigError, match=r"source.options.max_ratio must be a number above 0, got"):
        opened(tmp_path, options={"max_ratio": wrong})


@pytest.mark.fault(32)
@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_packed_csv_is_read_and_its_bombs_are_refused(
    tmp_path: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 32: 64 MB of zeros in a few KB; the bytes are counted while they are unpacked."""
    monkeypatch.setattr("features.read.scan._SMALL", 2**25)
    path = tmp_path / "a.csv"

    def write_packed(pieces: int) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, packed) as stream:
            stream.write(b"user,item\n1,2\n")
            for _ in range(pieces):
                stream.write(b"0,0\n" * 2**20)

    write_packed(0)
    assert opened(tmp_path, path="*.csv", format="csv").height == 1
    with pytest.raises(DataError, match=r"a.csv unpacks to at least [\d,]+ bytes"):
        opened(tmp_path, path="*.csv", format="csv", options={"max_bytes": 10})
    write_packed(16)
    with pytest.raises(
        DataError, match=r"a.csv unpacks to at least [345]\d,\d+,\d+ bytes, \d+ times its size"
    ):
        opened(tmp_path, path="*.csv", format="csv")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a.csv cannot be read"):
        opened(tmp_path, path="*.csv", format="csv")


@pytest.mark.fault(9)
def test_files_that_cannot_be_read_are_skipped_and_counted_where_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 9."""
    for name in "abc":
        write(tmp_path / f"{name}.parquet", user=[1], item=[2])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-9])
    (tmp_path / "c.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read"):
        opened(tmp_path)
    counters: dict[str, int] = {}
    source = Source(tables={"clicks": RawTable(path="*.parquet")}, options={"on_error": "skip"})
    with caplog.at_level(logging.WARNING):
        tables = open_files(source, base=tmp_path, needed=NEEDED, counters=counters)
    assert collect(tables["clicks"], what="clicks").height == 1
    assert counters == {"files.clicks.skipped": 2}
    assert [r.getMessage().startswith("skipped: ") for r in caplog.records] == [True, True]
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 3 files can be read"):
        opened(tmp_path, options={"on_error": "skip"})
    with pytest.raises(ConfigError, match="on_error must be fail or skip, got 'ignore'"):
        opened(tmp_path, options={"on_error": "ignore"})


def test_no_file_and_unknown_table_or_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table 'clicks': no file matches '\*.parquet'"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match=r"may hold .*got \['seperator'\]"):
        opened(tmp_path, options={"seperator": ";"})
    with pytest.raises(ConfigError, match="has no table 'clicks'"):
        open_files(Source(), base=tmp_path, needed=NEEDED)


@pytest.mark.parametrize("instead", [None, "valid.csv.gz", "more/valid.csv"])
def test_a_file_that_by_file_names_and_that_is_not_there_is_missed(
    tmp_path: Path, instead: str | None
) -> None:
    """Forgotten, packed or in another folder: else its part would be empty without a word."""
    for name in ["train.csv", "test.csv", *([instead] if instead else [])]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("user,item\n7,1\n")
    told: dict[str, dict[str, str | int]] = {"part": {"train.csv": 0, "valid.csv": 1, "test.csv": 2}}
    there = rf"; there is {instead}; put each there" if instead else "; put each there"
    with pytest.raises(DataError, match=rf"names \['valid.csv'\], but path finds only .*{there}"):
        opened(tmp_path, path="*.csv", format="csv", by_file=told)
    told["part"]["v*.csv"] = told["part"].pop("valid.csv")
    assert opened(tmp_path, path="*.csv", format="csv", by_file=told).height == 2


def test_columns_told_by_file_and_a_number_of_the_row(tmp_path: Path) -> None:
    for name, users in (("test", [9]), ("train", [7, 8])):
        (tmp_path / f"{name}.csv").write_text("user,item\n" + "".join(f"{u},1\n" for u in users))
    told = {"part": {"train.csv": 0, "t?st.csv": 1}}
    table = opened(tmp_path, path="*.csv", format="csv", by_file=told, number="row")
    assert table.select("user", "part", "row").rows() == [("9", "1", 0), ("7", "0", 1), ("8", "0", 2)]
    assert table.schema["row"] == pl.Int64
    (tmp_path / "other.csv").write_text("user,item\n1,1\n")
    with pytest.raises(DataError, match=r"tell 'part' of every file once, but .*other.csv is none of"):
        opened(tmp_path, path="*.csv", format="csv", by_file=told)
    twice = {"part": {"t*.csv": 0, "other.csv": 1, "test.csv": 2}}
    with pytest.raises(DataError, match=r"test.csv is several of \['other.csv', 't\*.csv', 'test.csv'\]"):
        opened(tmp_path, path="*.csv", format="csv", by_file=twice)
    with pytest.raises(ValueError, match="by_file is of plain files, whose names stay; format is 'delta'"):
        RawTable(path="t", format="delta", by_file=told)
    with pytest.raises(ConfigError, match=r"number gives \['item'\], which are columns already"):
        spec_table = RawTable(path="t*.csv", format="csv", number="item")
        open_files(Source(tables={"clicks": spec_table}), base=tmp_path, needed=NEEDED, roles={})

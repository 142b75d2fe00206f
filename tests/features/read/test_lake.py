"""Delta and Iceberg tables: the rows of one version, pinned; what files alone do not tell is refused."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from features.dataset import Dataset
from features.errors import ConfigError, DataError
from features.partitions.workers import Resources
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.small_log import RATINGS_SPEC, changed, rating_tables, write_tables
from tests.object_store import Bucket

Write = Callable[[Path, pl.DataFrame], int]  # appends rows to a table and returns its version


def append_delta(folder: Path, rows: pl.DataFrame, **options: Any) -> int:
    deltalake = pytest.importorskip("deltalake", reason="not installed: see requirements/lake.txt")
    deltalake.write_deltalake(str(folder), rows.to_arrow(), mode="append", schema_mode="merge", **options)
    return int(deltalake.DeltaTable(str(folder)).version())


def append_iceberg(folder: Path, rows: pl.DataFrame, name: str = "logs.ratings") -> int:
    pytest.importorskip("pyiceberg", reason="not installed: see requirements/lake.txt")
    from pyiceberg.catalog.memory import InMemoryCatalog

    catalog = _CATALOGS.setdefault(
        str(folder), InMemoryCatalog("test", warehouse=str(folder.parent), **{"uri": "sqlite:///:memory:"})
    )
    data = rows.to_arrow().cast(pa.schema(_plain(rows)))
    if not catalog.namespace_exists("logs"):
        catalog.create_namespace("logs")
        catalog.create_table(name, data.schema, location=str(folder))
    table = catalog.load_table(name)
    with table.update_schema() as update:
        update.union_by_name(data.schema)
    table.append(data)
    (folder / "metadata/version-hint.text").write_text(Path(table.metadata_location).name)
    return int(table.current_snapshot().snapshot_id)


_CATALOGS: dict[str, Any] = {}


def _plain(rows: pl.DataFrame) -> list[tuple[str, pa.DataType]]:
    """Types that Iceberg has."""
    small = {pa.int8(): pa.int32(), pa.large_string(): pa.string()}
    return [(f.name, small.get(f.type, f.type)) for f in rows.to_arrow().schema]


FORMATS = pytest.mark.parametrize(("kind", "append"), [("delta", append_delta), ("iceberg", append_iceberg)])


def data_set(root: Path, spec: dict[str, Any], name: str, **options: Any) -> Dataset:
    prepare(parse_spec(spec), root / name, base=root / "raw", **options)
    return Dataset(root / name)


def of_format(kind: str, **more: Any) -> dict[str, Any]:
    return changed(RATINGS_SPEC, source__tables__ratings={"path": "lake/ratings", "format": kind, **more})


@FORMATS
def test_a_version_is_its_rows(tmp_path: Path, kind: str, append: Write) -> None:
    tables, raw = rating_tables(60), tmp_path / "raw"
    halves = [tables["ratings"].head(30), tables["ratings"].slice(30)]
    write_tables(raw, {**tables, "ratings": halves[0]})
    first = append(raw / "lake/ratings", halves[0])
    half = data_set(tmp_path, RATINGS_SPEC, "half")
    there = data_set(tmp_path, of_format(kind), "data")
    assert there.manifest.files.keys() == half.manifest.files.keys()
    assert values(there) == values(half)
    assert there.manifest.table_versions == {"ratings": first}

    second = append(raw / "lake/ratings", halves[1])
    write_tables(raw, tables)
    told: list[str] = []
    now = data_set(tmp_path, of_format(kind), "data", overwrite=True, progress=told.append)
    assert values(now) == values(data_set(tmp_path, RATINGS_SPEC, "whole"))
    assert now.manifest.table_versions == {"ratings": second}
    assert f"table 'ratings' has moved from version {first} to {second}" in told

    older = data_set(tmp_path, of_format(kind, version=first), "older")
    assert values(older) == values(half) and older.manifest.table_versions == {"ratings": first}


def values(dataset: Dataset) -> dict[str, str]:
    """Hashes of all files but the spec, which names the format."""
    return {name: sha for name, sha in dataset.manifest.files.items() if name != "spec.yaml"}


@FORMATS
def test_a_column_that_came_later_is_missing_in_older_rows(tmp_path: Path, kind: str, append: Write) -> None:
    tables, raw = rating_tables(60), tmp_path / "raw"
    tables["ratings"] = tables["ratings"].with_columns(place=pl.lit("home"))
    append(raw / "lake/ratings", tables["ratings"].head(30).drop("place"))
    append(raw / "lake/ratings", tables["ratings"].slice(30))
    late = pl.int_range(pl.len()) >= 30
    tables["ratings"] = tables["ratings"].with_columns(place=pl.when(late).then("place"))
    write_tables(raw, tables)
    spec = changed(
        of_format(kind),
        features__place={"column": "place", "table": "place"},
        tables__place={},
        tokens__rest=["hour", "counts", "place"],
    )
    plain = changed(spec, source__tables__ratings={"path": "ratings.parquet"})
    assert values(data_set(tmp_path, spec, "lake")) == values(data_set(tmp_path, plain, "plain"))


@pytest.mark.slow
@FORMATS
def test_a_version_in_partitions(tmp_path: Path, kind: str, append: Write) -> None:
    tables = rating_tables(60)
    write_tables(tmp_path / "raw", tables)
    append(tmp_path / "raw/lake/ratings", tables["ratings"])
    whole = data_set(tmp_path, of_format(kind), "whole")
    parts = data_set(tmp_path, of_format(kind), "parts", resources=Resources(partitions=2, workers=2))
    assert parts.manifest.files == whole.manifest.files and parts.manifest.origin == whole.manifest.origin


@pytest.mark.slow
@FORMATS
def test_a_remote_table_is_fetched_in_its_version(
    tmp_path: Path, bucket: Bucket, kind: str, append: Write
) -> None:
    tables, raw = rating_tables(60), tmp_path / "raw"
    write_tables(raw, tables)
    version = append(raw / "lake/ratings", tables["ratings"])
    bucket.put_all(raw, "raw")
    here = data_set(tmp_path, of_format(kind), "here")
    far = changed(of_format(kind), source__path=f"{bucket.url}/raw")
    url = changed(of_format(kind), source__tables__ratings__path=f"{bucket.url}/raw/lake/ratings")
    for name, spec in (("far", far), ("url", url)):
        found = data_set(tmp_path, spec, name)
        assert values(found) == values(here) and found.manifest.table_versions == {"ratings": version}


@FORMATS
def test_what_is_no_such_table_or_version(tmp_path: Path, kind: str, append: Write) -> None:
    raw = tmp_path / "raw"
    write_tables(raw, rating_tables(30))
    append(raw / "lake/ratings", rating_tables(30)["ratings"])
    with pytest.raises(DataError, match="correct path or version"):
        data_set(tmp_path, of_format(kind, version=77), "out")
    with pytest.raises(DataError, match=r"must be a(n Iceberg| Delta) table .*; correct path"):
        data_set(tmp_path, of_format(kind, path="lake"), "out")
    with pytest.raises(DataError, match=f"set format: {kind} in the table"):
        data_set(
            tmp_path, changed(of_format("parquet"), source__tables__ratings={"path": "lake/ratings"}), "out"
        )


def test_partitions_of_a_delta_table(tmp_path: Path) -> None:
    """Their values stand in the log alone."""
    tables, raw = rating_tables(60), tmp_path / "raw"
    places = pl.Series(["at home", "a/b=c", None, "ä"] * 15)[: tables["ratings"].height]
    tables["ratings"] = tables["ratings"].with_columns(place=places)
    write_tables(raw, tables)
    append_delta(raw / "lake/ratings", tables["ratings"], partition_by=["place"])
    spec = changed(
        of_format("delta"),
        features__place={"column": "place", "table": "place"},
        tables__place={},
        tokens__rest=["hour", "counts", "place"],
    )
    plain = changed(spec, source__tables__ratings={"path": "ratings.parquet"})
    assert values(data_set(tmp_path, spec, "lake")) == values(data_set(tmp_path, plain, "plain"))


def test_a_renamed_column_of_an_iceberg_table(tmp_path: Path) -> None:
    """Older files have the old name; only field IDs tell that it is the same column."""
    raw, ratings = tmp_path / "raw", rating_tables(50)["ratings"]
    write_tables(raw, rating_tables(50))
    append_iceberg(raw / "lake/ratings", ratings)
    with _CATALOGS[str(raw / "lake/ratings")].load_table("logs.ratings").update_schema() as update:
        update.rename_column("rating", "stars")
    append_iceberg(raw / "lake/ratings", ratings.rename({"rating": "stars"}))
    spec = changed(of_format("iceberg"), impressions__label={"column": "stars", "at_least": 4})
    spec["domains"]["ratings"]["side"]["rating"]["column"] = "stars"
    with pytest.raises(DataError, match=r"column 'stars' was renamed after .*, where it is 'rating'"):
        data_set(tmp_path, spec, "out")


@pytest.mark.parametrize("change", ["deleted", "renamed", "unknown"])
def test_what_the_files_of_a_delta_table_do_not_tell(tmp_path: Path, change: str) -> None:
    """Commits that other writers make; deltalake writes none of them."""
    raw, tables = tmp_path / "raw", rating_tables(50)
    write_tables(raw, tables)
    append_delta(raw / "lake/ratings", tables["ratings"])
    log = raw / "lake/ratings/_delta_log"
    rows = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    (add,), (about,) = ([row[kind] for row in rows if kind in row] for kind in ("add", "metaData"))
    gone = {"path": add["path"], "deletionTimestamp": 0, "dataChange": True}
    schema = json.loads(about["schemaString"])
    for number, field in enumerate(schema["fields"], 1):
        kept = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": field["name"]}
        field["metadata"] = kept
    mapping = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "9"}
    mapped = {"schemaString": json.dumps(schema), "configuration": {**about["configuration"], **mapping}}
    feature, commit, message = {
        "deleted": (
            "deletionVectors",
            [{"remove": gone}, {"add": {**add, "deletionVector": deletion_vector([1])}}],
            r"rows that are deleted but not yet gone .* \(deletion vectors\)",
        ),
        "renamed": ("columnMapping", [{"metaData": {**about, **mapped}}], "has renamed columns"),
        "unknown": ("futureFeature", [], "correct path or version|uses .*futureFeature"),
    }[change]
    features = {"readerFeatures": [feature], "writerFeatures": [feature]}
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, [protocol, *commit])))
    with pytest.raises(DataError, match=message):
        data_set(tmp_path, of_format("delta"), "out")
    data_set(tmp_path, of_format("delta", version=0), "older")


def deletion_vector(rows: list[int]) -> dict[str, Any]:
    """Deleted rows of a file, inline, as the protocol of Delta has it: a roaring bitmap in Z85."""
    from pyroaring import BitMap64

    data = struct.pack("<I", 1681511377) + BitMap64(rows).serialize()
    padded, text = data + bytes(-len(data) % 4), ""
    for at in range(0, len(padded), 4):
        number = int.from_bytes(padded[at : at + 4], "big")
        text += "".join(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "features.read.delta", raising=False)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    write_tables(tmp_path / "raw", rating_tables(30))
    with pytest.raises(ConfigError, match=r"requirements/lake\.txt"):
        data_set(tmp_path, of_format("delta"), "out")

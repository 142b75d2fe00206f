"""Data sets in an object store: prepared to it, read from it, never half of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.dataset import Dataset
from features.doctor import examine
from features.errors import ConfigError, DataError, RetryableError
from features.prepare import prepare
from features.remote import objects
from features.remote.url import Url
from features.spec import parse_spec
from features.store import remote_dataset
from tests.features.small_log import RATINGS_SPEC, rating_tables, write_tables
from tests.object_store import Bucket

SPEC = parse_spec(RATINGS_SPEC)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_tables(tmp_path / "raw", rating_tables(100))
    return tmp_path / "raw"


def test_the_same_data_set_here_and_there(tmp_path: Path, raw: Path, bucket: Bucket) -> None:
    out = f"{bucket.url}/sets/ratings"
    told: list[str] = []
    manifest = prepare(SPEC, Path(out), base=raw, progress=told.append)
    prepare(SPEC, tmp_path / "here", base=raw)
    here, there = Dataset(tmp_path / "here"), Dataset(out)
    assert there.manifest == here.manifest == manifest
    assert there.place == out and told[-1] == f"uploading to {out}"
    assert there.split("train").requests.equals(here.split("train").requests)
    assert examine(out) == examine(tmp_path / "here")
    names = {f"sets/ratings/{n}" for n in (*manifest.every_file(), "manifest.json")}
    assert set(bucket.listing("sets")) == names
    assert not [*(tmp_path / "cache/uploads").rglob("*.arrow")]


def test_a_reader_never_sees_half_of_one(
    tmp_path: Path, raw: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = Path(f"{bucket.url}/ratings"), []

    def watching(source: Path, url: Url) -> None:
        seen.append(url.name)
        with pytest.raises(RetryableError, match="is being uploaded, or its upload was interrupted"):
            Dataset(out)
        if len(seen) == 4:
            raise RetryableError("the network is gone")
        objects.store(source, url)

    monkeypatch.setattr(remote_dataset, "_AT_A_TIME", 1)
    monkeypatch.setattr(remote_dataset, "_put", lambda url, data: bucket.put(url.key, data))
    monkeypatch.setattr(remote_dataset, "store", watching)
    with pytest.raises(RetryableError, match="network is gone") as caught:
        prepare(SPEC, out, base=raw)
    assert "the data set is whole in" in caught.value.__notes__[0] and "manifest.json" not in seen
    monkeypatch.undo()


def test_a_data_set_is_replaced_only_on_demand(tmp_path: Path, raw: Path, bucket: Bucket) -> None:
    out = Path(f"{bucket.url}/ratings")
    prepare(SPEC, out, base=raw)
    with pytest.raises(DataError, match="already holds a dataset; choose another --out, or replace it with"):
        prepare(SPEC, out, base=raw)
    bucket.put("ratings/left-over", b"of an older one")
    write_tables(raw, rating_tables(80))
    manifest = prepare(SPEC, out, base=raw, overwrite=True)
    assert Dataset(out).manifest == manifest and "ratings/left-over" not in bucket.listing()
    bucket.put("mine/notes.txt", b"1")
    with pytest.raises(ConfigError, match="holds objects that are no data set, and is left alone"):
        prepare(SPEC, Path(f"{bucket.url}/mine"), base=raw, overwrite=True)


def test_damage_is_found(tmp_path: Path, raw: Path, bucket: Bucket) -> None:
    out = f"{bucket.url}/ratings"
    prepare(SPEC, Path(out), base=raw)
    whole = bucket.read("ratings/spec.yaml")
    bucket.put("ratings/spec.yaml", whole + b"#")
    with pytest.raises(DataError, match=r"spec\.yaml is not what the manifest says"):
        Dataset(out)
    bucket.delete("ratings/spec.yaml")
    with pytest.raises(DataError, match=r"spec\.yaml is listed in the manifest but missing"):
        Dataset(out)
    bucket.put("ratings/spec.yaml", whole)
    manifest = json.loads(bucket.read("ratings/manifest.json"))
    bucket.put("ratings/manifest.json", json.dumps({**manifest, "users": 3}).encode())
    with pytest.raises(DataError, match=f"{out}/manifest.json has changed since it was written"):
        Dataset(out)
    bucket.delete("ratings/manifest.json")
    with pytest.raises(DataError, match=rf"{out} must be a data set with a manifest.json; .* --out {out}"):
        Dataset(out)

"""Raw tables in an object store: the data set of the same files here, and errors that say what to do."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError, DataError, RetryableError
from features.partitions.workers import Resources
from features.prepare import prepare
from features.remote import cache, tables
from features.remote.objects import fetch
from features.remote.url import Url, remote
from features.spec import parse_spec
from tests.features.small_log import RATINGS_SPEC, changed, rating_tables, write_tables
from tests.object_store import Bucket, refusing_server


def written(out: Path) -> dict[str, bytes]:
    """The bytes of all files of a data set, but of the spec, which names the place of the log."""
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    return {
        name: path.read_bytes() for name, path in files.items() if name not in ("spec.yaml", "manifest.json")
    }


def far(spec: dict[str, Any], bucket: Bucket) -> dict[str, Any]:
    return changed(spec, source__path=f"{bucket.url}/raw")


def place(bucket: Bucket, key: str) -> Url:
    found = remote(f"{bucket.url}/{key}")
    assert found is not None
    return found


def test_a_remote_log_gives_the_bytes_of_the_same_log_here(tmp_path: Path, bucket: Bucket) -> None:
    write_tables(tmp_path / "raw", rating_tables(100))
    bucket.put_all(tmp_path / "raw", "raw")
    prepare(parse_spec(RATINGS_SPEC), tmp_path / "here", base=tmp_path / "raw")
    prepare(parse_spec(far(RATINGS_SPEC, bucket)), tmp_path / "far", base=tmp_path)
    assert written(tmp_path / "far") == written(tmp_path / "here")
    text = "".join(p.read_text() for p in tmp_path.glob("far/*.json"))
    assert "test-access-key" not in text and "test-secret-key" not in text


@pytest.mark.slow
def test_a_remote_log_in_partitions_by_two_workers(tmp_path: Path, bucket: Bucket) -> None:
    write_tables(tmp_path / "raw", rating_tables(100))
    bucket.put_all(tmp_path / "raw", "raw")
    prepare(parse_spec(RATINGS_SPEC), tmp_path / "here", base=tmp_path / "raw")
    resources = Resources(partitions=3, workers=2)
    prepare(parse_spec(far(RATINGS_SPEC, bucket)), tmp_path / "parts", base=tmp_path, resources=resources)
    assert written(tmp_path / "parts") == written(tmp_path / "here")


def test_globs_folders_and_texts(tmp_path: Path, bucket: Bucket) -> None:
    raw, ratings = tmp_path / "raw", rating_tables(100)
    write_tables(raw, ratings)
    for day, part in ((1, ratings["ratings"].head(40)), (2, ratings["ratings"].slice(40))):
        (raw / f"log/day={day}").mkdir(parents=True)
        part.write_csv(raw / f"log/day={day}/part-0.csv")
    (raw / "log/_SUCCESS").touch()
    bucket.put_all(raw, "raw")
    bucket.put("raw/other/unread.bin", b"not read")
    spec = changed(RATINGS_SPEC, source__tables__ratings={"path": "log/*/*.csv", "format": "csv"})
    prepare(parse_spec(spec), tmp_path / "here", base=raw)
    for name, path in {
        "source": "log/*/*.csv",
        "folder": "log",
        "url": f"{bucket.url}/raw/log/*/*.csv",
    }.items():
        own = changed(far(spec, bucket), source__tables__ratings__path=path)
        prepare(parse_spec(own), tmp_path / name, base=tmp_path)
        left_out = {"origin.arrow"} if name == "url" else set()  # its files are named from the bucket on
        here, found = written(tmp_path / "here"), written(tmp_path / name)
        assert {k for k in here if here[k] != found[k]} <= left_out
    assert not any("unread" in str(p) for p in (tmp_path / "cache").rglob("*"))


def test_a_copy_is_fetched_once_and_new_objects_alone(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def counting(url: Url, *args: Any, **options: Any) -> str:
        fetched.append(url.name)
        return fetch(url, *args, **options)

    monkeypatch.setattr(tables, "fetch", counting)
    bucket.put("raw/a", b"1")
    bucket.put("raw/b", b"2")

    def copy() -> Path:
        return tables.table_copy(place(bucket, "raw"), ".", lambda names: [*names.glob("*")], what="t")

    first = copy()
    assert copy() == first and sorted(fetched) == ["a", "b"]
    bucket.put("raw/c", b"3")
    assert {p.name: p.read_bytes() for p in copy().iterdir()} == {"a": b"1", "b": b"2", "c": b"3"}
    assert sorted(fetched) == ["a", "b", "c"]
    bucket.put("raw/a", b"4")
    assert (copy() / "a").read_bytes() == b"4" and (first / "a").read_bytes() == b"1"
    (copy() / "a").write_bytes(b"damaged")
    assert (copy() / "a").read_bytes() == b"4"


def test_an_object_that_changes_meanwhile_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("raw/a", b"1")
    with pytest.raises(RetryableError, match="written in between; run the same command again"):
        fetch(place(bucket, "raw/a"), tmp_path / "a", version="of yesterday")


def test_the_limit_of_the_cache(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        bucket.put(f"{name}/x", bytes(600))
    monkeypatch.setenv("CTR_CACHE_SIZE", "500B")

    def copy(key: str) -> Path:
        return tables.table_copy(place(bucket, key), ".", lambda names: [*names.glob("*")], what=key)

    with pytest.raises(ConfigError, match=r"takes 600 B .* raise CTR_CACHE_SIZE"):
        copy("a")
    monkeypatch.setenv("CTR_CACHE_SIZE", "1KB")
    first = copy("a")
    with pytest.raises(RetryableError, match="others use leave no room"):
        copy("b")  # this process uses the first
    cache._release(first.parent)  # as when its process has ended
    assert copy("b").is_dir() and not first.exists()


def test_what_is_not_there(tmp_path: Path, bucket: Bucket) -> None:
    spec = parse_spec(far(RATINGS_SPEC, bucket))
    with pytest.raises(
        DataError, match=f"nothing lies at {bucket.url}/raw/ratings.parquet; correct the path"
    ):
        prepare(spec, tmp_path / "out", base=tmp_path)
    bucket.put("raw/log/a.txt", b"1")
    spec = parse_spec(changed(far(RATINGS_SPEC, bucket), source__tables__ratings__path="log/*.csv"))
    with pytest.raises(DataError, match=rf"no file matches 'log/\*.csv' in {bucket.url}/raw; correct path"):
        prepare(spec, tmp_path / "out", base=tmp_path)
    spec = parse_spec(changed(RATINGS_SPEC, source__path="s3://no-such-bucket/raw"))
    with pytest.raises(ConfigError, match="the bucket 'no-such-bucket' must exist"):
        prepare(spec, tmp_path / "out", base=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_no_permission(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    with refusing_server(403, code) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(
            ConfigError, match=r"refuses it to these credentials .*; check which ones"
        ) as caught:
            prepare(parse_spec(far(RATINGS_SPEC, bucket)), tmp_path / "out", base=tmp_path)
    assert not any(os.environ[n] in str(caught.value) for n in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"))


@pytest.mark.slow
@pytest.mark.parametrize("down", ["network", "server"])
def test_what_passes_by_itself(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, down: str
) -> None:
    with socket.socket() as closed, refusing_server(503, "SlowDown") as busy:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}" if down == "network" else busy
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(
            RetryableError, match=r"cannot be reached .*; check network and endpoint"
        ) as caught:
            prepare(parse_spec(far(RATINGS_SPEC, bucket)), tmp_path / "out", base=tmp_path)
    assert caught.value.exit_code == 75

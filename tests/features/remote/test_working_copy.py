"""A folder of an object store that is worked in here: both sides may go on, none is lost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError, DataError, RetryableError
from features.remote import objects
from features.remote import working_copy as module
from features.remote.url import Url, remote
from features.remote.working_copy import here, working_copy
from tests.object_store import Bucket


def copy_of(bucket: Bucket) -> AbstractContextManager[Path]:
    return working_copy(url_of(bucket), ignored=frozenset({"lock"}), order=lambda name: (name == "z", name))


def url_of(bucket: Bucket) -> Url:
    found = remote(f"{bucket.url}/run")
    assert found is not None
    return found


def test_what_changes_goes_back(bucket: Bucket) -> None:
    for name in ("a", "b", "deep/c"):
        bucket.put(f"run/{name}", name.encode())
    with copy_of(bucket) as root:
        assert here(f"{bucket.url}/run") == root
        assert {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()} == {
            "a": b"a",
            "b": b"b",
            "c": b"deep/c",
        }
        (root / "a").write_bytes(b"new")
        (root / "deep/d").write_bytes(b"d")
        (root / "lock").touch()
        (root / ".tmp-x").touch()
        (root / "b").unlink()
    assert bucket.listing("run") == ["run/a", "run/deep/c", "run/deep/d"]
    assert bucket.read("run/a") == b"new" and bucket.read("run/deep/d") == b"d"
    bucket.put("run/deep/c", b"of another machine")
    bucket.delete("run/deep/d")
    with copy_of(bucket) as root:
        assert (root / "deep/c").read_bytes() == b"of another machine" and not (root / "deep/d").exists()
    with pytest.raises(ConfigError, match="must be on this machine here; copy it"):
        here(f"{bucket.url}/run")


def test_an_interrupted_fetch_goes_on(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        bucket.put(f"run/{name}", name.encode())
    seen: list[str] = []

    def failing(url: Url, target: Path, **options: Any) -> str:
        seen.append(url.name)
        if url.name == "b" and seen.count("b") == 1:
            target.write_bytes(b"half")
            raise RetryableError("the network is gone")
        return objects.fetch(url, target, **options)

    monkeypatch.setattr(module, "fetch", failing)
    monkeypatch.setattr(module, "_AT_A_TIME", 1)
    with pytest.raises(RetryableError, match="network is gone"), copy_of(bucket):
        pass
    with copy_of(bucket) as root:
        assert [(root / name).read_bytes() for name in "abc"] == [b"a", b"b", b"c"]
    assert seen.count("a") == 1 and bucket.listing("run") == ["run/a", "run/b", "run/c"]


def test_work_outlives_a_store_that_is_gone(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RetryableError("the store is gone")

    with monkeypatch.context() as broken, pytest.raises(RetryableError) as caught, copy_of(bucket) as root:
        (root / "a").write_bytes(b"work")
        broken.setattr(module, "store", gone)
    assert f"what was done is in {root}" in caught.value.__notes__[0] and bucket.listing("run") == []
    with copy_of(bucket):
        pass
    assert bucket.read("run/a") == b"work"


def test_both_sides_and_two_processes(bucket: Bucket) -> None:
    with copy_of(bucket) as root:
        (root / "a").write_bytes(b"1")
        with pytest.raises(RetryableError, match="is in use by another process here"), copy_of(bucket):
            pass
    (root / "a").write_bytes(b"here")
    bucket.put("run/a", b"there")
    with pytest.raises(DataError, match="run/a has changed there and in its working copy"), copy_of(bucket):
        pass
    assert (root / "a").read_bytes() == b"here" and bucket.read("run/a") == b"there"

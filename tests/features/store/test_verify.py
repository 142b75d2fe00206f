"""Every flipped bit of a data set is found where it is opened; what was verified is remembered."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.dataset import Dataset
from features.errors import DataError
from features.store import verify
from features.store.manifest import read_manifest
from tests.features.small_log import SHOP_SPEC, run, shop_tables


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("log")
    run(root, SHOP_SPEC, shop_tables())
    return root / "dataset"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a process that has verified nothing, with an empty cache that keeps small data sets too."""
    monkeypatch.setattr(verify, "_verified", set())
    monkeypatch.setattr(verify, "_WORTH", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "dataset"))


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed from now on."""
    seen: list[Path] = []
    real = verify.sha256_of

    def spy(path: Path) -> str:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(verify, "sha256_of", spy)
    return seen


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def flips(seed: int) -> Iterator[random.Random]:
    draw = random.Random(seed)
    yield from (random.Random(draw.random()) for _ in range(80))


@pytest.mark.fault(10, 40)
def test_80_flips_over_all_files_are_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, chaos_seed: int, counted: Callable[..., None]
) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for number, draw in enumerate(flips(seed=chaos_seed)):
        path = files[number % len(files)]
        whole = path.read_bytes()
        flip(path, draw)
        monkeypatch.setattr(verify, "_verified", set())
        with pytest.raises(
            DataError, match=r"has changed|not a manifest|listed in the manifest|must be a dataset"
        ):
            Dataset(root)
        path.write_bytes(whole)
    Dataset(root)
    counted(flips=80)


def test_a_series_of_processes_hashes_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = hashed(monkeypatch)
    Dataset(root)
    files = len(seen)
    assert files == len(read_manifest(root).every_file()) > 5
    Dataset(root)  # the same process
    monkeypatch.setattr(verify, "_verified", set())
    Dataset(root)  # another one
    assert len(seen) == files


@pytest.mark.fault(40)
def test_a_change_that_keeps_size_and_time_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dataset(root)
    path = root / "train" / "impressions.arrow"
    times = path.stat()
    flip(path, random.Random(1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr(verify, "_verified", set())
    with pytest.raises(DataError, match=r"impressions\.arrow has changed"):
        Dataset(root)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"train/requests.arrow": [[1], "a"]}', b"\xff" * 99]
)
def test_a_damaged_memory_costs_a_verification(
    root: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    Dataset(root)
    [kept] = [p for p in verify._memory_of(root.resolve()).parent.iterdir()]
    kept.write_bytes(content)
    seen = hashed(monkeypatch)
    monkeypatch.setattr(verify, "_verified", set())
    Dataset(root)
    assert seen


def test_what_others_may_write_is_not_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dataset(root)
    verify._memory_of(root.resolve()).chmod(0o666)
    seen = hashed(monkeypatch)
    monkeypatch.setattr(verify, "_verified", set())
    Dataset(root)
    assert seen


def test_without_a_place_to_remember_it_verifies_each_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nothing")
    for _ in range(2):
        monkeypatch.setattr(verify, "_verified", set())
        seen = hashed(monkeypatch)
        Dataset(root)
        assert len(seen) > 8


def test_it_can_be_switched_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "enabled", False)
    flip(root / "train" / "impressions.arrow", random.Random(2))
    Dataset(root)


def test_a_manifest_of_before_has_no_seal(root: Path) -> None:
    path = root / "manifest.json"
    digest = read_manifest(root).digest()
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"seal"' in line)
    path.write_text("\n".join([*lines[: at - 1], lines[at - 1].rstrip(","), *lines[at + 1 :]]))
    assert read_manifest(root).digest() == digest


def test_a_data_set_is_hashed_once_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, SHOP_SPEC, shop_tables())
    seen = hashed(monkeypatch)
    Dataset(tmp_path / "dataset")
    assert seen == []
    flip(tmp_path / "dataset" / "train" / "requests.arrow", random.Random(1))
    monkeypatch.setattr(verify, "_verified", set())
    with pytest.raises(DataError, match=r"requests\.arrow has changed since it was written"):
        Dataset(tmp_path / "dataset")

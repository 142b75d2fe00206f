from __future__ import annotations

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from features.download import ARCHIVES, Archive, download, unpack
from features.errors import ConfigError, DataError


def make_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zip that stands for the owner's, at a file:// address."""
    packed = make_zip(tmp_path / "tiny.zip", {"tiny/a.dat": "1::2", "tiny/sub/b.dat": "x"})
    md5 = hashlib.md5(packed.read_bytes()).hexdigest()
    monkeypatch.setitem(ARCHIVES, "tiny", Archive(packed.as_uri(), md5))
    return packed


def entries(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_fetches_checks_and_unpacks_without_the_top_folder(served: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "tiny"
    files = download("tiny", out)
    assert [path.relative_to(out).as_posix() for path in files] == ["a.dat", "sub/b.dat"]
    assert (out / "a.dat").read_text() == "1::2"
    assert entries(out.parent) == ["tiny", "tiny/a.dat", "tiny/sub", "tiny/sub/b.dat"]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ({"md5": "0" * 32}, "must have md5 0000"),
        ({"max_bytes": 10}, "must have at most 10 bytes"),
        ({"max_unpacked": 4}, "unpacked must have at most 0 bytes"),
        ({"url": "file:///nowhere/tiny.zip"}, "cannot be fetched"),
    ],
)
def test_a_wrong_archive_leaves_nothing(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: dict[str, object], message: str
) -> None:
    monkeypatch.setitem(ARCHIVES, "tiny", Archive(**{**vars(ARCHIVES["tiny"]), **archive}))
    with pytest.raises(DataError, match=message):
        download("tiny", tmp_path / "new" / "tiny")
    assert entries(tmp_path / "new") == []


def test_without_a_published_checksum_it_warns(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(ARCHIVES, "tiny", Archive(served.as_uri(), None))
    download("tiny", tmp_path / "out")
    assert "no checksum to compare" in caplog.text


def test_a_name_or_directory_that_will_not_do(served: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be one of .*got 'ml-2m'"):
        download("ml-2m", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="must not exist or be an empty directory"):
        download("tiny", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:evil"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    packed = make_zip(tmp_path / "evil.zip", {"a/fine": "", name: "x"})
    with pytest.raises(DataError, match="leads out of its directory"):
        unpack(packed, tmp_path / "out", max_bytes=100)
    assert not list(tmp_path.rglob("evil")) and not (tmp_path / "out").exists()


@pytest.mark.fault(34)
def test_links_and_damage_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="'link', which leads out"):
        unpack(tmp_path / "link.zip", tmp_path / "out", max_bytes=100)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match=r"text\.zip must be a zip file"):
        unpack(tmp_path / "text.zip", tmp_path / "out", max_bytes=100)


@pytest.mark.fault(32)
def test_a_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    packed = make_zip(tmp_path / "bomb.zip", {"zeros": "0" * 10_000_000})
    with pytest.raises(DataError, match="unpacked must have at most 1,000 bytes"):
        unpack(packed, tmp_path / "out", max_bytes=1000)
    assert (tmp_path / "out" / "zeros").stat().st_size <= 1000

"""Sources are compiled once, kept where nobody else writes, and missed without harm."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import native

ADD = 'extern "C" int add(int a, int b) { return a + b + EXTRA; }'

if shutil.which("g++") is None:
    pytest.skip("this machine has no GCC", allow_module_level=True)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CTR_NATIVE", raising=False)
    path = tmp_path / "add.cpp"
    path.write_text(ADD)
    for cached in (native.load, native._compiler):
        cached.cache_clear()
    yield path
    for cached in (native.load, native._compiler):
        cached.cache_clear()


def kept(source: Path) -> list[str]:
    return sorted(p.name for p in (source.parent / "cache" / "ctr-kernels").iterdir())


def test_compiled_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.load(source, EXTRA=1)
    assert library is not None and library.add(2, 3) == 6
    monkeypatch.setattr(native, "_run", lambda command: pytest.fail(f"compiled again: {command}"))
    native.load.cache_clear()  # as another process
    assert native.load(source, EXTRA=1) is not None
    assert len(kept(source)) == 1


def test_another_source_or_macro_is_another_library(source: Path) -> None:
    one, two = native.load(source, EXTRA=0), native.load(source, EXTRA=10)
    source.write_text(ADD.replace("a + b", "a - b"))
    native.load.cache_clear()
    three = native.load(source, EXTRA=0)
    assert one is not None and two is not None and three is not None
    assert (one.add(5, 3), two.add(5, 3), three.add(5, 3)) == (8, 18, 2)
    assert len(kept(source)) == 3


def test_what_does_not_compile_warns_and_leaves_nothing(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source.write_text("this is no C++")
    with caplog.at_level(logging.WARNING):
        assert native.load(source) is None and native.load(source) is None
    assert len(caplog.records) == 1 and "torch's own operators" in caplog.text
    assert kept(source) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("CTR_NATIVE", "0", []), ("CXX", "no-such-compiler", ["there is no no-such-compiler"])],
)
def test_switched_off_or_without_compiler(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
    says: list[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert native.load(source, EXTRA=0) is None and native.load(source, EXTRA=1) is None
    assert [r.getMessage().split(":")[0] for r in caplog.records] == says


def test_a_directory_that_others_may_write_to_is_refused(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = source.parent / "cache" / "ctr-kernels"
    place.mkdir(parents=True)
    place.chmod(0o777)
    assert native.load(source, EXTRA=0) is None
    assert "writable by no other" in caplog.text and kept(source) == []

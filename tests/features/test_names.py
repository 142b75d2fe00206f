from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError
from features.names import check_name, under


@pytest.mark.parametrize("name", ["a", "0", "ml-1m", "clicks.v2", "A_b.C-d", "x" * 128])
def test_good_names(name: str) -> None:
    assert check_name(name, "run") == name


BAD: list[Any] = [
    "",
    ".",
    "..",
    "../x",
    "/etc",
    "a/../../b",
    "a/b",
    "a\\b",
    "con\n",
    "\nrun",
    "-rf",
    "_a",
    ".hidden",
]
BAD += ["a b", "a\0b", "é", "a²", "x" * 129, None, 3, b"a", "C:x", "~root", "%2e%2e"]


@pytest.mark.fault(34)
@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^a run name must start with .*, got .*; rename it$"):
        check_name(name, "run")
    with pytest.raises(ConfigError):
        under("runs", name)


def test_long_names_are_shortened_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        check_name("x" * 10**6, "run")
    assert len(str(caught.value)) < 400


@pytest.mark.fault(34)
@given(st.lists(st.text(max_size=8), max_size=4))
def test_under_stays_under(parts: list[str]) -> None:
    try:
        path = under("root", *parts)
    except ConfigError:
        return
    assert path.resolve().is_relative_to(Path("root").resolve())


@pytest.mark.fault(34)
def test_symbolic_links_out_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (root / "real").mkdir(parents=True)
    (root / "inside").symlink_to(root / "real")
    (root / "outside").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    assert under(root, "inside", "x") == root / "inside" / "x"
    with pytest.raises(ConfigError, match=r"must stay under .* leads to .*; remove the link"):
        under(root, "outside", "x")
    with pytest.raises(ConfigError, match="symbolic links must lead somewhere"):
        under(root, "loop", "x")


def test_a_root_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    assert under(tmp_path / "runs", "demo") == tmp_path / "runs" / "demo"

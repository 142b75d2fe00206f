"""The lock files are whole: with `--no-deps`, what they do not name is not installed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Declared by torchrec for parts of it that are not used here (its metrics), or met by the other build.
NOT_NEEDED = {"torchmetrics", "fbgemm-gpu"}


def read_lock(path: Path) -> dict[str, Requirement]:
    """Read the pins of a lock file and of those it includes."""
    pins: dict[str, Requirement] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            pins |= read_lock(path.with_name(line[3:]))
        elif line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker and not pin.marker.evaluate():
                continue
            pins[canonicalize_name(pin.name)] = pin
    return pins


def needs(names: set[str]) -> set[str]:
    """Return what the installed distributions `names` and all that they need is called."""
    found: set[str] = set()
    todo = {(name, "") for name in names}
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        seen.add((name, extra))
        found.add(name)
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            needed = canonicalize_name(need.name)
            if needed in NOT_NEEDED or (need.marker and not need.marker.evaluate({"extra": extra})):
                continue
            todo |= {(needed, one) for one in ("", *need.extras)} - seen
    return found


@pytest.mark.parametrize("name", ["base", "cpu", "cuda", "dev", "lake", "remote"])
def test_every_line_is_an_exact_pin(repo_root: Path, name: str) -> None:
    for pin in read_lock(repo_root / "requirements" / f"{name}.txt").values():
        assert pin.url is None and re.fullmatch(r"==[0-9][^*+,]*", str(pin.specifier)), pin


def test_the_locks_name_all_that_is_needed(repo_root: Path) -> None:
    base = read_lock(repo_root / "requirements" / "base.txt")
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    direct = {canonicalize_name(name) for name in project["dependencies"]}
    assert direct <= set(base)
    assert needs(direct) - set(base) == set()
    tools = read_lock(repo_root / "requirements" / "dev.txt")
    assert needs(set(tools)) - set(tools) - set(base) == set()


def test_the_locks_name_all_that_torchrec_needs(repo_root: Path) -> None:
    pytest.importorskip("torchrec", reason="TorchRec is not installed: see requirements/base.txt")
    pins = read_lock(repo_root / "requirements" / "cpu.txt")
    assert needs({"torchrec", "fbgemm-gpu-cpu"}) - set(pins) == set()


@pytest.mark.parametrize(("lock", "library"), [("lake", "deltalake"), ("remote", "moto")])
def test_the_locks_name_all_that_stores_need(repo_root: Path, lock: str, library: str) -> None:
    pytest.importorskip(library, reason=f"not installed: see requirements/{lock}.txt")
    pins, base = (read_lock(repo_root / "requirements" / f"{name}.txt") for name in (lock, "base"))
    assert needs(set(pins)) - set(pins) - set(base) == set()
    assert not set(pins) & set(base)


def test_cuda_pins_what_cpu_pins(repo_root: Path) -> None:
    cpu, cuda = (read_lock(repo_root / "requirements" / f"{name}.txt") for name in ("cpu", "cuda"))
    assert set(cpu) - set(cuda) == {"fbgemm-gpu-cpu"}
    assert all(str(cuda[name]) == str(pin) for name, pin in cpu.items() if name in cuda)

"""Row 31: what a process may take, by its own limit, by its control groups, by what is free."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from features.errors import ConfigError
from features.memory.limit import MemoryLimit, _of_cgroups, memory_limit
from features.memory.sizes import parse_size, shown

GIB = 2**30
NAME = "limit of the control group"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4 GiB", 4 * GIB),
        ("512mb", 512 * 10**6),
        ("1.5g", 1_500_000_000),
        ("900B", 900),
        ("2Ki", 2048),
        ("1T", 10**12),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text, what="--memory") == size


@pytest.mark.parametrize(
    "text",
    ["", "4", "-4GB", "0GB", "4 gigs", "inf", "1e3GB", "4GBB", "iB", "\u0664GB", "0.1B", "9" * 5000 + "GB"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--memory must be a size with its unit, such as 4GB"):
        parse_size(text, what="--memory")


def test_shown_sizes_are_short() -> None:
    assert [shown(n) for n in (0, 1_234, 999_999, 3.2e15, 1.7e21)] == [
        "0 B", "1.23 KB", "1,000 KB", "3.2 PB", "1,700,000 PB",
    ]  # fmt: skip


def test_limit_is_what_leaves_least() -> None:
    machine = memory_limit()
    assert 0 < machine.left <= machine.total <= psutil.virtual_memory().total
    capped = memory_limit(machine.total // 4)
    assert capped.name == "--memory" and capped.left < capped.total == machine.total // 4
    assert memory_limit(2 * psutil.virtual_memory().total).left <= machine.left + GIB


def test_limit_of_the_address_space_is_seen() -> None:
    code = "from features.memory.limit import memory_limit as m; print(m().total, m().left, m().name)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB)),
    )  # fmt: skip
    total, left, name = done.stdout.split(maxsplit=2)
    assert int(total) == GIB and 0 < int(left) < GIB and "ulimit -v" in name


def cgroup(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def limits(tmp_path: Path, line: str) -> list[MemoryLimit]:
    (tmp_path / "membership").write_text(line)
    return list(_of_cgroups(tmp_path, tmp_path / "membership"))


def test_control_groups_of_both_versions_and_of_every_level(tmp_path: Path) -> None:
    """A job's own group may be without a limit that a group above it has."""
    stat = "anon 5\ninactive_file 1000\n"
    cgroup(tmp_path / "jobs", memory__max=2 * GIB, memory__current=GIB, memory__stat=stat)
    cgroup(tmp_path / "jobs/one", memory__max="max", memory__current=GIB)
    assert limits(tmp_path, "0::/jobs/one\n") == [MemoryLimit(2 * GIB, GIB + 1000, NAME)]
    old = tmp_path / "memory"
    cgroup(old, memory__limit_in_bytes=9223372036854771712)
    cgroup(old / "job", memory__limit_in_bytes=GIB, memory__usage_in_bytes=2 * GIB)
    assert limits(tmp_path, "7:cpu:/x\n4:memory:/job\n") == [MemoryLimit(GIB, 0, NAME)]
    # Inside a container the group's own name may not be there: its files then lie at the root.
    cgroup(old, memory__limit_in_bytes=3 * GIB)
    assert limits(tmp_path, "4:memory:/docker/abc\n") == [MemoryLimit(3 * GIB, 3 * GIB, NAME)]
    assert limits(tmp_path, "4:memory:/../../..\n") == []
    assert list(_of_cgroups(tmp_path, tmp_path / "missing")) == []

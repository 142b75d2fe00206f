"""How much memory this process may still take: its own limit, that of its control group, what is free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from features.memory.sizes import shown

_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # bytes: version 1 of control groups writes a number above this where there is no limit


@dataclass(frozen=True)
class MemoryLimit:
    """A limit of this process's memory.

    Attributes:
        total: bytes that it may hold altogether.
        left: bytes of these that it may still take.
        name: where the limit comes from, for messages.
    """

    total: int
    left: int
    name: str

    def __str__(self) -> str:
        return f"{shown(self.left)} ({self.name})"


def memory_limit(cap: int | None = None) -> MemoryLimit:
    """The tightest limit: the one that leaves least.

    Args:
        cap: bytes that the user allows the whole process (`--memory`); None: as much as there is.

    Example:
        >>> memory_limit(2**20).total <= 2**20
        True
    """
    limits = [*process_limits(), _of_machine()]
    if cap is not None:
        limits.append(MemoryLimit(cap, max(0, cap - psutil.Process().memory_info().rss), "--memory"))
    return min(limits, key=lambda limit: limit.left)


def process_limits() -> list[MemoryLimit]:
    """What this process was given, less than the machine has: by `ulimit`, by its control groups."""
    return [*_of_ulimit(), *_of_cgroups(_CGROUPS, Path("/proc/self/cgroup"))]


def limit_reached() -> bool:
    """Whether the address space of this process was once nearly as large as it may be."""
    used = Path("/proc/self/status")
    peak = re.search(r"^VmPeak:\s+(\d+) kB", used.read_text(), re.MULTILINE) if used.is_file() else None
    return peak is not None and any(int(peak[1]) * 1024 > 0.9 * limit.total for limit in _of_ulimit())


def _of_machine() -> MemoryLimit:
    memory = psutil.virtual_memory()
    return MemoryLimit(memory.total, memory.available, "free on this machine")


def _of_ulimit() -> Iterator[MemoryLimit]:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        used = psutil.Process().memory_info().vms
        yield MemoryLimit(soft, max(0, soft - used), "limit of the address space, ulimit -v")


def _of_cgroups(mount: Path, membership: Path) -> Iterator[MemoryLimit]:
    """The limits of the groups that this process is in and of those above them, of either version."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if number == "0" and not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _of_tree(mount, inside, *names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _of_tree(mount / "memory", inside, *names)


def _of_tree(root: Path, inside: str, limit: str, usage: str, cache: str) -> Iterator[MemoryLimit]:
    """The groups on the way up; inside a container its own group may be the root, whatever it is called."""
    group = Path(os.path.normpath(root / inside.lstrip("/")))
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        total = _number(folder / limit)
        if total is None or total >= _NO_LIMIT:
            continue
        used = (_number(folder / usage) or 0) - _of_file_cache(folder / "memory.stat", cache)
        yield MemoryLimit(total, max(0, total - max(0, used)), "limit of the control group")


def _number(path: Path) -> int | None:
    """What a file of one number holds; None for the word `max`, or where there is no such file."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _of_file_cache(path: Path, name: str) -> int:
    """Bytes of a group that the kernel gives back when they are needed."""
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0

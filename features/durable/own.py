"""Directories that this product made: only in these it replaces or removes files.

A marker file says so. Without it a directory of the same name may be anybody's: it is named and left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from features.durable import TMP_PREFIX, replace_file
from features.errors import ConfigError

MARKER = ".ctr-made.json"
FORMAT = 1
_MOST = 4096  # bytes that are read of a marker


def claim(directory: Path, what: str, *, known: Callable[[Path], bool] = lambda path: False) -> None:
    """Make a directory for `what`, or take one that was made for it before.

    Args:
        directory: to be written to.
        what: kind of content, such as `run`.
        known: whether a directory without marker is one of an earlier version; it gets its marker then.

    Raises:
        ConfigError: files are there that were not made for it; nothing was touched.
    """
    if is_own(directory, what):
        return
    if is_own(directory.parent):  # what lies in a directory of ours needs no marker of its own
        directory.mkdir(exist_ok=True)
        return
    check_free(directory, what, known=known)
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(directory / MARKER, json.dumps({"made_by": "ctr", "what": what, "format": FORMAT}).encode())


def check_free(directory: Path, what: str, *, known: Callable[[Path], bool] = lambda path: False) -> None:
    """Refuse a directory that holds what was not made for `what`; see `claim`."""
    if is_own(directory, what) or (not directory.exists() and not directory.is_symlink()):
        return
    if not directory.is_dir():
        raise ConfigError(f"{directory} must be a directory, but a file is there; choose another place")
    unfinished = f"{TMP_PREFIX}{MARKER}"  # of a job that was killed at its first moment
    found = sorted(path.name for path in directory.iterdir() if path.name != unfinished)
    if found and not known(directory):
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise ConfigError(
            f"{directory} must be new, empty, or a {what} that ctr made, but holds {shown}; nothing there "
            "was touched: choose another place, or move these files away"
        )


def is_own(directory: Path, what: str | None = None) -> bool:
    """Whether the marker says that the directory was made for `what`, in a format that this version knows.

    Args:
        directory: which may be missing.
        what: kind of content; None for any.

    Raises:
        ConfigError: it was made in another format.
    """
    marker = directory / MARKER
    try:
        if marker.is_symlink() or marker.stat().st_size > _MOST:
            return False
        found = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    made = isinstance(found, dict) and found.get("made_by") == "ctr" and what in (None, found.get("what"))
    if made and found.get("format") != FORMAT:
        raise ConfigError(
            f"{directory} must be of format {FORMAT}, but its {MARKER} says "
            f"{found.get('format')!r:.40}; use the version of ctr that made it, or choose another place"
        )
    return made


def holds(*names: str) -> Callable[[Path], bool]:
    """For `known`: whether all these files are there."""
    return lambda path: all((path / name).is_file() for name in names)

"""A directory that is whole or absent: filled beside its place, on the disk, and then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from features.durable import WRONG_PLACE, exchange, fsync_path, rename
from features.errors import ConfigError


@contextmanager
def new_directory(out: Path, *, point: str) -> Iterator[Path]:
    """A directory that takes the place of `out` when the block ends, or vanishes if it raises.

    What is in `out` goes when the new directory is there; whether it may is for the caller to say. The two
    change places at one moment; where the file system cannot do that, the old one is put aside first, and
    taken back by the next call if the job is killed just then. Directories that killed processes left here
    are removed.

    Args:
        out: where the directory is to be.
        point: of `rename`; with ``.exchange``, ``.aside`` and ``.back`` where there is an old directory.

    Raises:
        ConfigError: nothing can be there, such as below a file.
        OSError: the disk is full, read-only, or fails.
    """
    out = out.absolute()
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        partial.mkdir()
    except OSError as error:
        if error.errno in WRONG_PLACE:
            raise ConfigError(f"{out} cannot be written: {error.strerror}; choose another --out") from None
        raise
    try:
        yield partial
        _fsync_tree(partial)
        _replace(partial, out, point)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_absent(out: Path) -> None:
    """Check that a directory can be made without removing anything.

    Raises:
        ConfigError: there is something else than an empty directory.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(f"{out} must not exist or be an empty directory; choose another --out or remove it")


def _fsync_tree(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        fsync_path(path)
    fsync_path(root)


def _replace(partial: Path, out: Path, point: str) -> None:
    """Put the finished directory in its place; the old one goes only when the new one is there."""
    old = out.parent / f".{out.name}.partial-{os.getpid()}-old"
    if out.exists() and any(out.iterdir()):
        if exchange(partial, out, point=f"{point}.exchange"):
            return
        rename(out, old, point=f"{point}.aside")
    try:
        rename(partial, out, point=point)
    except BaseException:
        if old.exists() and not out.exists():
            rename(old, out, point=f"{point}.back")
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove what processes that were killed left behind; an old directory that they put aside comes back."""
    for path in sorted(out.parent.glob(f".{out.name}.partial-*")):
        pid, _, kind = path.name.rpartition("partial-")[2].partition("-")
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            if kind == "old" and not out.exists():
                rename(path, out, point="partial.back")
            else:
                shutil.rmtree(path, ignore_errors=True)

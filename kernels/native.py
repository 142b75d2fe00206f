"""C++ sources of this package, compiled by the machine's own compiler at their first use, and cached.

    source, headers, flags, compiler, processor ─► SHA-256 ─► <cache>/<name>-<digest>.so ─► ctypes

The cache is `ctr-kernels` below `XDG_CACHE_HOME` (`~/.cache` unless set); nobody else may write to it.
Without a compiler, when it fails, and with the environment variable CTR_NATIVE=0 there is no library, and
callers use torch's own operators. `CXX` names another compiler; it must be GCC.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_LOG = logging.getLogger(__name__)
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-std=c++17")
_HEADERS = Path(__file__).parent
_SECONDS = 300  # after which a compiler run has failed


@cache
def load(source: Path, **macros: int) -> ctypes.CDLL | None:
    """The library made of `source` with these macros defined; None where it cannot be made here.

    Its functions run without the interpreter's lock; threads they ask for are those of torch's OpenMP.
    """
    compiler = None if os.environ.get("CTR_NATIVE") == "0" else _compiler()
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler, source, macros)))
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning(
            "%s could not be compiled for this machine, torch's own operators stand in for it: %s",
            source.name,
            error,
        )
        return None


@cache
def _compiler() -> str | None:
    """The path of GCC; without it, a warning once."""
    name = os.environ.get("CXX", "g++")
    if (found := shutil.which(name)) is None:
        _LOG.warning("there is no %s: torch's operators stand in for compiled ones, slower", name)
    return found


def _built(compiler: str, source: Path, macros: Mapping[str, int]) -> Path:
    """The compiled library, from the cache if it is there."""
    command = [compiler, *_FLAGS, *(f"-D{name}={value}" for name, value in sorted(macros.items()))]
    if _torch_has_openmp():
        command.append("-fopenmp")
    folder = _cache()
    target = folder / f"{source.stem}-{_digest(command, source)}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made, library = Path(temporary) / "made.o", Path(temporary) / "made.so"
            _run([*command, f"-I{_HEADERS}", "-c", str(source), "-o", str(made)])
            # Without -fopenmp here, the library uses the threads of the OpenMP that torch has loaded.
            _run([compiler, "-shared", str(made), "-o", str(library)])
            library.replace(target)  # atomic: another process may compile the same
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise OSError(f"{command[0]} gave {done.returncode}: {done.stderr.strip()[-500:]}")


def _torch_has_openmp() -> bool:
    """Whether torch has loaded GCC's OpenMP functions where other libraries find them."""
    import torch  # noqa: F401  (loads them)

    return hasattr(ctypes.CDLL(None), "GOMP_parallel")


def _cache() -> Path:
    """The directory of the libraries, which only this user may write to.

    Raises:
        OSError: it cannot be made, or others may write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "ctr-kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} must belong to this user and be writable by no other; remove it")
    return folder


def _digest(command: list[str], source: Path) -> str:
    version = subprocess.run([command[0], "--version"], capture_output=True, timeout=_SECONDS).stdout
    whole = hashlib.sha256(source.read_bytes() + version + _processor().encode())
    for header in sorted({*_HEADERS.glob("*.h"), *source.parent.glob("*.h")}):
        whole.update(header.read_bytes())
    whole.update("\0".join(command).encode())
    return whole.hexdigest()[:24]


def _processor() -> str:
    """The facts of this processor that `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

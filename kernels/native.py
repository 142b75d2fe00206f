"""C++ sources of this package, compiled at their first use by the machine's own compiler, and kept.

    source, headers, flags, compiler, processor ─► SHA-256 ─► <cache>/<digest>.so  made once, loaded by ctypes

The cache is `ctr-kernels` below `XDG_CACHE_HOME` (`~/.cache` unless set); nobody else may write to it. Where
there is no compiler, or it fails, there is no library: callers then take torch's own operators. The same if
the environment variable CTR_NATIVE is 0. `CXX` names another compiler; it must be GCC.
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
_SECONDS = 300  # after which a compiler is given up


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
    """Where GCC is; says once what is missed without it."""
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
            # Without -fopenmp: the threads are to be those of the library that torch has loaded, not others.
            _run([compiler, "-shared", str(made), "-o", str(library)])
            library.replace(target)  # all at once: another process may be at the same
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise OSError(f"{command[0]} gave {done.returncode}: {done.stderr.strip()[-500:]}")


def _torch_has_openmp() -> bool:
    """Whether GCC's OpenMP functions are loaded already, for all to see."""
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
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))

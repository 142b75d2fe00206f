"""The versions this code is made for, checked before the heavy imports, whose own failures are obscure."""

from __future__ import annotations

import os
from importlib import metadata

from features.errors import ConfigError

TORCH = "2.13.0"
TORCHREC = "1.8.0"
FBGEMM = "1.8.0"

# Two builds of one module: for the CPU, and for CUDA.
_FBGEMM_BUILDS = ("fbgemm-gpu-cpu", "fbgemm-gpu")
_ANY = "CTR_ANY_VERSIONS"


def check_versions() -> None:
    """Check that torch, torchrec and fbgemm are the triplet the lock files pin, or that only torch is there.

    Reads the installed distributions' metadata and imports nothing. Nothing is checked where the
    environment variable CTR_ANY_VERSIONS is 1, at the user's own risk.

    Raises:
        ConfigError: names every mismatch, and the command that mends them.
    """
    if os.environ.get(_ANY) == "1":
        return
    problems = [*_wrong_versions(), *_clashes()]
    if problems:
        lock = "cuda.txt" if _version("fbgemm-gpu") else "cpu.txt" if _version("torchrec") else "base.txt"
        raise ConfigError(
            f"the installed packages do not fit together: {'; '.join(problems)}. Mend it with "
            f"`make clean env`, or `python -m pip install --no-deps -r requirements/{lock}`; "
            f"{_ANY}=1 skips this check"
        )


def fbgemm_available() -> bool:
    """Return whether the TorchRec/FBGEMM embedding engine is installed; without it there is plain torch."""
    return _version("torchrec") is not None and any(_version(name) for name in _FBGEMM_BUILDS)


def _wrong_versions() -> list[str]:
    wanted = {"torch": TORCH}
    builds = [name for name in _FBGEMM_BUILDS if _version(name)]
    # One without the other cannot be imported, so either asks for both.
    if builds or _version("torchrec"):
        wanted["torchrec"] = TORCHREC
        wanted |= {name: FBGEMM for name in builds or ["fbgemm-gpu-cpu"]}
    problems = []
    for name, version in wanted.items():
        got = _version(name)
        if got != version:
            problems.append(f"{name} must be {version}, got {got or 'none'}")
    return problems


def _clashes() -> list[str]:
    problems = []
    if all(_version(name) for name in _FBGEMM_BUILDS):
        problems.append("fbgemm-gpu-cpu and fbgemm-gpu install the same module; uninstall one of them")
    # transformers imports a module `kernels` wherever a distribution of that name is installed: ours would
    # be taken for it, or it for ours.
    if _version("kernels"):
        problems.append(
            "the distribution 'kernels' clashes with this project's; `python -m pip uninstall kernels`"
        )
    return problems


def _version(name: str) -> str | None:
    """Return the installed version without its build label (2.13.0+cpu → 2.13.0), or None."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None

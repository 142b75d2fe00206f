from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ctr.library.architectures import TRANSFORMERS
from ctr.runs import versions
from ctr.runs.versions import check_versions, fbgemm_available
from features.errors import ConfigError

CPU = {"torch": "2.13.0+cpu", "torchrec": "1.8.0", "fbgemm-gpu-cpu": "1.8.0"}
CUDA = {"torch": "2.13.0", "torchrec": "1.8.0", "fbgemm-gpu": "1.8.0"}
PLAIN = {"torch": "2.13.0"}


def install(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.delenv("CTR_ANY_VERSIONS", raising=False)
    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(("installed", "engine"), [(CPU, True), (CUDA, True), (PLAIN, False)])
def test_the_three_locks_pass(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], engine: bool
) -> None:
    install(monkeypatch, installed)
    check_versions()
    assert fbgemm_available() is engine


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        (CPU | {"torch": "2.12.1+cpu"}, "torch must be 2.13.0, got 2.12.1. .*requirements/cpu.txt"),
        (CPU | {"torchrec": "1.7.0"}, "torchrec must be 1.8.0, got 1.7.0"),
        (CUDA | {"fbgemm-gpu": "1.7.0"}, "fbgemm-gpu must be 1.8.0, got 1.7.0.*requirements/cuda.txt"),
        (PLAIN | {"torchrec": "1.8.0"}, "fbgemm-gpu-cpu must be 1.8.0, got none"),
        (PLAIN | {"fbgemm-gpu-cpu": "1.8.0"}, "torchrec must be 1.8.0, got none"),
        (CPU | CUDA, "install the same module; uninstall one"),
        (PLAIN | {"kernels": "0.1"}, "distribution 'kernels' .*pip uninstall kernels"),
        ({"torch": "2.0.0"}, "torch must be 2.13.0, got 2.0.0.*requirements/base.txt"),
        ({}, "torch must be 2.13.0, got none"),
    ],
)
def test_a_mismatch_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], message: str
) -> None:
    install(monkeypatch, installed)
    with pytest.raises(ConfigError, match=f"do not fit together: .*{message}") as caught:
        check_versions()
    assert "make clean env" in str(caught.value)
    monkeypatch.setenv("CTR_ANY_VERSIONS", "1")
    check_versions()


def test_this_environment_passes_without_heavy_imports(repo_root: Path) -> None:
    code = (
        "import sys; from ctr.runs.versions import check_versions, fbgemm_available as f; "
        "check_versions(); f();"
        "print([name for name in ('torch', 'torchrec', 'fbgemm_gpu', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_locks_hold_the_same_versions(repo_root: Path) -> None:
    text = "".join(path.read_text() for path in sorted((repo_root / "requirements").glob("*.txt")))
    wanted = {"torch": versions.TORCH, "torchrec": versions.TORCHREC}
    wanted |= {"fbgemm-gpu": versions.FBGEMM, "fbgemm-gpu-cpu": versions.FBGEMM}
    wanted |= {"transformers": TRANSFORMERS}
    for name, version in wanted.items():
        assert re.findall(rf"^{name}==(.*)$", text, re.MULTILINE) == [version]

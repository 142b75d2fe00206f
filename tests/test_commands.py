"""`make env` and `.ci/run`, with stand-ins for what takes minutes: Python's venv and pip, and make."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Stands for python3 and, once "venv" has copied it, for .venv/bin/python; writes down how it is called.
PYTHON = """#!/bin/sh
echo "$*" >> calls
case "$*" in
    *version_info*) [ ! -e old ] ;;
    --version) echo "Python 3.9.2" ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"-r requirements"*) [ ! -e no-index ] ;;
    *"import torch") [ ! -e cuda-build ] ;;
esac
"""
MORE = " ".join(f"-r requirements/{name}.txt" for name in ("transformers", "lake", "remote", "dev"))
MAKE = """#!/bin/sh
case "$*" in
    *" check") echo "5 passed"; exit ${CHECK:-0} ;;
    test-all)
        echo "noise: 7 failed"
        echo "=== ${TEST:-40 passed, 1 skipped, 3 deselected in 61.50s (0:01:01)} ==="
        exit ${RC:-0} ;;
esac
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path: Path, repo_root: Path) -> Path:
    """A clone under a path with spaces, without the code."""
    root = tmp_path / "my projects" / "ctr clone"
    root.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(repo_root / name, root)
    for name in ("requirements", ".ci"):
        shutil.copytree(repo_root / name, root / name)
    script(root / "bin" / "python", PYTHON)
    return root


def make_env(clone: Path, *options: str) -> tuple[int, str, list[str]]:
    """Run `make env`; return its exit code, what it printed and the calls of Python."""
    (clone / "calls").write_text("")
    command = ["make", "env", f"PYTHON={clone / 'bin' / 'python'}", *options]
    # A make above this one (make test) must not pass its options down.
    env = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "LOCK")
    }
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, env=env)
    return done.returncode, done.stdout + done.stderr, (clone / "calls").read_text().splitlines()


def installs(calls: list[str]) -> list[str]:
    return [call.partition("--no-deps ")[2] for call in calls if " install " in call]


def test_env_is_made_once_and_remembers_its_lock(clone: Path) -> None:
    code, text, calls = make_env(clone, "LOCK=base")
    assert code == 0, text
    assert installs(calls) == [
        f"-r requirements/base.txt {MORE}",
        "--no-build-isolation --editable .",
    ]
    assert make_env(clone) == (0, "env: .venv holds requirements/base.txt\n", [])
    _, _, calls = make_env(clone, "LOCK=cuda")
    assert installs(calls)[0] == f"-r requirements/cuda.txt {MORE}"
    assert make_env(clone)[2] == []


def test_env_follows_the_lock_files(clone: Path) -> None:
    make_env(clone, "LOCK=cpu")
    later = (clone / ".venv" / "stamp-cpu").stat().st_mtime + 10
    os.utime(clone / "requirements" / "torchrec.txt", (later, later))
    _, _, calls = make_env(clone)
    assert installs(calls)[0] == f"-r requirements/cpu.txt {MORE}"


def test_env_completes_a_cuda_build_of_torch(clone: Path) -> None:
    (clone / "cuda-build").touch()
    _, text, calls = make_env(clone, "LOCK=cpu")
    assert "adding its libraries" in text
    assert installs(calls)[1] == "-r requirements/torch-cuda.txt"


def test_a_failed_install_is_tried_again(clone: Path) -> None:
    (clone / "no-index").touch()
    assert make_env(clone, "LOCK=cpu")[0] != 0
    (clone / "no-index").unlink()
    code, _, calls = make_env(clone, "LOCK=cpu")
    assert code == 0
    assert len(installs(calls)) == 2


def test_an_old_python_is_refused(clone: Path) -> None:
    (clone / "old").touch()
    code, text, calls = make_env(clone)
    assert code != 0
    assert "needs Python 3.11 or newer, got" in text
    assert "(Python 3.9.2); name another: make PYTHON=python3.12" in text
    assert not (clone / ".venv").exists()
    assert installs(calls) == []


@pytest.mark.parametrize(
    ("settings", "code", "last"),
    [
        ({}, 0, "40 passed, 0 failed, 1 skipped"),
        ({"TEST": "40 passed in 2.50s"}, 0, "40 passed, 0 failed"),
        ({"TEST": "1 failed, 39 passed, 2 errors in 2.50s", "RC": "2"}, 1, "39 passed, 3 failed"),
        ({"TEST": "no tests ran in 2.50s", "RC": "5"}, 1, "0 passed, 0 failed"),
        ({"CHECK": "2"}, 1, "40 passed, 0 failed, 1 skipped"),
        ({"RC": "2"}, 1, "40 passed, 0 failed, 1 skipped"),
    ],
)
def test_ci_ends_with_the_count(clone: Path, settings: dict[str, str], code: int, last: str) -> None:
    folder = script(clone / "bin" / "make", MAKE).parent
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | settings
    done = subprocess.run([clone / ".ci" / "run"], cwd="/", capture_output=True, text=True, env=env)
    assert done.stdout.splitlines()[-1] == last
    assert done.returncode == code

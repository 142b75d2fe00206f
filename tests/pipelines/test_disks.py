"""Disks that are full or read-only: one exit code for all commands, a sentence, and nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main


def may_mount() -> bool:
    """Whether this user can mount something in a namespace of its own."""
    try:
        return subprocess.run(["unshare", "-rm", "mount", "--help"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every command did on every disk."""
    if not may_mount():
        pytest.skip("mounting needs user namespaces, or root")
    folder = tmp_path_factory.mktemp("disks")
    command = ["unshare", "-rm", sys.executable, "-m", "tests.pipelines.small_disks", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.fault(25, 26)
@pytest.mark.parametrize(
    ("disk", "words"), [("read-only", "Read-only file system"), ("full", "No space left")]
)
def test_every_command_ends_with_75_and_leaves_no_torso(
    disk: str, words: str, attacked: list[dict[str, Any]]
) -> None:
    found = [line for line in attacked if line["disk"] == disk]
    assert len(found) >= 10
    for line in found:
        assert (line["code"], line["torsos"]) == (75, []), line
        told = words in line["said"] or "only a part of the row" in line["said"]  # as a file system fills up
        assert "error: " in line["said"] and told and "Traceback" not in line["said"], line


def test_a_place_below_a_file_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    below = str(tmp_path / "file" / "x")
    for command in (["simulate", "--out", below], ["demo", "--data", below, "--run", below]):
        capsys.readouterr()
        assert main(command) == 2, command
        assert capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == ["file"]

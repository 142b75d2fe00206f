"""docs/own-data.md: its files are saved and its commands run as shown, and print what the page shows."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.documents import Command, first_missing, saved_files, shown_commands


def run(line: str, folder: Path, repo_root: Path) -> tuple[int, str]:
    """Exit code and everything printed; `ctr` runs in this process unless its environment is set."""
    name, *arguments = shlex.split(line)
    if name == "ctr":
        text = io.StringIO()
        with redirect_stdout(text), redirect_stderr(text):
            return main(arguments), text.getvalue()
    python = shlex.quote(sys.executable)
    line = line.replace("python ", f"{python} ", 1).replace("ctr ", f"{python} -m pipelines.cli ", 1)
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    done = subprocess.run(line, shell=True, cwd=folder, env=env, text=True, capture_output=True)
    return done.returncode % 256, done.stdout + done.stderr


def check(command: Command, folder: Path, repo_root: Path) -> None:
    code, text = run(command.line, folder, repo_root)
    killed = command.exit_code == 137 and code == 247  # a shell may become the command that is killed: -9
    assert code == command.exit_code or killed, f"$ {command.line}\n{text}"
    missing = first_missing(command.output, text)
    assert missing is None, f"$ {command.line}\nmust print: {missing}\nprinted:\n{text}"


@pytest.fixture
def page(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page, with its files saved in the working directory."""
    monkeypatch.chdir(tmp_path)
    page = repo_root / "docs" / "own-data.md"
    for name, content in saved_files(page).items():
        Path(name).write_text(content, encoding="utf-8")
    return page


def test_logs_become_a_dataset_as_shown(page: Path, tmp_path: Path, repo_root: Path) -> None:
    commands = [
        c for c in shown_commands(page) if c.line.startswith(("python", "sed", "ctr prepare", "ctr doctor"))
    ]
    assert len(commands) >= 10
    for command in commands:
        check(command, tmp_path, repo_root)
    assert [p.name for p in Path("data").iterdir()] == ["news"]  # the wrong specs left nothing


@pytest.mark.slow
def test_the_whole_page_runs_as_written(page: Path, tmp_path: Path, repo_root: Path) -> None:
    for command in shown_commands(page):
        check(command, tmp_path, repo_root)
    assert Path("runs/mlflow.db").is_file()
    scoring = repo_root / "docs" / "scoring.md"  # goes on where this page ends
    for name, content in saved_files(scoring).items():
        Path(name).write_text(content, encoding="utf-8")
    for command in shown_commands(scoring):
        check(command, tmp_path, repo_root)
    assert Path("scores.parquet").is_file()


def test_the_specs_of_the_page_are_saved(page: Path) -> None:
    assert sorted(saved_files(page)) == ["make_logs.py", "news.yaml", "run.yaml"]

"""docs/own-data.md: its files are saved and its commands run as shown, and print what the page shows."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import polars as pl
import pytest

from features.prepare import prepare
from features.safe_yaml import parse_yaml
from features.spec import parse_spec
from pipelines.cli import main
from tests.documents import Command, fenced, first_missing, saved_files, shown_commands
from tests.features.list_log import SPEC, random_lines, write_log


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


def test_the_domain_of_lists_prepares(page: Path, tmp_path: Path) -> None:
    """The example has the names of the page's articles; the log of the tests calls them news."""
    (example,) = [
        block for block in fenced(page, "yaml") if "from_list" in block and "impressions" not in block
    ]
    lines = [one | {"history": " ".join(one["history"] or [])} for one in random_lines(4)]
    write_log(tmp_path, lines)
    new = {"news": "article", "topic": "section"}
    for table in ("shown", "news"):
        path = tmp_path / f"{table}.parquet"
        pl.read_parquet(path).rename(new, strict=False).write_parquet(path)
    text = (
        json.dumps(
            SPEC
            | {"matches": {}, "features": {"news": SPEC["features"]["news"]}, "tokens": {"all": ["news"]}}
        )
        .replace('"news"', '"article"')
        .replace("topic", "section")
    )
    spec = json.loads(text) | parse_yaml(example, "example")
    spec["source"] = {"tables": {"shown": {"path": "shown.parquet"}, "article": {"path": "news.parquet"}}}
    manifest = prepare(parse_spec(spec), tmp_path / "out", base=tmp_path)
    assert manifest.domains["read"].events > 0 and not manifest.domains["read"].timed

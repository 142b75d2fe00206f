"""docs/comparing.md: its commands run as shown and print what the page shows; further options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.documents import saved_files, shown_commands
from tests.pipelines.test_own_data import check


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """The page's files, and what its script writes."""
    folder = tmp_path_factory.mktemp("page")
    page = repo_root / "docs" / "comparing.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, content in saved_files(page).items():
            Path(name).write_text(content, encoding="utf-8")
        commands = shown_commands(page)
        assert len(commands) == 5
        for command in commands:
            check(command, folder, repo_root)
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_the_page_and_the_files_it_writes(inside: Path) -> None:
    found = json.loads((inside / "comparison" / "comparison.json").read_text())
    assert found["base"] == "base-1" and found["alpha"] == 0.05
    verdicts = {(j["metric"], j["variant"]): j["verdict"] for j in found["judgements"]}
    assert verdicts["auc", "better-1"] == "helps" and verdicts["auc", "same-1"] == "no evidence"
    page = (inside / "comparison" / "comparison.md").read_text()
    assert page.startswith("# Beside base-1\n") and page.count("\n| ") == 7


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either the run directory to evaluate or --compare"),
        (["runs/a", "--compare", "base-1.csv", "same-1.csv"], 2, "give either the run directory"),
        (["--compare", "base-1.csv"], 2, "must name a base and at least one variant"),
        (["--compare", "base-1.csv", "base-1.csv"], 2, "must have different names, got base-1 2 times"),
        (["--compare", "base-1.csv,base-2.csv", "same-1.csv"], 2, "as many trainings as the base"),
        (["--compare", "base-1.csv", "same-1.csv", "--where", "age"], 2, "--where must be slice=value"),
        (["--compare", "base-1.csv", "same-1.csv", "--where", "age=1"], 3, "must be among [], got 'age'"),
        (["--compare", "base-1.csv", "same-1.csv", "--alpha", "5"], 2, "alpha must lie in (0, 1)"),
        (["--compare", "base-1.csv", "absent.csv"], 3, "there is no absent.csv"),
        (["--compare", "a=base-1.csv,short.csv", "b=same-1.csv,short.csv"], 2, "on the same test rows"),
    ],
)
def test_wrong_commands(
    arguments: list[str], code: int, message: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments]) == code
    assert message in capsys.readouterr().err


def test_comparing_loads_no_torch(repo_root: Path) -> None:
    code = "import sys, pipelines.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root).returncode == 0


def test_pooled_noise_and_names(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [f"{m}={m}-1.csv,{m}-2.csv,{m}-3.csv" for m in ("base", "better", "same")]
    assert main(["evaluate", "--compare", *models, "--noise", "pooled", "--metric", "auc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("AUC     better") and "helps " in line for line in lines)

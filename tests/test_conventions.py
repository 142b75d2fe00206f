"""Rules of the house that a machine can see: sizes of files, one list of checks, help that is whole."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest
import yaml

LONGEST = 300  # lines of a source file
MEDIAN = 150
# Types that stand in several modules and mean the same in each: one line, not worth an import between rooms.
SAME_TYPE = {"Positive", "Tables", "Tick"}


def source_lines(root: Path) -> dict[str, int]:
    """Lines of each source file of the four packages."""
    files = (
        path
        for package in ("ctr", "features", "kernels", "pipelines")
        for path in (root / package).rglob("*")
        if path.suffix in (".py", ".cpp", ".h")
    )
    return {str(p.relative_to(root)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}


def types_of(source: str) -> set[str]:
    """The classes and type aliases of a module that others may import."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if re.fullmatch("[A-Z]+[a-z]\\w*", name)}


def checks_of_make(makefile: str) -> list[str]:
    """What `make check` runs, in its order."""
    found = re.search(r"^check:(.*)$", makefile, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_source_files_are_short(repo_root: Path) -> None:
    lines = source_lines(repo_root)
    assert len(lines) > 200
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}
    assert median(lines.values()) <= MEDIAN


def test_a_type_has_a_name_of_its_own(repo_root: Path) -> None:
    """A reader who meets a class or an alias finds one meaning for it in the whole project."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in source_lines(repo_root):
        if file.endswith(".py"):
            for name in types_of((repo_root / file).read_text(encoding="utf-8")):
                places[name].append(file)
    assert {name: files for name, files in places.items() if len(files) > 1 and name not in SAME_TYPE} == {}


@pytest.mark.fault(36)
def test_no_duration_reads_the_clock_of_the_day(repo_root: Path) -> None:
    """It may be set back while the program runs; these say when something was, never how long."""
    reads = re.compile(
        r"time\.time\(|time_ns\(|datetime\.now\(|utcnow\(|\.today\(|time\.strftime\(|localtime\("
    )
    found = [
        f"{file}: {read}"
        for file in source_lines(repo_root)
        for read in reads.findall((repo_root / file).read_text(encoding="utf-8"))
    ]
    assert sorted(found) == [
        "ctr/runs/journal.py: time.time(",  # of a row
        "ctr/runs/lock.py: time.strftime(",  # since when a job holds the run
        "features/read/times.py: datetime.now(",  # the years that a log may hold
        "pipelines/result_line.py: time.strftime(",  # of a date that is given
    ]


def test_hooks_and_make_check_are_one_list(repo_root: Path) -> None:
    config = yaml.safe_load((repo_root / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    hooks = repository["hooks"]
    checks = checks_of_make((repo_root / "Makefile").read_text())
    assert [hook["entry"] for hook in hooks] == [f"make {check}" for check in checks]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)
    stages = {stage for hook in hooks for stage in hook.get("stages", config["default_stages"])}
    assert stages == set(
        config["default_install_hook_types"]
    )  # no check waits for a hook that is not installed


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_check_runs_what_the_hooks_call(repo_root: Path) -> None:
    def planned(*targets: str) -> list[str]:
        # -o: the environment counts as made, whatever the age of its files.
        stamp = [word for lock in ("cpu", "cuda", "base") for word in ("-o", f".venv/stamp-{lock}")]
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
        command = ["make", "-n", *stamp, *targets]
        done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    checks = checks_of_make((repo_root / "Makefile").read_text())
    assert planned("check") == [line for check in checks for line in planned(check)]
    assert len(planned("check")) >= 5


def test_help_names_every_command(repo_root: Path) -> None:
    text = (repo_root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", text, re.MULTILINE)
    shown = set(re.findall(r'@echo "make (\S+)', text))
    assert {name for name in phony.split() if name not in ("\\", "help") and "check-" not in name} == shown

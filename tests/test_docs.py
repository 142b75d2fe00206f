"""The pages keep their word: links lead somewhere, files of the tree exist, commands are real."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import BaseModel

from ctr.generate.config import GenerateConfig
from pipelines.cli import COMMANDS
from tests.documents import fenced

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "pipelines" / "configs").rglob("*.yaml"))
TREE = fenced(ROOT / "README.md", "text")[-1]

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree_paths(tree: str) -> Iterator[str]:
    """Every path of a drawn tree: a folder at the margin, the names in it indented, then their phrase."""
    folder = ""
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = names[0]
            yield folder
        else:
            yield from (folder + name for name in names)


def ctr_commands(page: Path) -> list[str]:
    """The `ctr` commands of a page's shell blocks or, in a configuration, of its head."""
    if page.suffix == ".yaml":
        lines = re.findall(r"^#\s+(ctr .+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    else:
        lines = [
            line
            for kind in ("bash", "console")
            for block in fenced(page, kind)
            for line in block.splitlines()
        ]
    found = (re.match(r"(?:\$ )?(?:\w+=\S+ )*(ctr .+)", line) for line in lines)
    return [match[1] for match in found if match]


def is_setting(key: str) -> bool:
    """Whether a dotted key names a setting of a run; what lies inside a mapping of free names counts."""
    model: type[BaseModel] = GenerateConfig  # a run's settings, and those of generation
    parts = key.split(".")
    for i, part in enumerate(parts):
        if part not in model.model_fields:
            return False
        kind = model.model_fields[part].annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
        else:
            return i == len(parts) - 1 or get_origin(kind) is dict
    return False


@by_name
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_the_tree_of_the_readme_exists() -> None:
    paths = list(tree_paths(TREE))
    assert len(paths) > 60
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("folder", ["features", "ctr", "kernels"])
def test_the_tree_of_the_readme_is_whole(folder: str) -> None:
    named = {path.rstrip("/") for path in tree_paths(TREE)} | {"ctr/report/plots.py", f"{folder}/__init__.py"}
    there = [
        p for p in (ROOT / folder).iterdir() if p.suffix == ".py" or (p.is_dir() and p.name[0] not in "_.")
    ]
    assert sorted(f"{folder}/{p.name}" for p in there if f"{folder}/{p.name}" not in named) == []


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda page: page.name)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ctr_commands(page):
        name, *arguments = shlex.split(command, comments=True)[1:]
        parser = argparse.ArgumentParser(prog=f"ctr {name}")
        importlib.import_module(COMMANDS[name][0]).add_arguments(parser)
        try:
            parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {command}\n{capsys.readouterr().err}")


@by_name
def test_named_commands_and_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {name for name in re.findall(r"`ctr ([a-z]+)", text)} <= set(COMMANDS)
    keys = [key for key in re.findall(r"--set ([\w.]+)=", text) if key != "a.b"]
    assert [key for key in keys if not is_setting(key)] == []


def test_the_checks_can_fail() -> None:
    assert is_setting("model.queries.view") and is_setting("train.epochs") and is_setting("run")
    assert not any(is_setting(key) for key in ("model", "model.depth", "train.epochs.x", "runs"))
    assert list(tree_paths("ctr/   code\n  a.py b/   two\n")) == ["ctr/", "ctr/a.py", "ctr/b/"]

"""The pages keep their word: links lead somewhere, named folders and files exist, commands are real."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from ctr.generate.config import GenerateConfig
from ctr.models.interaction.interactions import INTERACTIONS
from ctr.models.registry import MODELS, model_class, model_config
from ctr.models.sequence.sides import SIDES
from ctr.options.knobs import KindSection, Knobs, default_of
from ctr.roll.plan import RollPlan
from features.computed import Counter, Match, Page, Pair
from features.safe_yaml import parse_yaml
from pipelines.cli import COMMANDS
from tests.documents import ROOT, fenced
from tests.sections import sections_of

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "models").glob("*.md")),
]
CONFIGS = sorted((ROOT / "pipelines" / "configs").rglob("*.yaml"))

TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_folders(text: str) -> list[str]:
    """The folders that a table describes, one a line: its first cell."""
    return re.findall(r"^\| `([\w./]+)/` \|", text, re.MULTILINE)


def named_paths(text: str) -> set[str]:
    """Every path of the checkout that a page names as code, without what stands behind a colon or a space."""
    return set(re.findall(r"`((?:ctr|features|kernels|pipelines|tests|docs|requirements)/[\w./*-]+)", text))


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


def command_parser(name: str) -> argparse.ArgumentParser:
    """What reads the arguments of `ctr name`."""
    parser = argparse.ArgumentParser(prog=f"ctr {name}")
    importlib.import_module(COMMANDS[name][0]).add_arguments(parser)
    return parser


def is_setting(key: str) -> bool:
    """Whether a dotted key is a setting of a run or a roll; inside a mapping of free names any is."""
    # A run's settings and those of generation, or those of a roll plan.
    return has_option([GenerateConfig, RollPlan], *key.split("."))


def has_option(kinds: Iterable[type[Knobs]], name: str, *inside: str) -> bool:
    """Whether a section of one of these kinds has an option, or one inside it."""
    for field in (kind.model_fields[name] for kind in kinds if name in kind.model_fields):
        if sections := sections_of(field):
            if inside and has_option(sections, *inside):
                return True
        elif not inside or get_origin(field.annotation) is dict:
            return True
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


def test_every_page_is_in_the_index() -> None:
    """Once, and the README leads there."""
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[.+?\]\((.+?)\)", text, re.MULTILINE)
    pages = [page for page in PAGES if page.name != "README.md"]
    assert sorted((ROOT / "docs" / path).resolve() for path in linked) == sorted(pages)
    assert "(docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", ["--set", "--dry-run"])
def test_the_readme_says_which_commands_take_an_option(option: str) -> None:
    (cell,) = re.findall(rf"^\| `{option}.*?\| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    taking = [name for name in COMMANDS if option in command_parser(name).format_usage()]
    assert re.findall(r"`(\w+)`", cell) == taking


def test_the_readme_has_a_line_for_every_folder() -> None:
    """Each folder of ctr and features once, and none that does not exist."""
    named = named_folders((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    there = [
        f"{top}/{p.parent.name}" for top in ("ctr", "features") for p in (ROOT / top).glob("*/__init__.py")
    ]
    assert sorted(name for name in named if "/" in name) == sorted(there)


@pytest.mark.parametrize("top", ["ctr", "features"])
def test_the_order_of_the_rooms_is_that_of_the_contract(top: str) -> None:
    """What docs/architecture.md lists is what pyproject.toml states, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c.get("containers") == [top]]
    listed = re.search(
        rf"^    {top}  .*\n(?:     .*\n)*", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    assert listed is not None
    assert re.findall(r"\w+", listed[0])[1:] == re.findall(r"\w+", " ".join(layers))


@pytest.mark.parametrize("page", PAGES[:1] + PAGES[2:], ids=lambda page: page.name)
def test_named_paths_exist(page: Path) -> None:
    """Of every page but the changelog, which speaks of what was."""
    paths = named_paths(page.read_text(encoding="utf-8"))
    assert sorted(path for path in paths if not [*ROOT.glob(path.rstrip("."))]) == []


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda page: page.name)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ctr_commands(page):
        name, *arguments = shlex.split(command, comments=True)[1:]
        try:
            command_parser(name).parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: {command}\n{capsys.readouterr().err}")


@by_name
def test_named_commands_and_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {name for name in re.findall(r"`ctr ([a-z]+)", text)} <= set(COMMANDS)
    keys = [key for key in re.findall(r"--set ([\w.]+)=", text) if key != "a.b"]
    assert [key for key in keys if not is_setting(key)] == []


@by_name
def test_named_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`(test_\w+)`", text)) <= TESTS


@pytest.mark.parametrize("kind", MODELS)
def test_each_model_says_what_it_keeps_of_its_paper(kind: str) -> None:
    """In its file and on its page, with tests and files that exist, and a section that runs as it is."""
    head = sys.modules[model_class(kind).__module__].__doc__ or ""
    page = (ROOT / "docs" / "models" / f"{kind.replace('_', '-')}.md").read_text(encoding="utf-8")
    for text in (head, page):
        assert text.index("Compliance with the paper") < text.index("Documented deviations")
    named = re.findall(r"(?:tests|docs)/[\w/-]+\.\w+", head)
    assert named and all((ROOT / path).is_file() for path in named)
    tests = re.findall(r"`(test_\w+)`", page)
    assert tests and set(tests) <= TESTS
    (example,) = fenced(ROOT / "docs" / "models" / f"{kind.replace('_', '-')}.md", "yaml")
    assert model_config(**parse_yaml(example, kind)).kind == kind
    for option in re.findall(r"^\| `([a-z_.]+)`", page[page.index("## Options") :], re.MULTILINE):
        assert has_option([type(model_config(kind=kind))], *option.split(".")), option


def table_rows(text: str, head: str) -> dict[str, str]:
    """The rows of the table whose head begins so: the code of the first cell → the line."""
    table = text[text.index(f"\n| {head}") :].split("\n\n")[0].split("|\n|---")[1]
    return {row[0]: row[1] for row in re.findall(r"^(?=\| (?:… with )?`([^`]+)`)(.+)$", table, re.MULTILINE)}


def options_of(kind: type[Knobs], under: str = "") -> Iterator[str]:
    """`name: default` of each option, and its other values; of a section of one kind those inside it."""
    for name, field in kind.model_fields.items():
        default = default_of(field)
        if isinstance(default, KindSection):
            yield f"{under}{name}.kind: {default.kind}"
        elif isinstance(default, Knobs):
            yield from options_of(type(default), f"{under}{name}.")
        elif name != "kind":
            yield f"{under}{name}: {default if isinstance(default, str) else json.dumps(default)}"
            if get_origin(field.annotation) is Literal:
                yield from (value for value in get_args(field.annotation) if value != default)


@pytest.mark.parametrize(
    ("axis", "kinds"), [("sequence", SIDES.kinds), ("interaction", INTERACTIONS.kinds)], ids=["read", "cross"]
)
def test_the_grid_page_has_every_option_with_its_default(
    axis: str, kinds: dict[str, type[KindSection]]
) -> None:
    """And the papers that the file of each kind names."""
    page = (ROOT / "docs" / "models" / "grid.md").read_text(encoding="utf-8")
    models = table_rows(page, f"`{axis}.kind` | model")
    options = table_rows(page, f"`{axis}.kind` | options")
    assert list(models) == list(kinds) == [name for name in options if ":" not in name]
    for kind, own in kinds.items():
        assert [text for text in options_of(own) if f"`{text}`" not in options[kind]] == []
        source = (sys.modules[own.__module__].__doc__ or "").partition("Source: ")[2]
        assert [paper for paper in re.findall(r"arXiv\s([\d.]+)", source) if paper not in models[kind]] == []


@pytest.mark.parametrize("kind", [Counter, Match, Pair, Page])
def test_own_data_says_what_every_output_is(kind: type[Counter | Match | Pair | Page]) -> None:
    """Those of pairs by their two halves."""
    page = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    told = re.findall(
        rf"^\| {kind.__name__.lower()}e?s \| `(\w+)…?` \|", page.replace("`…_", "`"), re.MULTILINE
    )
    (output,) = get_args(kind.model_fields["outputs"].annotation)
    halves = [half for name in get_args(output) for half in (name.split("_") if kind is Pair else [name])]
    assert sorted(name.rstrip("_") for name in told) == sorted(set(halves))


def test_the_checks_can_fail() -> None:
    assert is_setting("model.queries.view") and is_setting("train.epochs") and is_setting("run")
    assert not any(is_setting(key) for key in ("model", "model.depth", "train.epochs.x", "runs"))
    assert named_folders("| `ctr/` | code |\n| `ctr/a/` | `ctr/b/` |\n") == ["ctr", "ctr/a"]
    assert named_paths("`ctr/a.py`, `tests/x/y.py 600`, ctr/b and `ctr train`") == {
        "ctr/a.py",
        "tests/x/y.py",
    }

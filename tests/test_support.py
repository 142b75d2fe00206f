"""The table of what runs where keeps its word: its tests exist, and the page is the table."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.documents import ROOT
from tests.support import NOT_SHOWN, PAGE, SHOWN, Cell, Feature, page, read_groups

FEATURES = [feature for features in read_groups().values() for feature in features]


@cache
def marks_of(file: str) -> dict[str, set[str]]:
    """Test function → the names of its marks, as in `@pytest.mark.gpu`."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {
        node.name: {d.attr for d in node.decorator_list if isinstance(d, ast.Attribute)}
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def problem(cell: Cell) -> str | None:
    """What is wrong with a word of the table."""
    if cell.test is None:
        return None if cell.says in NOT_SHOWN else f"“{cell.says}” must name a test, or be in {[*NOT_SHOWN]}"
    if cell.says not in SHOWN:
        return f"“{cell.says}” names a test, so it must be in {[*SHOWN]}"
    file, _, name = cell.test.partition("::")
    if not (ROOT / "tests" / file).is_file() or name not in marks_of(file):
        return f"tests/{cell.test} does not exist; correct tests/support.yaml"
    on_gpu = "gpu" in marks_of(file)[name]
    if on_gpu != (cell.says == "test not run yet"):
        return f"tests/{cell.test}: only a test with the mark gpu says “test not run yet”"
    return None


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_word_is_shown_by_a_test(feature: Feature) -> None:
    assert {column: found for column, cell in feature.cells.items() if (found := problem(cell))} == {}


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: .venv/bin/python -m tests.support"


def test_names_are_told_apart() -> None:
    assert len({feature.name for feature in FEATURES}) == len(FEATURES) > 30


@pytest.mark.parametrize(
    "wrong",
    [
        Cell("yes"),
        Cell("perhaps", "test_support.py::test_the_page_is_the_table"),
        Cell("not tested", "test_support.py::test_the_page_is_the_table"),
        Cell("yes", "test_support.py::test_of_something_else"),
        Cell("yes", "test_nowhere.py::test_x"),
        Cell("yes", "kernels/test_unique.py::test_on_a_gpu"),
        Cell("test not run yet", "kernels/test_unique.py::test_on_a_device"),
    ],
)
def test_a_wrong_word_is_found(wrong: Cell) -> None:
    assert problem(wrong) is not None

"""What can go wrong, and the tests that show what happens then.

`python -m tests.faults` writes docs/faults.md from tests/faults.yaml and the marks of the tests. As a plugin
of pytest (`-p tests.faults`, in `make chaos`) it prints a line per row: result, tests, seeds and figures.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

from features.safe_yaml import load_yaml
from tests.documents import ROOT

TABLE = ROOT / "tests" / "faults.yaml"
PAGE = ROOT / "docs" / "faults.md"


@dataclass(frozen=True)
class Fault:
    """A row: what happens to the program, and what it does then."""

    row: int
    fault: str
    then: str


def read_faults() -> list[Fault]:
    """The rows in their order."""
    return [Fault(**row) for row in load_yaml(TABLE)["faults"]]


def marked_tests() -> dict[int, list[str]]:
    """Row → the tests that bear its number, as `file::function` below tests/."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for row in _rows_of(node) if isinstance(node, ast.FunctionDef) else ():
                found[row].append(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
    return dict(found)


def _rows_of(function: ast.FunctionDef) -> list[int]:
    calls = [d for d in function.decorator_list if isinstance(d, ast.Call)]
    marks = [c for c in calls if ast.unparse(c.func) == "pytest.mark.fault"]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def page() -> str:
    """All of docs/faults.md."""
    tests = marked_tests()
    lines = [
        f"| {f.row} | {f.fault} | {f.then} | {'<br>'.join(map(_link, tests.get(f.row, ())))} |"
        for f in read_faults()
    ]
    return "\n".join([_INTRODUCTION, *lines]) + "\n"


def _link(test: str) -> str:
    file, _, name = test.partition("::")
    return f"[`{name}`](../tests/{file})"


@dataclass
class Shown:
    """What the tests of one row came to."""

    results: list[str] = field(default_factory=list)  # passed, failed or skipped
    seeds: set[int] = field(default_factory=set)
    figures: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def holds(self) -> bool:
        """At least one test passed and none failed."""
        return "passed" in self.results and "failed" not in self.results

    def line(self, fault: Fault) -> str:
        """The row as it is printed."""
        result = "ok" if self.holds else "FAILED" if "failed" in self.results else "NO TEST"
        figures = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.figures.items())
        seeds = f"seed {', '.join(map(str, sorted(self.seeds)))}" if self.seeds else ""
        more = "; ".join(part for part in (seeds, figures) if part)
        return f"{fault.row:>3} {fault.fault:<76} {result:<8} {len(self.results):>4}  {more}".rstrip()


def shown_rows(tests: dict[str, tuple[str, list[tuple[str, Any]]]]) -> dict[int, Shown]:
    """Row → what its tests came to.

    Args:
        tests: name → result and what was recorded: `fault`, `seed`, and figures by their names.
    """
    rows: dict[int, Shown] = defaultdict(Shown)
    for result, recorded in tests.values():
        for row in {value for name, value in recorded if name == "fault"}:
            rows[row].results.append(result)
            rows[row].seeds |= {value for name, value in recorded if name == "seed"}
            for name, value in recorded:
                if name.startswith("figure "):
                    rows[row].figures[name.removeprefix("figure ")] += value
    return rows


# The plugin. With several workers their reports come here, to the process that prints.

_tests: dict[str, tuple[str, list[tuple[str, Any]]]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst result of each test and what it recorded last."""
    before = _tests.get(report.nodeid, ("passed", []))[0]
    result = before if report.outcome == "passed" else report.outcome
    _tests[report.nodeid] = (result, report.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows, and how many hold."""
    rows, faults = shown_rows(_tests), read_faults()
    terminalreporter.section("what can go wrong (docs/faults.md)")
    for fault in faults:
        terminalreporter.write_line(rows[fault.row].line(fault))
    terminalreporter.write_line(f"{_holding(rows)} of {len(faults)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A row without a test that passed is a failure."""
    printing = not hasattr(session.config, "workerinput")
    if (
        printing
        and session.exitstatus == pytest.ExitCode.OK
        and _holding(shown_rows(_tests)) < len(read_faults())
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _holding(rows: dict[int, Shown]) -> int:
    return sum(rows[fault.row].holds for fault in read_faults() if fault.row in rows)


_INTRODUCTION = """# What can go wrong, and what happens then

A line per fault: what happens to the program, what it does, and the tests that show it. `make chaos` runs
these tests and prints a line per row with its result, seed and what was counted; `CHAOS_SEED=7 make chaos`
draws other moments for kills and other bits to flip. The page is written from `tests/faults.yaml` and the
marks of the tests (`@pytest.mark.fault(3)`) by `.venv/bin/python -m tests.faults`, and a test says so.

Exit codes: 0 ok · 1 a fault of this program · 2 usage or configuration · 3 data · 4 non-finite training ·
5 no usable checkpoint · 6 run directory in use · 75 try again (disk, memory, network) · 130 and 143 a signal.

| | fault | what happens | tests |
| --- | --- | --- | --- |"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""What runs where: `docs/support.md`, written from tests/support.yaml by `python -m tests.support`.

`tests/test_support.py` holds page and table together and looks for every test that the table names.
"""

from __future__ import annotations

from dataclasses import dataclass

from features.safe_yaml import load_yaml
from tests.documents import ROOT

TABLE = ROOT / "tests" / "support.yaml"
PAGE = ROOT / "docs" / "support.md"
COLUMNS = {
    "cpu": "CPU",
    "gpu": "GPU",
    "processes": "several processes",
    "resumable": "resumable",
    "exact": "exact",
}
# The words of the table. The first ones claim something, and need a test.
SHOWN = {
    "yes": "a test shows it",
    "bitwise": "equal to the reference in every bit",
    "within rounding": "equal to the reference but for the order in which numbers are added",
    "approximate": "near the reference; the test states how near",
    "torch's operators": "the compiled kernel stands aside, and torch gives the result",
    "refused": "an error says what to do instead",
    "test not run yet": "there is a test for GPUs; nobody has run it yet",
}
NOT_SHOWN = {
    "code not run yet": "the code has a place for it; nobody has run it, and no test needs such a machine",
    "not tested": "nothing in the code forbids it; no test shows it",
    "no": "it is not built",
    "–": "the question does not apply",
}


@dataclass(frozen=True)
class Cell:
    """A word of the table, and the test that shows it: file below tests/, then the function."""

    says: str
    test: str | None = None


@dataclass(frozen=True)
class Feature:
    """A line of the table."""

    name: str
    reference: str
    cells: dict[str, Cell]  # by column


def read_groups() -> dict[str, list[Feature]]:
    """The table, by heading."""
    return {title: [_feature(entry) for entry in entries] for title, entries in load_yaml(TABLE).items()}


def page() -> str:
    """All of docs/support.md."""
    groups = read_groups()
    parts = [_INTRODUCTION.format(words=_table(["word", "meaning"], [*(SHOWN | NOT_SHOWN).items()]))]
    for title, features in groups.items():
        rows = [(f.name, *(cell.says for cell in f.cells.values())) for f in features]
        parts.append(f"## {title}\n\n{_table(['', *COLUMNS.values()], rows)}")
    evidence = [(f.name, f.reference, _tests(f)) for features in groups.values() for f in features]
    heads = ["feature", "what “exact” compares it with", "tests"]
    return "\n\n".join([*parts, f"## Which test shows what\n\n{_table(heads, evidence)}"]) + "\n"


def _feature(entry: dict[str, str | list[str]]) -> Feature:
    cells = {name: Cell(*([e] if isinstance(e := entry.pop(name), str) else e)) for name in COLUMNS}
    name, reference = (str(entry.pop(key)) for key in ("feature", "reference"))
    assert not entry, f"{name}: unknown keys {sorted(entry)}"
    return Feature(name, reference, cells)


def _tests(feature: Feature) -> str:
    """The columns that each test shows."""
    columns: dict[str, list[str]] = {}
    for name, cell in feature.cells.items():
        if cell.test is not None:
            columns.setdefault(cell.test, []).append(COLUMNS[name])
    return "<br>".join(f"{', '.join(shown)}: {_link(test)}" for test, shown in columns.items())


def _link(test: str) -> str:
    file, _, name = test.partition("::")
    return f"[`{name}`](../tests/{file})"


def _table(heads: list[str], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *rows))


_INTRODUCTION = """# What runs where

One line per feature. Each word that claims something is shown by a test, which the
[last section](#which-test-shows-what) names. The page is written from `tests/support.yaml` by
`.venv/bin/python -m tests.support`, and a test holds the two together.

**Nothing on this page was run on a GPU.**

- *Several processes* are the ranks of one training under torchrun (in the tests with gloo, on one machine).
  For ablations and sweeps they are trainings side by side.
- *Resumable*: the same command goes on after a kill at any moment.
- *Exact* says how near the result is to a reference, which the last section names too.

{words}"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""A report as files: one HTML page that needs nothing else, Markdown, its pictures, results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctr.report.html import render_page
from features.durable import replace_file
from features.durable.own import claim, holds
from features.names import code_span, markdown

HeadAndRows = tuple[list[str], list[list[str]]]  # head and rows
_TEMPLATE = Path(__file__).with_name("report_template.html")


@dataclass(frozen=True)
class Picture:
    """A PNG image."""

    name: str
    caption: str
    image: bytes


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """What a report says, in the order in which it says it."""

    title: str
    facts: Mapping[str, str]  # name → text, at the head
    heading: str  # of the tables
    tables: Sequence[HeadAndRows]  # those without rows are left out
    notes: Sequence[str]
    figures: Sequence[Picture]
    reading: Sequence[str]  # how to read it
    changes_heading: str = ""
    changes: Sequence[tuple[str, str]] = ()  # name → settings

    def markdown(self) -> str:
        """The report as Markdown, beside its pictures."""
        facts = [list(fact) for fact in self.facts.items()]
        parts = [f"# {markdown(self.title)}", markdown_table(["", ""], facts)]
        parts += [markdown_table(*table) for table in self.tables]
        parts.append("\n".join(f"- {markdown(note)}" for note in self.notes))
        parts += [f"![{markdown(figure.caption)}]({figure.name}.png)" for figure in self.figures]
        parts += ["## How to read it", "\n".join(f"- {markdown(line)}" for line in self.reading)]
        if self.changes:
            changed = [[name, code_span(what)] for name, what in self.changes]
            parts += [f"## {markdown(self.changes_heading)}", markdown_table(["", "change"], changed)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        """The report as one page."""
        figures = [(f.name, f.caption, f.image) for f in self.figures]
        return render_page(_TEMPLATE, **{**vars(self), "figures": figures})


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown; none where there are no rows.

    Example:
        >>> print(markdown_table(["a"], [["1|2"]]))
        | a |
        | --- |
        | 1\\|2 |
    """
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join("| " + " | ".join(map(markdown, row)) + " |" for row in lines)


def write_page(folder: Path, page: ReportPage, results: Mapping[str, Any]) -> Path:
    """Write results.json, report.md, the pictures and, last, index.html, each whole.

    Args:
        folder: made where it is missing; pictures of an earlier report that this one has not are removed.
        page: what to say.
        results: the same as plain data.

    Returns:
        Path of index.html.
    """
    claim(folder, "report", known=holds("results.json", "report.md", "index.html"))
    files = {f"{figure.name}.png": figure.image for figure in page.figures}
    for old in folder.glob("*.png"):
        if old.name not in files:
            old.unlink()
    files["results.json"] = (json.dumps(results, indent=2, allow_nan=False) + "\n").encode()
    files["report.md"] = page.markdown().encode()
    files["index.html"] = page.html().encode()
    for name, content in files.items():
        replace_file(folder / name, content)
    return folder / "index.html"

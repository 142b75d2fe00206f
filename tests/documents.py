"""Reading the project's pages: files they tell the reader to save, commands they show, and what these print.

Save as `name`:             a file: the fenced block that follows
```console
$ command   # exit code 3   a command; 0 unless the comment says otherwise
output …                    lines that appear in this order; … stands for anything
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_FILE = re.compile(r"[Ss]ave as `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r"\s+# exit code (\d+)$")


@dataclass
class Command:
    """One command of a page."""

    line: str
    exit_code: int = 0
    output: list[str] = field(default_factory=list)


def saved_files(page: Path) -> dict[str, str]:
    """File name → content, in the order of the page."""
    return dict(_FILE.findall(page.read_text(encoding="utf-8")))


def fenced(page: Path, language: str) -> list[str]:
    """The content of the page's fenced blocks of one language."""
    return [body for found, body in _FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def shown_commands(page: Path) -> list[Command]:
    """The commands of the page's console blocks with their output."""
    commands: list[Command] = []
    for line in (line for block in fenced(page, "console") for line in block.splitlines()):
        if line.startswith("$ "):
            code = _EXIT.search(line)
            commands.append(Command(_EXIT.sub("", line[2:]), int(code[1]) if code else 0))
        elif line.strip() not in ("", "…"):
            commands[-1].output.append(line)
    return commands


def first_missing(expected: list[str], actual: str) -> str | None:
    """The first expected line that is not in the output, after the ones before it; None if all are.

    Example:
        >>> first_missing(["b …", "d"], "a\\nb 2\\nc\\n")
        'd'
    """
    lines = iter(actual.splitlines())
    for line in expected:
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in line.split("…")))
        if not any(pattern.fullmatch(found.strip()) for found in lines):
            return line
    return None

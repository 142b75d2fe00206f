"""The tables of figures in the pages of docs/, made from the lines under docs/results/.

A page names a layout and a file between markers; what stands between them is written from the file:

<!-- results: models results/ml-1m.jsonl -->
…
<!-- results: end -->

`python -m pipelines.results_page --write` rewrites them, `--check` fails if page and lines disagree.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from ctr.metrics import METRICS
from ctr.report.result_line import ResultLine, read_lines
from features.durable import replace_file
from features.errors import ConfigError
from features.names import Markup, markdown
from pipelines.cli import guarded
from pipelines.terminal import echo

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS / "results.md", DOCS / "leakage.md"]
END = "<!-- results: end -->"
_BLOCK = re.compile(r"(<!-- results: (\w+) (\S+) -->\n).*?" + END, re.DOTALL)
_DIGITS = Decimal("0.0001")  # more than four decimals are rounded
EMPTY = "–"
TableRow = Sequence[str]


def render_page(text: str, folder: Path) -> str:
    """The page with every table made anew from its lines.

    Args:
        text: the page as it is.
        folder: that of the page; files of lines are named relative to it.

    Raises:
        ConfigError: a marker names an unknown layout or a missing file.
        DataError: a line is no result.
    """

    def block(found: re.Match[str]) -> str:
        layout, file = found[2], folder / found[3]
        if layout not in LAYOUTS or not file.is_file():
            raise ConfigError(
                f"a marker must name a layout ({', '.join(LAYOUTS)}) and a file of lines, "
                f"got {found[1].strip()}"
            )
        lines = read_lines(file)
        return f"{found[1]}\n{conditions(lines)}\n\n{LAYOUTS[layout](lines)}\n\n{END}"

    return _BLOCK.sub(block, text)


def conditions(lines: Sequence[ResultLine]) -> str:
    """What stands above a table: data, hardware, commit, kind of interval, and the commands."""
    facts: dict[str, list[str | None]] = {
        "Data": [f"{line.dataset}, {line.split} part" for line in lines],
        "Scored rows": [None if line.rows is None else f"{line.rows:,}" for line in lines],
        "Hardware": [line.hardware for line in lines],
        "Commit": list(map(_commit, lines)),
        "Intervals": [line.interval for line in lines],
    }
    names = [line.variant or line.model for line in lines]
    text = "\n".join(
        f"- {fact}: {_of_each(values, names)}"
        for fact, values in facts.items()
        if fact == "Hardware" or any(values)
    )
    commands = _distinct(command for line in lines for command in line.commands or ())
    return text + ("\n\n```bash\n" + "\n".join(commands) + "\n```" if commands else "")


def _of_each(values: Sequence[str | None], names: Sequence[str]) -> str:
    """A value that all share; else those of few with the names of their lines, and that of the others."""
    of: dict[str, dict[str, None]] = {}
    for value, name in zip(values, names, strict=True):
        of.setdefault(value or "not recorded", {})[name] = None
    most = max(of, key=lambda value: len(of[value]))
    told = [f"{value} ({', '.join(f'`{name}`' for name in of[value])})" for value in of if value != most]
    return "; ".join([*told, f"{most} (all others)"]) if told else most


def _commit(line: ResultLine) -> str:
    if line.commit is not None:
        return f"{line.commit[:12]}, {line.date}"
    return f"not recorded; the figures were written down in {line.recorded_in}, {line.date}"


def models(lines: Sequence[ResultLine]) -> str:
    """A row per metric and model; lines of one model, such as single seeds, become one row."""
    groups: dict[str, list[ResultLine]] = {}
    for line in lines:
        groups.setdefault(line.model, []).append(line)
    head = [
        "metric",
        "model",
        "seeds",
        "mean over seeds",
        "lowest seed",
        "highest seed",
        "95 % from",
        "95 % to",
    ]
    head += ["difference", "difference, 95 % from", "difference, 95 % to"]
    rows = []
    for name in _metrics(lines):
        for model, group in groups.items():
            if having := [line for line in group if name in line.metrics]:
                rows.append([label(name), model, *_merged(having, name)])
    return filled(head, rows)


def _merged(lines: Sequence[ResultLine], name: str) -> TableRow:
    """Number of seeds, mean, lowest and highest; interval and difference are those of the first line."""
    figures = [line.metrics[name] for line in lines]
    means = [(len(line.seeds or (0,)), v) for line in lines if (v := line.metrics[name].value) is not None]
    mean = sum((n * v for n, v in means), Decimal(0)) / sum(n for n, _ in means) if len(means) > 1 else None
    values = [v for f in figures for v in (f.seed_low, f.seed_high, *(f.seed_values or ())) if v is not None]
    values += [value for _, value in means] if len(means) > 1 else []
    seeds = sum(len(line.seeds or ()) for line in lines)
    first = figures[0]
    ends = (min(values, default=None), max(values, default=None), first.low, first.high)
    difference = (first.difference, first.difference_low, first.difference_high)
    return [
        str(seeds) if seeds else EMPTY,
        number(first.value if mean is None else mean),
        *map(number, ends),
        *map(signed, difference),
    ]


def ablation(lines: Sequence[ResultLine]) -> str:
    """A row per variant with its difference from the base in the first metric; the base comes first."""
    first, *others = _metrics(lines)
    head = ["variant", label(first), "difference", "95 % from", "95 % to", "verdict", "found if beyond"]
    head += [*(f"{label(name)}, difference" for name in others), "dense parameters", "MFLOP a row"]
    head += ["training rows/s"]
    rows = []
    for line in lines:
        figure = line.metrics[first]
        differences = (figure.difference, figure.difference_low, figure.difference_high)
        cells = [f"`{line.variant}`" if line.variant else "base", number(figure.value)]
        cells += [*map(signed, differences), figure.verdict or EMPTY, number(figure.detectable)]
        cells += [signed(line.metrics[n].difference) if n in line.metrics else EMPTY for n in others]
        speed = EMPTY if line.rows_per_s is None else f"{round(line.rows_per_s):,}"
        size = EMPTY if line.dense_parameters is None else f"{line.dense_parameters:,}"
        rows.append([*cells, size, number(line.mflop_per_row), speed])
    return filled(head, rows)


def scaling(lines: Sequence[ResultLine]) -> str:
    """A row per metric and size; the size that was predicted has its prediction and the errors beside it."""
    errors = _distinct(e for line in lines for figure in line.metrics.values() for e in figure.errors or ())
    head = [
        "metric",
        "size",
        "measured",
        "predicted",
        "95 % from",
        "95 % to",
        *(f"error of {e}" for e in errors),
    ]
    rows = []
    for name in _metrics(lines):
        for line in lines:
            figure = line.metrics[name]
            ends = (figure.value, figure.predicted, figure.predicted_low, figure.predicted_high)
            wrong = [(figure.errors or {}).get(e) for e in errors]
            rows.append([label(name), str(line.variant), *map(number, ends), *map(signed, wrong)])
    return filled(head, rows)


LAYOUTS: dict[str, Callable[[Sequence[ResultLine]], str]] = {
    "models": models,
    "ablation": ablation,
    "scaling": scaling,
}


def filled(head: TableRow, rows: Sequence[TableRow]) -> str:
    """A table without the columns that no line fills."""
    kept = [i for i in range(len(head)) if any(row[i] != EMPTY for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def table(head: TableRow, rows: Sequence[TableRow]) -> str:
    """Markdown."""
    lines = ([markdown(Markup(cell)) for cell in cells] for cells in (head, ["---"] * len(head), *rows))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: Decimal | None) -> str:
    """With the digits of the line, four decimals at most."""
    if value is None:
        return EMPTY
    exponent = value.as_tuple().exponent
    return str(value.quantize(_DIGITS) if isinstance(exponent, int) and exponent < -4 else value)


def signed(value: Decimal | None) -> str:
    """A difference; its sign is always shown, that of a rounded zero too."""
    shown = number(value)
    return shown if value is None or shown.startswith("-") else f"+{shown}"


def label(name: str) -> str:
    """What a metric is called."""
    return METRICS[name].label if name in METRICS else name


def _metrics(lines: Sequence[ResultLine]) -> list[str]:
    return _distinct(name for line in lines for name in line.metrics)


def _distinct(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or say whether they agree with the lines (exit code 1 if not)."""
    parser = argparse.ArgumentParser(
        description="The tables of pages in docs/ from the lines under docs/results/"
    )
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "--check", action="store_true", help="exit with 1 if a page is not what its lines say"
    )
    either.add_argument("--write", action="store_true", help="make the tables anew")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES)
    options = parser.parse_args(arguments)
    return max(_renew(page, write=options.write) for page in options.page)


def _renew(page: Path, *, write: bool) -> int:
    old = page.read_text(encoding="utf-8")
    new = render_page(old, page.parent)
    if write:
        replace_file(page, new.encode())
    elif new != old:
        echo(f"{page} is not what its lines say; run: python -m pipelines.results_page --write", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))

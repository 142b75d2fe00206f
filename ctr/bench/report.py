"""Results as Markdown, and between the markers of a page."""

from __future__ import annotations

from pathlib import Path

from ctr.bench.results import Bound, CellValue, Report, ResultTable, SuiteResult
from features.durable import replace_file
from features.errors import ConfigError

BEGIN = "<!-- ctr bench: begin; written by the command, do not edit -->"
END = "<!-- ctr bench: end -->"
LIMITS = (
    ("matmul_fp32", "2048³ matrix product, fp32", "GFLOP/s"),
    ("matmul_bf16", "2048³ matrix product, bf16", "GFLOP/s"),
    ("copy", "copy (read + written)", "GB/s"),
    ("gather_small", "gather of 64 floats, table in cache", "GB/s"),
    ("gather_large", "gather of 64 floats, 2 M rows", "GB/s"),
)


def markdown(report: Report, *, images: str | None = None) -> str:
    """The whole report; `images` is the directory of the pictures, relative to the page."""
    suites = (suite_text(report, suite, images=images) for suite in report.suites)
    return "\n\n".join(["## Machine and command", conditions(report), *suites]) + "\n"


def suite_text(report: Report, suite: SuiteResult, *, images: str | None = None) -> str:
    """Command, machine, tables, pictures and targets of one suite, under its heading."""
    parts = [f"## {suite.title}", suite_conditions(report, suite), *(table(t) for t in suite.tables)]
    if images is not None:
        parts += [f"![{chart.title}]({images}/{chart.name}.png)" for chart in suite.charts]
    return "\n\n".join([*parts, targets(suite.targets)] if suite.targets else parts)


def command(report: Report, *suites: str) -> str:
    """What measures these suites in the same way."""
    return " ".join(["ctr bench", *suites, *([report.options] if report.options else [])])


def suite_conditions(report: Report, suite: SuiteResult) -> str:
    """One line: how this suite alone is measured again, and on what it was measured."""
    environment, beside = report.environment, report.drift.get(suite.suite)
    told = [
        f"`{command(report, suite.suite)}`",
        f"{environment['cpu']}, threads: {environment['threads']}, GPU: {environment['gpu']}",
        f"commit {environment['commit']}",
        *([] if beside is None else [f"fp32 product just before: {shown(float(beside))} GFLOP/s"]),
    ]
    return " · ".join(told)


def conditions(report: Report) -> str:
    """Command, machine, versions, settings and the limits of the machine."""
    environment, limits = report.environment, report.calibration
    names = {"cpu": "processor", "memory_gib": "memory, GiB", "gpu": "GPU"}
    machine: list[list[CellValue]] = [
        [names.get(key, key.replace("_", " ")), value] for key, value in environment.items()
    ]
    settings: list[list[CellValue]] = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
        for name, value in report.settings.items()
    ]
    calibrated: list[list[CellValue]] = [[name, unit, limits[key]] for key, name, unit in LIMITS]
    lines = command(report, *(suite.suite for suite in report.suites))
    return "\n\n".join(
        [
            f"```bash\n{lines}\n```",
            table(ResultTable("", ["machine", "value"], machine)),
            table(ResultTable("", ["setting", "value"], settings)),
            table(ResultTable("", ["limit", "unit", "measured"], calibrated)),
        ]
    )


def table(content: ResultTable) -> str:
    """A table, its title above and its note below."""
    lines = [
        "| " + " | ".join(content.columns) + " |",
        "|" + "---|" * len(content.columns),
        *("| " + " | ".join(shown(cell) for cell in row) + " |" for row in content.rows),
    ]
    parts = [f"**{content.title}**" if content.title else "", "\n".join(lines), content.note]
    return "\n\n".join(part for part in parts if part)


def targets(content: list[Bound]) -> str:
    """What must hold, with the figures."""
    rows: list[list[CellValue]] = [
        [t.what, t.kind, t.bound, t.measured, "yes" if t.met else "**no**"] for t in content
    ]
    return table(ResultTable("", ["what", "must be", "bound", "measured", "met"], rows))


def shown(cell: CellValue) -> str:
    """A cell as text: three significant digits, thousands separated.

    Example:
        >>> shown(12345.6), shown(0.01234), shown(None), shown(7)
        ('12,346', '0.0123', '–', '7')
    """
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def write_page(page: Path, text: str) -> None:
    """Put the text between the page's markers; the rest of the page stays.

    Raises:
        ConfigError: the page does not hold both markers.
    """
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    head, found, rest = old.partition(BEGIN)
    _, closed, tail = rest.partition(END)
    if not (found and closed):
        raise ConfigError(
            f"{page} must hold the lines {BEGIN!r} and {END!r}; put them where the tables belong"
        )
    replace_file(page, f"{head}{BEGIN}\n\n{text}\n{END}{tail}".encode())

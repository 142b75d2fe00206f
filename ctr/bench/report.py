"""Results as Markdown, and between the markers of a page."""

from __future__ import annotations

from pathlib import Path

from ctr.bench.results import Cell, Report, SuiteResult, Table, Target
from ctr.runs.durable import replace_file
from features.errors import ConfigError

BEGIN = "<!-- ctr bench: begin; written by the command, do not edit -->"
END = "<!-- ctr bench: end -->"


def markdown(report: Report, *, images: str | None = None) -> str:
    """The whole report; `images` is the directory of the pictures, relative to the page."""
    parts = ["## Machine", conditions(report), *(suite_text(suite, images=images) for suite in report.suites)]
    return "\n\n".join(parts) + "\n"


def suite_text(suite: SuiteResult, *, images: str | None = None) -> str:
    """Tables, pictures and targets of one suite, under its heading."""
    parts = [f"## {suite.title}", *(table(t) for t in suite.tables)]
    if images is not None:
        parts += [f"![{chart.title}]({images}/{chart.name}.png)" for chart in suite.charts]
    return "\n\n".join([*parts, targets(suite.targets)] if suite.targets else parts)


def conditions(report: Report) -> str:
    """Calibration, machine, versions and settings."""
    environment, limits = report.environment, report.calibration
    versions = ", ".join(
        f"{k} {v}" for k, v in environment.items() if k in ("python", "torch", "numpy", "pyarrow")
    )
    rows: list[list[Cell]] = [
        ["2048³ matrix product, fp32", f"{limits['matmul_fp32']:.0f} GFLOP/s"],
        ["2048³ matrix product, bf16", f"{limits['matmul_bf16']:.0f} GFLOP/s"],
        ["copy (read + written)", f"{limits['copy']:.1f} GB/s"],
        ["gather of 64 floats, table in cache", f"{limits['gather_small']:.1f} GB/s"],
        ["gather of 64 floats, 2 M rows", f"{limits['gather_large']:.1f} GB/s"],
    ]
    drift = ", ".join(f"{suite} {gflops:.0f}" for suite, gflops in report.drift.items())
    about = (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['threads']} threads in use, "
        f"{environment['memory_gib']} GiB, GPU: {environment['gpu']}, compiled kernels: "
        f"{environment['compiled_kernels']}; {versions}; "
        f"commit {environment['commit']}."
    )
    beside = f"fp32 GFLOP/s taken again before each suite: {drift}." if drift else ""
    settings = ", ".join(f"{k} {v}" for k, v in report.settings.items())
    return "\n\n".join(
        p
        for p in (about, table(Table("", ["limit", "measured"], rows)), beside, f"Settings: {settings}.")
        if p
    )


def table(content: Table) -> str:
    """A table, its title above and its note below."""
    lines = [
        "| " + " | ".join(content.columns) + " |",
        "|" + "---|" * len(content.columns),
        *("| " + " | ".join(shown(cell) for cell in row) + " |" for row in content.rows),
    ]
    parts = [f"**{content.title}**" if content.title else "", "\n".join(lines), content.note]
    return "\n\n".join(part for part in parts if part)


def targets(content: list[Target]) -> str:
    """What must hold, with the figures."""
    rows: list[list[Cell]] = [
        [t.what, f"{t.kind} {shown(t.bound)}", t.measured, "yes" if t.met else "**no**"] for t in content
    ]
    return table(Table("", ["must hold", "bound", "measured", "met"], rows))


def shown(cell: Cell) -> str:
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

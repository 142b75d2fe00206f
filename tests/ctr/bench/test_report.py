"""Tables, targets, pictures and the page between its markers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctr.bench.plots import draw, style
from ctr.bench.report import BEGIN, END, markdown, shown, table, targets, write_page
from ctr.bench.results import Bound, Chart, Report, ResultTable, SuiteResult
from features.errors import ConfigError

LIMITS = {
    "threads": 1,
    "matmul_fp32": 190.0,
    "matmul_bf16": 420.0,
    "copy": 32.0,
    "gather_small": 21.0,
    "gather_large": 4.0,
}
MACHINE = {
    "cpu": "Test 9",
    "cores": "2",
    "threads": "1",
    "memory_gib": "8.0",
    "gpu": "none",
    "compiled_kernels": "yes",
    "torch": "2",
    "commit": "abc",
}
CHART = Chart("speed", "Speed", "x", "y", {"a": [(1.0, 2.0), (2.0, 4.0)]}, levels={"goal": 3.0})
SUITE = SuiteResult(
    "train",
    "Training",
    [ResultTable("Models", ["model", "rows/s"], [["HyFormer", 1234.5], ["none", None]], "A note.")],
    [CHART],
    [Bound("speed", 2.0, 3.0, "at least"), Bound("bytes", 0.2, 0.3, "at most")],
)
SETTINGS = {"quick": True, "rows per request": [1, 5]}
REPORT = Report(MACHINE, LIMITS, SETTINGS, [SUITE], {"train": 188.0}, "--rounds 3")


def test_tables_are_markdown() -> None:
    lines = table(SUITE.tables[0]).splitlines()
    assert lines == [
        "**Models**",
        "",
        "| model | rows/s |",
        "|---|---|",
        "| HyFormer | 1,234 |",
        "| none | – |",
        "",
        "A note.",
    ]
    assert [shown(c) for c in (0.00123, 12.345, 5000, "x")] == ["0.00123", "12.3", "5,000", "x"]


def test_targets_say_whether_they_are_met() -> None:
    rows = targets(SUITE.targets).splitlines()[2:]
    assert rows == ["| speed | at least | 3 | 2 | **no** |", "| bytes | at most | 0.3 | 0.2 | yes |"]
    assert (
        not Bound("", float("nan"), 1.0, "at least").met and not Bound("", float("nan"), 1.0, "at most").met
    )


def test_the_report_holds_everything(tmp_path: Path) -> None:
    text = markdown(REPORT, images="pictures")
    for part in (
        "```bash\nctr bench train --rounds 3\n```",
        "| processor | Test 9 |",
        "| commit | abc |",
        "| rows per request | 1, 5 |",
        "| 2048³ matrix product, fp32 | GFLOP/s | 190 |",
        "`ctr bench train --rounds 3` · Test 9, threads: 1, GPU: none · commit abc · ",
        "fp32 product just before: 188 GFLOP/s",
        "## Training",
        "![Speed](pictures/speed.png)",
    ):
        assert part in text
    assert "![" not in markdown(REPORT)
    REPORT.write_json(tmp_path / "bench.json")
    read = json.loads((tmp_path / "bench.json").read_text())
    assert read["calibration"] == LIMITS and read["suites"][0]["tables"][0]["rows"][0] == ["HyFormer", 1234.5]


def test_a_page_keeps_what_is_outside_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_page(page, "new\n")
    write_page(page, "newer\n")
    assert page.read_text() == f"above\n{BEGIN}\n\nnewer\n\n{END}\nbelow\n"
    page.write_text("no markers")
    with pytest.raises(ConfigError, match="must hold"):
        write_page(page, "new")
    assert page.read_text() == "no markers"


@pytest.mark.parametrize("log", [True, False])
def test_a_chart_is_a_small_picture(tmp_path: Path, log: bool) -> None:
    chart = Chart("c", "Title", "x", "y", CHART.lines, log=log, levels=CHART.levels)
    path = draw(chart, tmp_path / "c.png")
    assert path.read_bytes().startswith(b"\x89PNG") and 2_000 < path.stat().st_size < 100_000


def test_a_cell_holds_one_number() -> None:
    numbers = re.compile(r"\d[\d,.]*")
    rows = [line for line in markdown(REPORT).splitlines() if line.startswith("| ")]
    cells = [cell for row in rows for cell in row.strip("| ").split(" | ")[1:]]
    assert len(cells) > 30 and [c for c in cells if len(numbers.findall(c)) > 1] == ["1, 5"]  # a setting


def test_no_two_lines_of_a_chart_look_alike(tmp_path: Path) -> None:
    styles = [tuple(sorted(style(line).items())) for line in range(18)]
    assert len(set(styles)) == len(styles)
    lines = {f"route {i}": [(1.0, i + 1.0), (2.0, i + 2.0)] for i in range(9)}
    wide = draw(Chart("c", "title", "x", "y", lines), tmp_path / "c.png")
    assert wide.stat().st_size > 1000

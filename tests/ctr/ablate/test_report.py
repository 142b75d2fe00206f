"""The report's texts and pictures, from results made by hand; the page in a browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ctr.ablate.cost import Cost
from ctr.ablate.halving import Stopped
from ctr.ablate.plan import parse_plan
from ctr.ablate.report import write_report
from ctr.ablate.results import AblationResults, VariantResult
from ctr.compare import Judgement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def judgement(variant: str, metric: str = "auc", **values: Any) -> Judgement:
    usual = {
        "base": 0.75, "value": 0.74, "delta": -0.01, "low": -0.02, "high": -0.001, "se": 0.005, "p": 0.01,
        "p_holm": 0.03, "verdict": "hurts", "detectable": 0.012, "seeds": 2, "windows": 2, "rows": 900,
        "clusters": 90, "unit": "user", "caveats": ("other periods are not covered",),
    }  # fmt: skip
    return Judgement(**{**usual, "variant": variant, "metric": metric, **values})


def line(name: str, delta: float, verdict: str, flops: float) -> VariantResult:
    own = judgement(name, delta=delta, low=delta - 0.004, high=delta + 0.004, verdict=verdict)
    cost = Cost(1000.0, 5000.0, flops, 2500.0, 400.0)
    return VariantResult(
        name, f"drop {name}", {"auc": own, "ne": judgement(name, "ne")}, [delta, delta / 2], cost
    )


@pytest.fixture(scope="module")
def results() -> AblationResults:
    base = {"dataset": "d", "run": "r"}
    plan = parse_plan(
        {"name": "p", "base": base, "metrics": ["auc", "ne"], "windows": 2, "variants": {"a": {}}}
    )
    lines = [
        VariantResult("base", "", {}, [], Cost(1000.0, 5000.0, 1e6, 2600.0, 410.0)),
        line("worse", -0.012, "hurts", 9e5),
        line("better", 0.008, "helps", 2.1e6),
        line("<b>odd\u202e & $x$|", 0.001, "no evidence", 1.05e6),
    ]
    undefined = judgement("better", delta=None, low=None, high=None, reason="one class")
    slices = {("history", "000"): {"worse": judgement("worse"), "better": undefined}}
    return AblationResults(
        plan,
        lines,
        slices,
        [Stopped("slow", 0.25, 0.61, 0.7)],
        {"broken": "exit code 4: error: NaN"},
        {"base": "hyformer on <data>\x1b[2J\n# [x](y)"},
    )


@pytest.fixture(scope="module")
def folder(results: AblationResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written report."""
    return write_report(tmp_path_factory.mktemp("report"), results).parent


@pytest.mark.fault(45)
def test_texts_say_the_figures_and_hide_no_variant(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    text = (folder / "report.md").read_text()
    for shown in (page, text):
        assert "-0.0120 (-0.0160 to -0.0080)" in shown and "± 0.0120" in shown and "2.1 M" in shown
        assert "slow: stopped for the budget after 25%" in shown and "broken: failed, exit code 4" in shown
        assert shown.index("better") < shown.index("worse") and "other periods are not covered" in shown
    assert "<b>odd" not in page and r"&lt;b&gt;odd\u202e &amp; $x$|" in page
    assert r"hyformer on &lt;data&gt;\x1b[2J" in page
    assert (
        r"| base | hyformer on &lt;data>\x1b\[2J\n# \[x](y) |" in text
        and r"| &lt;b>odd\u202e & $x$\| |" in text
    )
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:' in page


def test_the_page_needs_nothing_else(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_pictures_of_an_earlier_report_go(folder: Path, results: AblationResults, tmp_path: Path) -> None:
    assert {p.stem for p in folder.glob("*.png")} == {"deltas", "windows", "cost", "slices"}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write_report(tmp_path, AblationResults(results.plan, results.lines[:1]))
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_page_without_cutting_its_tables(folder: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1300,2600"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    subprocess.run([*command, (folder / "index.html").as_uri()], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    pixels = imread(shot)[..., :3]
    assert pixels.shape == (2600, 1300, 3)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 0.2  # bars, heat maps, verdicts
    assert 0.01 < coloured.mean() < 0.5
    assert (pixels[:, -8:].std(axis=(0, 1)) < 0.01).all()  # nothing runs over the right edge

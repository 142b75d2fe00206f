"""One run of the command: calibrate, run the suites, write the results after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ctr.bench.calibration import calibrate, matmul_gflops
from ctr.bench.environment import describe
from ctr.bench.plots import draw_all
from ctr.bench.report import conditions, markdown, suite_text, write_page
from ctr.bench.results import Report, Settings
from ctr.bench.suites import SUITES
from features.durable import replace_file
from features.durable.own import check_free, claim, holds
from features.errors import ConfigError

Show = Callable[[str], None]


def check_suites(names: Sequence[str]) -> None:
    """Refuse unknown suites.

    Raises:
        ConfigError: names them and those there are.
    """
    if unknown := [name for name in names if name not in SUITES]:
        raise ConfigError(f"a suite must be one of {', '.join(SUITES)}, got {', '.join(unknown)}")


_is_bench = holds("bench.json", "bench.md")  # of before the marker


def measure(suites: Sequence[str], settings: Settings, *, out: Path, show: Show, options: str = "") -> Report:
    """Run the suites; `<out>/bench.json`, `bench.md` and the pictures are complete after each of them.

    Args:
        suites: names, in order.
        settings: what each is told; the calibration is filled in.
        out: directory of the results, made if need be.
        show: takes finished parts of the report.
        options: of the command, for whoever measures again.
    """
    check_suites(suites)
    check_free(out, "bench", known=_is_bench)
    settings.say("calibration")
    limits = calibrate(rounds=3, side=256, rows=20_000, uses=4_000) if settings.quick else calibrate()
    settings = replace(settings, gflops=limits.matmul_fp32)
    report = Report(describe(), limits.as_dict(), _plain(settings), [], options=options)
    show(conditions(report))
    for name in suites:
        report.drift[name] = matmul_gflops(side=256 if settings.quick else 2048)
        began = time.monotonic()
        found = SUITES[name](settings)
        settings.say(f"{name}: done after {time.monotonic() - began:.0f} s")
        report.suites.append(found)
        save(report, out)
        show(suite_text(report, found))
    return report


def save(report: Report, out: Path) -> None:
    """JSON, Markdown and pictures of what has been measured so far."""
    claim(out, "bench", known=_is_bench)
    report.write_json(out / "bench.json")
    draw_all((chart for suite in report.suites for chart in suite.charts), out / "images")
    replace_file(out / "bench.md", ("# Benchmarks\n\n" + markdown(report, images="images")).encode())


def write_docs(report: Report, page: Path, *, images: str) -> None:
    """Tables into the page, between its markers, and the pictures beside it.

    Raises:
        ConfigError: the page has no markers.
    """
    write_page(page, markdown(report, images=images))
    draw_all((chart for suite in report.suites for chart in suite.charts), page.parent / images)


def _plain(settings: Settings) -> dict[str, object]:
    """The settings that figures depend on."""
    return {
        "quick": settings.quick,
        "dataset": "synthetic" if settings.dataset is None else settings.dataset.name,
        "model": "the peer's" if settings.config is None else "of the configuration",
        "precision": settings.precision,
        "rows per request": list(settings.rows_per_request),
        "requests a batch": settings.requests,
        "rounds": settings.rounds,
    }

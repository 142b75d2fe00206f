"""docs/metrics.md has the table of metrics, as it is in the code."""

from __future__ import annotations

from collections.abc import Iterator

from ctr.metrics.metric import Metric
from ctr.metrics.table import METRICS
from tests.documents import ROOT

INTERVALS = {"log-odds": "in log-odds", "symmetric": "symmetric", None: "none"}


def chooses(metric: Metric) -> bool:
    return metric.in_validation and metric.direction != 0


def table() -> Iterator[str]:
    yield "| name | shown as | meaning | better | needs | 95 % interval | `train.metric` | compares models |"
    yield "|---|---|---|---|---|---|---|---|"
    for m in METRICS.values():
        compared = "no" if m.not_compared else "as a check" if m.check_of else "yes"
        cells = [f"`{m.name}`", m.label, m.meaning, m.better, m.needs, INTERVALS[m.interval]]
        cells += ["yes" if chooses(m) else "no", compared]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in page if line.startswith("|")]
    assert found == list(table()), "\n".join(["write this into docs/metrics.md:", *table()])

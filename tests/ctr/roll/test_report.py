"""Predictions of whole days, and what the page of a roll says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.roll.plan import RollPlan
from ctr.roll.predictions import day_facts, join_parts, with_scores_of
from ctr.roll.report import text, write_report
from ctr.roll.results import FROZEN, ROLLED, Day, RollResults, figures_of, over_days, read_figures
from features.errors import DataError

N = 400


def table(seed: int, *, better: float = 0.0, first: int = 0) -> pa.Table:
    """Predictions of rows whose label follows a score; `better` makes them follow it more closely."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=N)
    label = (rng.random(N) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    logit = better * truth + (1 - better) * np.random.default_rng(seed + 1).normal(size=N)
    return pa.table(
        {
            "row_id": first + np.arange(N),
            "request_id": np.arange(N) // 4,
            "user_id": np.arange(N) % 50,
            "item_id": np.arange(N) % 30,
            "time": 1000 + np.arange(N),
            "label": label,
            "score": 1 / (1 + np.exp(-logit)),
            "logit": logit.astype(np.float32),
            "user_key": [f"u{i % 50}" for i in range(N)],
            "item_key": [f"i{i % 30}" for i in range(N)],
        }
    )


def write(path: Path, found: pa.Table) -> Path:
    pq.write_table(found, path, write_page_checksum=True)
    return path


def test_the_parts_of_a_day_become_one_table(tmp_path: Path) -> None:
    whole = table(0)
    parts = [write(tmp_path / f"{i}", whole.slice(low, 200)) for i, low in enumerate((0, 200))]
    assert join_parts(parts, tmp_path / "day.parquet") == N
    assert pq.read_table(tmp_path / "day.parquet").equals(whole)
    facts = day_facts(tmp_path / "day.parquet", users=40, items=27)
    assert facts == {"rows": N, "label_mean": pytest.approx(float(np.mean(whole["label"].to_numpy()))),
                     "new_users": 0.2, "new_items": pytest.approx(39 / 400)}  # fmt: skip


def test_scores_of_rows_with_other_numbers(tmp_path: Path) -> None:
    day, other = write(tmp_path / "day", table(0)), write(tmp_path / "other", table(0, better=1, first=900))
    with_scores_of(day, other, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["score"].equals(table(0, better=1)["score"]) and found["row_id"].equals(table(0)["row_id"])
    moved = table(0).set_column(4, "time", pa.array(np.arange(N)))
    with pytest.raises(DataError, match="others by time; delete it"):
        with_scores_of(day, write(tmp_path / "moved", moved), tmp_path / "no.parquet")
    with pytest.raises(DataError, match="has 399 instead of 400"):
        with_scores_of(day, write(tmp_path / "cut", table(0).slice(1)), tmp_path / "no.parquet")


def test_the_page_says_what_every_day_has_shown(tmp_path: Path) -> None:
    decided = {"promoted": True, "champion": "day-1", "why": "the first day"}
    days = [Day("day-1", {}, {}, {}, None, decided)]
    for number, better in ((2, 0.0), (3, 0.6)):
        files = {
            ROLLED: write(tmp_path / f"{number}-rolled", table(number, better=better)),
            FROZEN: write(tmp_path / f"{number}-frozen", table(number)),
        }
        facts = day_facts(files[ROLLED], users=40, items=30)
        figures = read_figures({model: figures_of(file) for model, file in files.items()})
        kept = {"promoted": False, "champion": "day-1", "why": "worse"}
        days.append(Day(f"day-{number}", facts, files, figures, None, kept))
    plan = RollPlan(name="a", logs="day-*", spec="s", base={})
    results = RollResults(plan, days, over_days(days, base=FROZEN, alpha=0.05))
    (auc,) = [j for j in results.pooled if j.metric == "auc"]
    assert auc.windows == 2 and auc.low > 0 and auc.verdict == "helps"
    last = days[2].figures
    assert auc.delta == pytest.approx((last[ROLLED]["auc"].value - last[FROZEN]["auc"].value) / 2)
    index = write_report(tmp_path / "report", results)
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| day-3 | 400 |" in page and "20.0%" in page and "no: worse" in page
    assert "day-1 is the first day" in page and index.read_text().count("<img") == 3
    found = json.loads((tmp_path / "report" / "results.json").read_text())
    assert [day["day"] for day in found["days"]] == ["day-1", "day-2", "day-3"]
    assert "kept the champion" in text(results)

"""Every figure of a report is in the journal's rows, and under a key of its own in MLflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr.metrics import Evaluation, MetricValue, evaluate_table
from ctr.report.figures import report_rows
from ctr.runs.journal import Journal, Row
from ctr.tracking.rows import MAX_KEY, points

# Texts that are one value each; some agree in their first 300 characters, or once they are escaped.
ODD = ["50% off", "a/b:c", "a:2f:b:3a:c", "политика", "", ".", "..", "line\nbreak", "=1+1", "<b>", "_"]
ODD += ["x" * 300, "x" * 301, "ж" * 300, "ж" * 301, "a/b", "a:2f:b"]
BASELINES: list[dict[str, Any]] = [
    {"name": "trees", "kind": "lightgbm", "auc": MetricValue(value=0.7, low=0.6, high=0.8)},
    {"name": "best possible (true click probability)", "auc": 0.9},
]
IMPORTANCE = {"item": MetricValue(value=0.02, low=0.01, high=0.03)}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 600)
    value = np.arange(600) % len(ODD)
    return evaluate_table(
        {
            "label": label,
            "score": random.random(600),
            "user_id": np.arange(600) % 40,
            "slice_kind": np.array(ODD)[value],
            "slice_step": np.where(value == 0, "wall", "kind"),  # names that the journal uses itself
        },
        draws=20,
    )


@pytest.fixture(scope="module")
def rows(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    journal = Journal(tmp_path_factory.mktemp("figures") / "journal.jsonl")
    found = report_rows(evaluation, split="test", baselines=BASELINES, importance=IMPORTANCE)
    written = [journal.write(kind, 7, **values) for kind, values in found]
    journal.close()
    return written


def test_every_figure_and_interval_is_in_a_row(evaluation: Evaluation, rows: list[Row]) -> None:
    by_kind = {row["kind"]: row for row in rows}
    assert list(by_kind) == ["test", "slices", "baselines", "importance"]
    parts = {tuple(p["name"]): p["figures"] for kind in list(by_kind)[1:] for p in by_kind[kind]["parts"]}
    shown = [(by_kind["test"], evaluation.overall)]
    shown += [(parts[name, v], s) for name, values in evaluation.slices.items() for v, s in values.items()]
    assert len(shown) == 1 + len(ODD) + 2
    for found, summary in shown:
        for name, metric in summary.metrics.items():
            assert found.get(name) == metric.value
            if metric.low is not None:
                assert (found[f"{name}_low"], found[f"{name}_high"]) == (metric.low, metric.high)
    assert parts[("lightgbm",)] == {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}
    assert parts[("best possible (true click probability)",)] == {"auc": 0.9}
    assert parts[("item",)] == {"auc_loss": 0.02, "auc_loss_low": 0.01, "auc_loss_high": 0.03}


def test_every_figure_has_a_key_of_its_own(rows: list[Row]) -> None:
    keys = [point.key for row in rows for point in points(row)]
    assert len(keys) == len(set(keys)) > 300
    for key in keys:
        assert len(key) <= MAX_KEY and re.fullmatch(r"[/\w.\- :]+", key, re.ASCII), key
        assert not {"", ".", ".."} & set(key.split("/"))  # a path to MLflow's file store
    folders = {"/".join(key.split("/")[:n]) for key in keys for n in range(1, key.count("/") + 1)}
    assert not folders & set(keys)  # no key is the folder of another
    assert "test_slices/kind/50:25: off/auc_low" in keys and "test_importance/item/auc_loss" in keys
    ends = {key.rsplit("/", 1)[1] for key in keys}
    assert {"auc", "auc_low", "rows"} <= ends  # however long the value, the figure's name stays


def test_a_report_without_parts_is_one_row() -> None:
    evaluation = evaluate_table({"label": np.array([0, 1]), "score": np.array([0.2, 0.4])})
    assert [kind for kind, _ in report_rows(evaluation, split="valid")] == ["valid"]


def test_old_rows_keep_their_keys(tmp_path: Path) -> None:
    row = {"kind": "test", "step": 3, "auc": 0.75, "gauc": None, "wall": {"time": 1.5}}
    assert [(p.key, p.value) for p in points(row)] == [("test/auc", 0.75)]

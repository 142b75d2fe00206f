"""What becomes of a row of the journal: metrics, their keys, parameters."""

from __future__ import annotations

from ctr.runs.directory import RunDir
from ctr.tracking.rows import metric_key, params, points


def test_only_finite_numbers_become_metrics(run: RunDir) -> None:
    row = run.journal.write(
        "valid",
        4,
        auc=0.7,
        ok=True,
        none=None,
        nan=float("nan"),
        text="x",
        roc=[1, 2],
        slices={"new": {"auc": 1}},
    )
    assert {p.key: p.value for p in points(row)} == {
        "valid/auc": 0.7,
        "valid/ok": 1.0,
        "valid/slices/new/auc": 1.0,
    }
    assert list(points(run.journal.write("artifact", 4, path="x", size=3))) == []


def test_metric_keys_are_safe_and_stay_apart() -> None:
    assert metric_key("a/../b//c") == "a/_/b/_/c"
    assert metric_key("x=1") != metric_key("x+1")
    assert len(metric_key("x" * 999)) == 250


def test_params_are_cut_and_hide_passwords() -> None:
    flat = params({"a": {"b": "x" * 7000, "c": {}}, "uri": "https://user:secret@host:5000/p"})
    assert len(flat["a.b"]) == 6000 and flat["a.b"].endswith("…")
    assert flat["uri"] == "https://host:5000/p" and flat["a.c"] == "{}"

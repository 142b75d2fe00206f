"""What is learned of late labels, against the chances that the simulator drew with.

.venv/bin/python -m tests.pipelines.late_labels        prints the table of docs/labels.md
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from features.dataset import SPLITS, Dataset
from features.prepare import prepare
from features.spec import parse_spec
from features.synthetic import simulate

SPEC: dict[str, Any] = {
    "name": "labels",
    "source": {"kind": "simulator", "path": "."},
    "time_unit": "s",
    "impressions": {
        "table": "impressions",
        "user": "user_id",
        "item": "item_id",
        "time": "time",
        "request": "request_id",
        "context": ["device", "page"],
    },
    "user": {"table": "users", "key": "user_id"},
    "item": {"table": "items", "key": "item_id"},
    "tables": {name: {} for name in ("item", "category", "tag", "segment", "age", "place")},
    "features": {
        "segment": {"column": "user.segment", "table": "segment"},
        "age": {"column": "user.age_band", "table": "age"},
        "device": {"column": "device", "table": "place"},
        "page": {"column": "page", "table": "place"},
        "position": {"column": "position", "table": "place"},
        "item": {"column": "item_id", "table": "item"},
        "category": {"column": "item.category_id", "table": "category"},
        "tags": {"column": "item.tags", "table": "tag"},
        "price": {"columns": ["item.price"], "scale": "log"},
    },
    "domains": {
        "view": {
            "table": "view",
            "user": "user_id",
            "time": "time",
            "item": "item_id",
            "max_len": 20,
            "side": {"category": {"column": "category_id", "table": "category"}},
        }
    },
    "tokens": {
        "user": ["segment", "age"],
        "context": ["device", "page", "position"],
        "item": ["item", "tags"],
        "category": ["category"],
        "price": ["price"],
    },
    "split": {"valid": 0.04, "test": 0.1},
}


def prepared(log: Path, out: Path, **impressions: Any) -> Dataset:
    spec = {**SPEC, "impressions": {**SPEC["impressions"], **impressions}}
    prepare(parse_spec(spec), out, base=log)
    return Dataset(out, verify=False)


class Judged(NamedTuple):
    """Mean prediction over mean chance, and what the log loss exceeds that of the chances by."""

    calibration: float
    excess: float


def judge(p: np.ndarray, q: np.ndarray) -> Judged:
    """Predictions q beside the chances p of the same rows."""
    excess = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return Judged(float(q.mean() / p.mean()), float(excess.mean()))


LATE = {"known_at": "bought_at", "delay": "6d", "late": "importance", "mature": "12h"}
WAYS: dict[str, dict[str, Any]] = {
    "naive": {},
    "mature: 1d": {"mature": "1d"},
    "mature: 2d": {"mature": "2d"},
    "mature: 4d": {"mature": "4d"},
    "late: importance": LATE,
}


def log_rows(log: Path) -> pl.DataFrame:
    """Impressions with their truth, users and items, in the order of the log."""
    parts = {
        what: pl.concat([pl.read_parquet(path) for path in sorted((log / what).glob("*.parquet"))])
        for what in ("impressions", "truth/impressions")
    }
    shown = parts["impressions"].with_columns(
        p_buy=parts["truth/impressions"]["p_buy"], final=parts["truth/impressions"]["bought"]
    )
    users = pl.read_parquet(log / "users.parquet", columns=["user_id", "segment"])
    items = pl.read_parquet(log / "items.parquet", columns=["item_id", "category_id", "price"])
    joined = shown.join(users, on="user_id", how="left", maintain_order="left")
    return joined.join(items, on="item_id", how="left", maintain_order="left")


def inputs(rows: pl.DataFrame) -> tuple[list[list[str]], np.ndarray]:
    """What a purchase depends on: the item, the segment, the segment in the category, and the price."""
    pair = rows["segment"] + "/" + rows["category_id"].cast(pl.String)
    names = np.stack([rows["item_id"].cast(pl.String), rows["segment"], pair], axis=1)
    z = np.nan_to_num(np.log(rows["price"].fill_null(30.0).to_numpy() / 30.0) / 0.8).clip(-2, 2)
    return names.tolist(), z[:, None]


def fitted(rows: pl.DataFrame, train: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Chances of all rows by a logistic regression on weighted training rows."""
    names, z = inputs(rows)
    encoder = OneHotEncoder(handle_unknown="ignore").fit([names[i] for i in np.flatnonzero(train)])
    x = hstack([encoder.transform(names), csr_matrix(z)]).tocsr()
    model = LogisticRegression(C=0.3, max_iter=300)
    found: np.ndarray = model.fit(x[train], label[train], weight[train]).predict_proba(x)[:, 1]
    return found


def judged(folder: Path, ways: Iterable[str]) -> dict[str, tuple[Judged, int]]:
    """Each way, and training on the labels as they turn out: how far from the truth, from how many rows."""
    log = folder / "log"
    simulate(log, seed=11, users=10_000, items=500, days=7, events_per_user=5, purchases=True)
    every, found = log_rows(log), {}
    for name in ways:
        label = {"column": "bought", **WAYS[name]}
        data = prepared(log, folder / name.replace(": ", "-"), where={"clicked": [1]}, label=label)
        shown = {split: data.split(split).impressions for split in SPLITS}
        rows = every[data.origin()["log_row"].to_numpy()]  # type: ignore[index]
        train = np.arange(rows.height) < shown["train"].num_rows
        test = np.arange(rows.height) >= rows.height - shown["test"].num_rows
        y = np.concatenate([t["label"].to_numpy() for t in shown.values()]).astype(float)
        known, weight = np.ones(len(y), dtype=bool), np.ones(len(y))
        if "target.label" in shown["train"].column_names:
            known = ~np.isnan(np.concatenate([t["target.label"].to_numpy() for t in shown.values()]))
        if "target_weight.label" in shown["train"].column_names:
            weight = np.concatenate([t["target_weight.label"].to_numpy() for t in shown.values()])
        p, final = rows["p_buy"].to_numpy(), rows["final"].to_numpy().astype(float)
        found[name] = judge(p[test], fitted(rows, train & known, y, weight)[test]), int((train & known).sum())
        if name == "naive":
            best = fitted(rows, train, final, weight)
            found["as they turn out"] = judge(p[test], best[test]), int(train.sum())
    return found


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (far, count) in judged(Path(folder), WAYS).items():
            print(f"| {name} | {count:,} | {far.calibration:.3f} | {1000 * far.excess:.2f} |")


if __name__ == "__main__":
    main()

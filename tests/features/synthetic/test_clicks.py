"""The click model: its written truth follows from the written log, and its best AUC is the one printed."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from features.errors import DataError
from features.synthetic import ClickModel, Sizes, best_auc, learnable, learnable_auc
from features.synthetic.best import BestAuc
from features.synthetic.catalogue import make_catalogue
from features.synthetic.clicks import HISTORY_TERMS, STATIC_TERMS, Shown, history_terms
from features.synthetic.events import History, Trace
from features.synthetic.people import make_people
from features.synthetic.settings import START
from tests.features.synthetic.logs import DAY, Log, read

DOCS = Path(__file__).parents[3] / "docs" / "simulator.md"


def test_labels_agree_with_the_probabilities(log: Log) -> None:
    truth = read(log[0], "truth/impressions")
    assert truth["clicked"].equals(read(log[0], "impressions")["clicked"])
    fifths = [truth.sort("p")[i * truth.height // 5 : (i + 1) * truth.height // 5] for i in range(5)]
    for part in [truth, *fifths]:
        error = math.sqrt((part["p"] * (1 - part["p"])).sum()) / part.height
        assert abs(part["clicked"].mean() - part["p"].mean()) < 4 * error


def test_the_printed_auc_is_the_auc_of_p(log: Log) -> None:
    out, meta = log
    truth = read(out, "truth/impressions")
    assert meta["best"]["auc"] == pytest.approx(roc_auc_score(truth["clicked"], truth["p"]), abs=1e-5)
    assert meta["best"]["auc_static"] == pytest.approx(
        roc_auc_score(truth["clicked"], truth["p_static"]), abs=1e-5
    )
    assert best_auc(out) == pytest.approx(meta["best"])
    start = int(truth["time"].quantile(0.8))
    late = truth.filter(pl.col("time") >= start)
    best = best_auc(out, start=start)
    assert best["impressions"] == late.height
    assert best["auc"] == pytest.approx(roc_auc_score(late["clicked"], late["p"]), abs=1e-5)


def test_what_can_be_learned_is_what_earlier_clicks_tell_of_an_item(log: Log) -> None:
    """Between ignorance of qualities and the truth, and nearer to it the more there is to learn from."""
    out, _ = log
    truth = read(out, "truth/impressions")
    quality = dict(read(out, "truth/items").select("item_id", "quality").iter_rows())
    start = int(truth["time"].quantile(0.8))
    late = truth.filter(pl.col("time") >= start)
    score = np.log(late["p"] / (1 - late["p"])) - np.array([quality[i] for i in late["item_id"]])
    ignorant = roc_auc_score(late["clicked"], score)
    found = learnable_auc(out, start=start)
    assert found["impressions"] == late.height
    assert ignorant < found["auc"] < best_auc(out, start=start)["auc"]
    early = int(truth["time"].quantile(0.1))
    gaps = [
        best_auc(out, start=s)["expected_auc"] - learnable_auc(out, start=s)["expected_auc"]
        for s in (start, early)
    ]
    assert 0 < gaps[0] < gaps[1]


def test_the_posterior_is_that_of_the_formula(log: Log) -> None:
    """One item, by quadrature on a finer grid."""
    out, _ = log
    truth = read(out, "truth/impressions")
    start = int(truth["time"].quantile(0.8))
    item = truth["item_id"].mode()[0]
    mine = truth.filter(pl.col("item_id") == item)
    quality = read(out, "truth/items").filter(pl.col("item_id") == item)["quality"][0]
    before = mine.filter(pl.col("time") < start)
    score = np.log(before["p"] / (1 - before["p"])).to_numpy() - quality
    grid = np.linspace(-2, 2, 2001)
    p = 1 / (1 + np.exp(-(score[:, None] + grid)))
    likelihood = np.where(before["clicked"].to_numpy()[:, None] == 1, p, 1 - p).prod(axis=0)
    posterior = likelihood * np.exp(-((grid / 0.35) ** 2) / 2)
    posterior /= posterior.sum()
    found = learnable._posterior(out, _qualities(out), start)[item]
    ours = found @ (learnable.QUALITY_SD * learnable._GRID)
    assert ours == pytest.approx(posterior @ grid, abs=1e-3)


def _qualities(out: Path) -> np.ndarray:
    items = read(out, "truth/items")
    quality = np.zeros(items["item_id"].max() + 1)
    quality[items["item_id"].to_numpy()] = items["quality"].to_numpy()
    return quality


def test_expected_auc_is_the_mean_over_redrawn_labels() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 5, size=2_000).round(3)
    best = BestAuc()
    best.add(clicked=np.zeros(2_000), p=p, p_static=p)
    drawn = [roc_auc_score(rng.random(2_000) < p, p) for _ in range(100)]
    assert best.summary()["auc"] is None
    assert best.summary()["expected_auc"] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 10)


def test_history_makes_the_difference(log: Log) -> None:
    best = log[1]["best"]
    assert 0.1 < best["click_rate"] < 0.2
    assert 0.77 < best["expected_auc"] < 0.83
    assert 0.62 < best["expected_auc_static"] < 0.71


def test_noise_is_noise(log: Log) -> None:
    frame = (
        read(log[0], "impressions")
        .join(read(log[0], "users"), on="user_id")
        .join(read(log[0], "items"), on="item_id")
    )
    assert abs(frame.select(pl.corr("noise_context", "clicked")).item()) < 4 / math.sqrt(frame.height)
    per_item = frame.group_by("item_id").agg(pl.first("noise_item"), pl.mean("clicked"))
    assert abs(per_item.select(pl.corr("noise_item", "clicked")).item()) < 4 / math.sqrt(per_item.height)
    per_user = frame.group_by("user_id").agg(pl.first("noise_user"), pl.mean("clicked"))
    assert abs(per_user.select(pl.corr("noise_user", "clicked")).item()) < 4 / math.sqrt(per_user.height)


def brute_force_terms(log_dir: Path, request_id: int, item_id: int) -> dict[str, float]:
    """The terms of one impression, straight from docs/simulator.md and the written files."""
    tables = {
        name: read(log_dir, name) for name in ("impressions", "users", "items", "view", "cart", "search")
    }
    hidden = {name: read(log_dir, f"truth/{name}") for name in ("items", "tags", "affinity")}
    m = ClickModel()
    shown = tables["impressions"].row(
        by_predicate=(pl.col("request_id") == request_id) & (pl.col("item_id") == item_id), named=True
    )
    user = tables["users"].row(by_predicate=pl.col("user_id") == shown["user_id"], named=True)
    item = tables["items"].row(by_predicate=pl.col("item_id") == item_id, named=True)
    now, category = shown["time"], item["category_id"]
    past = {
        name: tables[name].filter((pl.col("user_id") == user["user_id"]) & (pl.col("time") < now)).to_dicts()
        for name in ("view", "cart", "search")
    }
    clicked = [e for e in past["view"] if e["outcome"] == "clicked"]
    skipped = [e for e in past["view"] if e["outcome"] == "skipped"]

    def days(event: dict[str, Any]) -> float:
        return (now - event["time"]) / DAY

    def decayed(events: list[dict[str, Any]], tau: float) -> float:
        return sum(math.exp(-days(e) / tau) for e in events if e["category_id"] == category and days(e) <= 3)

    def by_age(levels: tuple[float, ...], missing: float) -> float:
        bands = ["18-24", "25-34", "35-44", "45-54", "55-64", "65+"]
        return missing if user["age_band"] is None else levels[bands.index(user["age_band"])]

    old = [e for e in clicked if days(e) > 3]
    effect = dict(hidden["tags"].rows())
    quality = dict(hidden["items"].rows())[item_id]
    affinity = {(segment, c): a for segment, c, a in hidden["affinity"].rows()}
    segments = ["explorer", "bargain", "casual", "loyal", "collector"]
    z = 0.0 if item["price"] is None else math.log(item["price"] / 30) / 0.8
    hour = now % DAY / 3_600
    return {
        "bias": m.bias,
        "item": quality + sum(effect[t] for t in item["tags"]) / max(len(item["tags"]), 1),
        "affinity": affinity[user["segment"], category],
        "price": -by_age(m.price, m.price_missing_age) * min(max(z, -2), 2),
        "fresh": m.fresh * math.exp(-(now - item["created"]) / DAY / m.fresh_days),
        "position": m.position * math.log(shown["position"]),
        "context": m.device[["desktop", "mobile", "tablet", "tv"].index(shown["device"])]
        + m.page[["home", "search", "detail"].index(shown["page"])]
        + m.hour * math.cos(2 * math.pi * (hour - m.hour_peak) / 24),
        "short": m.short[segments.index(user["segment"])] * math.log1p(decayed(clicked, m.short_days)),
        "long": by_age(m.long, m.long_missing_age)
        * sum(e["category_id"] == category for e in old)
        / (len(old) + m.long_prior),
        "search": m.search * min(1.0, decayed(past["search"], m.search_days)),
        "brand": m.brand
        * any(
            e["brand_id"] == item["brand_id"] is not None and days(e) <= m.brand_days for e in past["cart"]
        ),
        "repeat": m.repeat * any(e["item_id"] == item_id and days(e) <= m.repeat_days for e in clicked),
        "fatigue": m.fatigue * math.log1p(decayed(skipped, m.fatigue_days)),
    }


def test_terms_follow_from_the_written_events_strictly_before_the_request(log: Log) -> None:
    truth = read(log[0], "truth/impressions")
    # Late requests have a history; for each history term take some rows where it is at work.
    late = truth.sort("time", "request_id", "item_id").tail(truth.height // 2)
    rows = pl.concat([late.filter(pl.col(f"term_{t}") != 0).gather_every(150).head(4) for t in HISTORY_TERMS])
    rows = pl.concat([rows, truth.head(10)]).unique(["request_id", "item_id"], maintain_order=True)
    assert rows.height >= 20
    for row in rows.iter_rows(named=True):
        expected = brute_force_terms(log[0], row["request_id"], row["item_id"])
        assert list(expected) == [*STATIC_TERMS, *HISTORY_TERMS]
        assert {t: row[f"term_{t}"] for t in expected} == pytest.approx(expected, abs=1e-5), row
        assert row["p"] == pytest.approx(1 / (1 + math.exp(-sum(expected.values()))), abs=1e-9)


def test_an_event_counts_from_the_second_after_it() -> None:
    catalogue = make_catalogue(np.random.default_rng(0), Sizes(items=200, categories=5))
    people = make_people(np.random.default_rng(0), catalogue, Sizes(users=1), first=0, count=1)
    people.segment[:], people.age_band[:] = 4, 5
    item = int(np.flatnonzero(catalogue.brand >= 0)[0])
    now = START + DAY

    def terms(time: int) -> dict[str, float]:
        event = Trace(user=np.array([0]), time=np.array([time]), item=np.array([item]))
        history = History(clicked=event, skipped=event, carts=event, searches=event)
        row = np.zeros(1, dtype=np.int64)
        shown = Shown(user=row, time=row + now, item=row + item, position=row + 1, device=row, page=row)
        found = history_terms(ClickModel(), catalogue, people, history, shown, np.array([now]))
        return {name: float(value[0]) for name, value in found.items()}

    assert set(terms(now).values()) == {0.0}
    assert set(terms(now + 1).values()) == {0.0}
    assert {name for name, value in terms(now - 1).items() if value == 0.0} == {"long"}
    three_days_ago = now - 3 * DAY
    assert terms(three_days_ago)["long"] == 0.0 < terms(three_days_ago)["short"]
    assert terms(three_days_ago - 1)["short"] == 0.0 < terms(three_days_ago - 1)["long"]


def test_the_documented_coefficients_are_those_in_use() -> None:
    documented = dict(
        re.findall(r"^\| `(\w+)` \| ([-0-9., ]+) \|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    used = {
        name: ", ".join(f"{v:g}" for v in (value if isinstance(value, tuple) else (value,)))
        for name, value in asdict(ClickModel()).items()
    }
    assert documented == used


def test_best_auc_wants_a_simulated_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold truth/impressions"):
        best_auc(tmp_path)

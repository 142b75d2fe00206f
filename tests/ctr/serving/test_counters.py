"""`ctr counters` and `ctr score --counters`: what was exported scores a row as `ctr predict` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ctr.serving.lookup import FeatureLookup
from ctr.serving.service import ScoreService
from features.errors import DataError
from features.past.counter_files import read_counters
from features.read.moment import shown_moment
from features.safe_yaml import dump_yaml
from pipelines.cli import main
from tests.ctr.serving.runs import cache
from tests.ctr.serving.test_raw_columns import Case, ask
from tests.ctr.tiny_run import settings
from tests.features.small_log import RATINGS_SPEC, SHOP_SPEC, changed, rating_tables, shop_tables

COUNTERS: dict[str, Any] = {
    "user": {"by": ["user"], "outputs": ["count", "rate", "since_last", "since_first"]},
    "item": {"by": ["item"], "outputs": ["count", "positives", "rate"]},
    "better": {"by": ["user"], "outputs": ["residual"], "against": "count.item.rate"},
    "tags": {"by": ["device", "tags"], "outputs": ["count", "rate", "since_first"], "window": "1d"},
    "seen": {"by": ["user", "item"], "outputs": ["count", "since_last"], "over": "view"},
}
SHOP = changed(
    SHOP_SPEC,
    counters=COUNTERS,
    features__habits={"columns": ["count.user.*", "count.better.residual"], "scale": "log"},
    features__counts={
        "columns": ["count.[ist][tae]*.*", "price"],
        "scale": "quantile",
    },
    features__price={"columns": ["price"]},
    tokens={"all": ["item", "device", "tags", "price", "habits", "counts"]},
)
GENRES = {"by": ["item.genres", "user.sex"], "outputs": ["count", "rate"], "separator": "|"}
RATINGS = changed(
    RATINGS_SPEC,
    features__counts={"columns": ["count.*"], "scale": "log"},
    counters={"item": {"by": ["movie_id"]}, "genre": GENRES},
    matches={},
)
del RATINGS["order"]


class Exporting(Case):
    """A prepared log, and the run directory whose counters are exported."""

    def __init__(self, folder: Path, spec: dict[str, Any], tables: dict[str, pl.DataFrame]) -> None:
        super().__init__(folder, spec, tables)
        self.folder, self.run = folder, folder / "run"
        self.run.mkdir()
        dataset = self.lookup.dataset
        (self.run / "config.yaml").write_text(dump_yaml(settings(dataset.root, self.run)))

    def export(self, at: object, name: str = "counters.parquet", **options: object) -> int:
        more = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        out = ["--out", str(self.folder / name), "--source", str(self.folder / "raw")]
        return main(["counters", str(self.run), f"--at={at}", *out, *more])

    def filled(self) -> ScoreService:
        """A service that reads the latest export."""
        dataset = self.lookup.dataset
        path, digest = self.folder / "counters.parquet", dataset.manifest.spec_sha256
        file = read_counters(path, self.lookup.inline.encoder.spec, spec_sha256=digest)
        return ScoreService(self.built.scorer(cache=cache()), FeatureLookup(dataset, file))

    def moment(self, request: int) -> int:
        """Nanoseconds."""
        first = sum(s.requests for n, s in self.lookup.manifest.splits.items() if n != "test")
        return self.lookup.times.of_request(first + request)


@pytest.fixture(scope="module", params=["shop", "ratings"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exporting:
    which = (SHOP, shop_tables(60)) if request.param == "shop" else (RATINGS, rating_tables(rows=120))
    return Exporting(tmp_path_factory.mktemp(request.param), *which)


def without_counts(raw: dict[str, Any]) -> dict[str, Any]:
    return {what: {n: v for n, v in raw[what].items() if not n.startswith("count.")} for what in raw}


def test_an_export_at_the_time_of_a_request_scores_as_predict_does(case: Exporting) -> None:
    """Of every counter; the columns are the logged ones without any count."""
    want = np.split(case.built.expected().numpy(), case.data.row_offsets[1:-1])
    keys = case.lookup._keys._keys("users")
    for request in np.random.default_rng(0).permutation(len(want))[:3].tolist():
        moment = case.moment(request)
        assert case.export(shown_moment(moment).partition(" ")[0]) == 0
        raw = without_counts(case.raw(request))
        user = keys[case.of(request, "user_id")].as_py()
        low, high = case.data.row_offsets[request : request + 2].tolist()
        user_column = case.lookup.inline.encoder.spec.impressions.user
        item_column = case.lookup.inline.encoder.spec.impressions.item
        raw["columns"][item_column] = case.rows[item_column][low:high].to_list()
        raw["request_columns"].pop(user_column, None)
        service = case.filled()
        response = service(ask({"user": user, "time": moment / 10**9, **raw}))
        np.testing.assert_allclose(response.logit, want[request], atol=1e-5, rtol=1e-4)
        assert response.counters_at == moment and response.unknown.plain()["request"] == []
        rows = {"request_id": case.of(request, "request_id"), "columns": raw["columns"]}
        rows["request_columns"] = raw["request_columns"]
        np.testing.assert_allclose(service(ask(rows)).logit, want[request], atol=1e-5, rtol=1e-4)


def test_counts_of_the_future_and_missing_columns_are_refused(case: Exporting) -> None:
    moment = case.moment(1)
    assert case.export(moment / 10**9) == 0
    raw, service = without_counts(case.raw(0)), case.filled()
    earlier = {"request_id": case.of(0, "request_id")}
    if case.moment(0) < moment:
        with pytest.raises(DataError, match="would tell the future of a score request at"):
            service(ask({**earlier, **raw}))
    some = {"price": [1.0]} if "price" in raw["columns"] else {"item.year": [1990]}
    later = {"request_id": case.of(2, "request_id"), "columns": some}
    with pytest.raises(DataError, match=r"must give (all columns of|the candidate) feature"):
        service(ask(later))
    prepared = {"request_id": case.of(0, "request_id"), "row_ids": [0]}
    assert service(ask(prepared)).logit == pytest.approx(case.service(ask(prepared)).logit)


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("soon", "a time must be seconds since 1970"),
        ("nan", "a time must be seconds since 1970"),
        ("1e9", "a time must be seconds since 1970"),
        ("-5", "must lie near those of the data set"),
        ("9999-12-31", "must lie near those of the data set.*9999-12-31T00:00:00Z"),
        (1_700_000_000_000, "must lie near those of the data set"),
    ],
)
def test_hostile_times_are_refused(
    case: Exporting, at: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert case.export(at, "none.parquet") == 2
    text = capsys.readouterr().err
    assert re.search(says, text), text
    assert not (case.folder / "none.parquet").exists()


def test_a_run_of_a_part_of_the_data_has_the_counters_of_all(case: Exporting) -> None:
    at, config = case.moment(3) / 10**9, case.run / "config.yaml"
    assert case.export(at, "whole.csv") == 0
    whole, root = config.read_text(), case.lookup.dataset.root
    config.write_text(dump_yaml(settings(root, case.run, "period.windows=2", "drop=[counts]")))
    assert case.export(at, "part.csv") == 0
    config.write_text(whole)
    assert (case.folder / "part.csv").read_text() == (case.folder / "whole.csv").read_text()


def test_a_log_that_is_not_there_is_looked_for_with_source(
    case: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["counters", str(case.run), "--at", str(case.moment(1) // 10**9)]) == 3
    assert f"looked for in {tmp_path}; name where they are with --source" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [] and not (case.run / "counters.parquet").exists()


def test_another_log_is_refused_and_a_longer_one_is_read(
    case: Exporting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = case.folder / "raw"
    name = "shown" if (raw / "shown.parquet").is_file() else "ratings"
    time, unit = ("at", 1000) if name == "shown" else ("timestamp", 1)
    table = pl.read_parquet(raw / f"{name}.parquet")
    for path in raw.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table[:-1].write_parquet(tmp_path / f"{name}.parquet")
    at = case.moment(3) / 10**9
    assert case.export(at, "short.csv", source=tmp_path) == 3
    assert "name the right one with --source" in capsys.readouterr().err
    later = table.sort(time).tail(1).with_columns(pl.col(time) + 7200 * unit)
    later = later.with_columns(request=pl.lit("later")) if "request" in later.columns else later
    pl.concat([table, later]).write_parquet(tmp_path / f"{name}.parquet")
    assert case.export(at, "longer.csv", source=tmp_path) == 0 == case.export(at, "same.csv")
    assert (case.folder / "longer.csv").read_text() == (case.folder / "same.csv").read_text()

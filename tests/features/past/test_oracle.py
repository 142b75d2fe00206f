"""What `ctr prepare` writes of three real logs, against counters and histories in SQL, every row of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.dataset import SPLITS, Dataset, SplitData
from features.prepare import prepare
from features.spec import IdFeature, Spec, load_spec
from features.store.columns import dense_values
from tests.features.past.oracle import Oracle, encoded
from tests.features.past.real_logs import REAL_LOGS

HOME = Path(__file__).resolve().parents[3]
# The owners of the logs forbid to pass them on: they lie beside the checkout, or where CTR_REAL_DATA says.
DATA = Path(os.environ.get("CTR_REAL_DATA", HOME.parent / "shared" / "data"))
SPECS = HOME / "pipelines" / "configs" / "specs"
pytestmark = pytest.mark.slow


@dataclass
class Case:
    spec: Spec
    dataset: Dataset
    oracle: Oracle


@pytest.fixture(scope="module", params=REAL_LOGS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A log, prepared with its shipped spec and unscaled numbers, and in the database with all counters."""
    folder = DATA / REAL_LOGS[request.param].folder
    if not folder.is_dir():
        pytest.skip(f"needs the real log in {folder}; set CTR_REAL_DATA to the folder it lies in")
    spec = plain(load_spec(SPECS / f"{request.param}.yaml"), folder)
    out = tmp_path_factory.mktemp("oracle") / request.param
    prepare(spec, out, base=Path())
    oracle = Oracle(REAL_LOGS[request.param], DATA)
    for name, counter in spec.counters.items():
        oracle.add_counter(name, counter)
    return Case(spec, Dataset(out), oracle)


def plain(spec: Spec, folder: Path) -> Spec:
    """The spec on the log in `folder`, with numbers as they are and not scaled."""
    features = {
        name: f.model_copy(update={"scale": "none"}) if hasattr(f, "scale") else f
        for name, f in spec.features.items()
    }
    source = spec.source.model_copy(update={"path": str(folder)})
    return spec.model_copy(update={"source": source, "features": features})


def written(case: Case) -> pl.DataFrame:
    """All impressions as they were written: keys, label, history pointers and numbers."""
    users, items = (pl.Series(case.dataset.keys(what)) for what in ("users", "items"))
    parts = []
    for split in map(case.dataset.split, SPLITS):
        owner = np.repeat(np.arange(split.requests.num_rows), split.requests["num_rows"].to_numpy())
        columns = {"user": users[split.requests["user_id"].to_numpy()[owner]]}
        columns["item"] = items[split.impressions["item_id"].to_numpy()]
        columns["label"] = pl.Series(split.impressions["label"].to_numpy())
        for name in ("time", *(f"{end}.{d}" for d in case.spec.domains for end in ("start", "end"))):
            columns[name] = pl.Series(split.requests[name].to_numpy()[owner])
        parts.append(pl.DataFrame({**columns, **numbers(case, split, owner)}))
    return pl.concat(parts)


def numbers(case: Case, split: SplitData, owner: np.ndarray) -> dict[str, pl.Series]:
    """The scalars of all dense features, float32, null where their indicator says so."""
    found = {}
    for feature in case.dataset.manifest.features:
        if feature.kind != "dense":
            continue
        of_request = feature.level == "request"
        values = dense_values(split.requests if of_request else split.impressions, feature)
        values = values[owner] if of_request else values
        for name, column in zip(feature.fields, values.T, strict=True):
            found[name] = pl.Series(column)
    return {
        name: pl.select(pl.when(found[f"{name}.missing"] == 0).then(column)).to_series()
        if f"{name}.missing" in found
        else column
        for name, column in found.items()
        if not name.endswith(".missing")
    }


def joined(case: Case) -> pl.DataFrame:
    """Every written impression beside that of the oracle, whose columns end in `.oracle`."""
    on = ["user", "time", "item", *case.oracle.log.place]
    rows = written(case)
    theirs = case.oracle.rows().with_columns(pl.col(c).cast(rows[c].dtype) for c in on)
    assert rows.select(on).is_unique().all()
    assert len(rows) == len(theirs) >= 100_000
    both = rows.join(theirs, on=on, how="inner", suffix=".oracle", validate="1:1", maintain_order="left")
    assert len(both) == len(rows)
    return both


def test_every_counter_of_every_row(case: Case) -> None:
    both = joined(case)
    assert (both["label"] == both["label.oracle"]).all()
    outputs = {f"count.{n}.{o}": o for n, c in case.spec.counters.items() for o in c.outputs}
    compared = {name: output for name, output in outputs.items() if name in both.columns}
    assert len(compared) >= 8
    for name, output in compared.items():
        got, want = both[name], both[f"{name}.oracle"].cast(pl.Float32)
        wrong = got.ne_missing(want)
        if output in ("rate", "residual"):  # sums of floats in another order
            far = ((got - want).abs() > 1e-5 * (1 + want.abs())).fill_null(False)
            wrong = far | (got.is_null() != want.is_null())
        shown = both.filter(wrong).select("user", "time", "item", name, f"{name}.oracle")
        assert not wrong.any(), (name, shown.head(5).rows())


def test_every_event_and_every_history(case: Case) -> None:
    both = joined(case)
    assert case.spec.domains
    for name, domain in case.spec.domains.items():
        first = stored_events(case, name).group_by("user").agg(pl.col("at").min().alias("first"))
        start, end = (pl.col(f"{side}.{name}") for side in ("start", "end"))
        rows = both.select("row", "user", start.alias("start"), end.alias("end"))
        rows = rows.join(case.oracle.before(name), on="row", validate="1:1")
        assert len(rows) == len(both)
        length = pl.col("end") - pl.col("start")
        assert rows.select((length == pl.min_horizontal("before", domain.max_len)).all()).item()
        seen = rows.filter(pl.col("before") > 0).join(first, on="user", validate="m:1")
        assert len(seen) == rows.select((pl.col("before") > 0).sum()).item()
        assert seen.select((pl.col("end") == pl.col("first") + pl.col("before")).all()).item()


def stored_events(case: Case, name: str) -> pl.DataFrame:
    """The events of a domain as they were written, proved to be all, in order and with the right IDs."""
    store, users, expected = case.dataset.events(name), case.dataset.keys("users"), case.oracle.events(name)
    side = case.spec.domains[name].side
    tables = {s: f.table for s, f in side.items() if isinstance(f, IdFeature) and s in expected.columns}
    assert tables
    order = pl.DataFrame({"user": store.user_id, "clock": store.clock})
    assert order.equals(order.sort("user", "clock", maintain_order=True))
    columns = {"user": pl.Series(users)[store.user_id], "time": store.time, "clock": store.clock}
    got = pl.DataFrame({**columns, **{s: store.ids[s].values.astype(np.int64) for s in tables}})
    got = got.with_columns(turn=pl.col("clock").rank("dense").over("user"))
    books = {s: pl.read_parquet(case.dataset.root / "fitted" / f"{t}.parquet") for s, t in tables.items()}
    key = ["user", "turn", "time", *tables]
    want = encoded(expected, books).select(pl.col(c).cast(got[c].dtype) for c in key)
    assert got.select(key).sort(key).equals(want.sort(key))
    return got.with_row_index("at")

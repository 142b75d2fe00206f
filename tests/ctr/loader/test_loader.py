"""ctr.loader: batches hold what the files hold and depend on their position alone; errors come through."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctr.batch import Batch, IdColumn, map_tensors
from ctr.config import LoaderConfig
from ctr.loader import Loader, Shard, batch_stats
from features.dataset import Dataset, read_arrow
from features.durable.faults import InjectedFault, injected
from features.errors import ConfigError, DataError
from tests.ctr.dataset_fixture import FEATURES, SIDE, TABLES, Sizes, write_dataset, write_table
from tests.ctr.loaders import evaluation_loader

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset")), verify=True)


def loader(
    dataset: Dataset, split: str | tuple[str, ...] = "train", *, seed: int = 1, **knobs: Any
) -> Loader:
    return Loader(dataset, split, LoaderConfig(**{"batch_rows": 16, "window": 50, **knobs}), seed=seed)


def tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(batch, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def equal(one: Batch, other: Batch) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


# ---- content, against a plain reading of the files ----


def decode(column: IdColumn, unique: Tensor) -> list[Any]:
    """The IDs of every bag: an int, a list of ints, or a list of (int, weight)."""
    values: list[Any] = unique[column.inverse_indices].tolist()
    if column.weights is not None:
        values = list(zip(values, column.weights.tolist(), strict=True))
    if column.offsets is None:
        return values
    ends = column.offsets.tolist()
    return [values[a:b] for a, b in pairwise(ends)]


def expected_ids(row: dict[str, Any], name: str) -> Any:
    weights = row.get(f"weight.{name}")
    return row[f"id.{name}"] if weights is None else list(zip(row[f"id.{name}"], weights, strict=True))


def check_owners(batch: Batch, level: str, rows: Rows) -> None:
    """Compare all features of one level with the rows of the file."""
    ids = batch.request_ids if level == "request" else batch.candidate_ids
    dense = batch.request_dense if level == "request" else batch.candidate_dense
    features = [c for c in FEATURES if c.level == level]
    assert [*ids, *dense] == [c.name for c in features if c.kind != "dense"] + [
        c.name for c in features if c.kind == "dense"
    ]
    for feature in features:
        if feature.kind == "dense":
            assert dense[feature.name].tolist() == [row[f"dense.{feature.name}"] for row in rows]
        else:
            found = decode(ids[feature.name], batch.unique_ids[str(feature.table)])
            assert found == [expected_ids(row, feature.name) for row in rows]


def check_histories(batch: Batch, domain: str, requests: Rows, events: Rows, max_len: int) -> None:
    """Compare the events of one domain, newest kept, oldest first."""
    sequence = batch.sequences[domain]
    wanted = [events[r[f"start.{domain}"] : r[f"end.{domain}"]][-max_len:] for r in requests]
    lengths = [len(history) for history in wanted]
    assert sequence.offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert sequence.max_length == max(lengths)
    flat = [event for history in wanted for event in history]
    gaps = [
        r["time"] - event["time"] for r, history in zip(requests, wanted, strict=True) for event in history
    ]
    assert sequence.time_gap.tolist() == gaps
    ticks = [r["clock"] - e["clock"] for r, history in zip(requests, wanted, strict=True) for e in history]
    assert sequence.clock_gap.tolist() == ticks
    for side in SIDE[domain]:
        if side.kind == "dense":
            assert sequence.dense[side.name].tolist() == [event[f"dense.{side.name}"] for event in flat]
        else:
            found = decode(sequence.ids[side.name], batch.unique_ids[str(side.table)])
            assert found == [expected_ids(event, side.name) for event in flat]


@pytest.mark.parametrize("max_len", [{}, {"view": 3}])
@pytest.mark.parametrize("order", ["shuffle", "time"])
def test_batches_hold_what_the_files_hold(dataset: Dataset, order: str, max_len: dict[str, int]) -> None:
    data = dataset.split("train")
    requests = {row["request_id"]: row for row in data.requests.to_pylist()}
    impressions = {row["row_id"]: row for row in data.impressions.to_pylist()}
    events = {d: read_arrow(dataset.root / "events" / f"{d}.arrow").to_pylist() for d in SIDE}
    for batch in loader(dataset, order=order, max_len=max_len).iterate(0):
        of_requests = [requests[i] for i in batch.request_id.tolist()]
        of_rows = [impressions[i] for i in batch.row_id.tolist()]
        assert batch.user_id.tolist() == [row["user_id"] for row in of_requests]
        assert batch.time.tolist() == [row["time"] for row in of_requests]
        assert batch.label.tolist() == [row["label"] for row in of_rows]
        check_owners(batch, "request", of_requests)
        check_owners(batch, "candidate", of_rows)
        for domain in SIDE:
            check_histories(batch, domain, of_requests, events[domain], max_len.get(domain, 10))


def test_types_and_empty_histories(dataset: Dataset) -> None:
    batches = list(loader(dataset).iterate(0))
    batch = batches[0]
    assert {t.dtype for t in tensors(batch)} == {torch.int64, torch.float32, torch.bool}
    assert all(t.is_contiguous() for t in tensors(batch))
    lengths = torch.cat([b.sequences["view"].offsets.diff() for b in batches])
    assert 0 in lengths and 10 in lengths


def test_every_request_stays_whole(dataset: Dataset) -> None:
    data = dataset.split("train")
    rows_of = dict(
        zip(data.requests["request_id"].to_pylist(), data.requests["num_rows"].to_pylist(), strict=True)
    )
    first = dict(zip(rows_of, data.row_offsets.tolist(), strict=False))
    for batch in loader(dataset).iterate(3):
        assert batch.request_index.diff().min() >= 0
        assert batch.num_rows <= 16
        for i, request in enumerate(batch.request_id.tolist()):
            rows = batch.row_id[batch.request_index == i].tolist()
            assert rows == list(range(first[request], first[request] + rows_of[request]))


# ---- position ----


@pytest.mark.parametrize("split", ["train", ("train", "valid")])
@pytest.mark.parametrize("order", ["shuffle", "time"])
@pytest.mark.parametrize("plan", ["requests", "windows"])
def test_every_row_once_per_epoch(
    dataset: Dataset, split: str | tuple[str, ...], order: str, plan: str
) -> None:
    names = (split,) if isinstance(split, str) else split
    wanted = [row for name in names for row in dataset.split(name).impressions["row_id"].to_pylist()]
    orders = []
    for epoch in range(2):
        made = loader(dataset, split, order=order, plan=plan)
        found = torch.cat([b.row_id for b in made.iterate(epoch)]).tolist()
        assert sorted(found) == sorted(wanted)
        orders.append(found)
    assert (orders[0] == orders[1] == wanted) is (order == "time")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("plan", ["requests", "windows"])
def test_resuming_gives_the_same_batches(dataset: Dataset, workers: int, plan: str) -> None:
    whole = list(loader(dataset, workers=1, plan=plan).iterate(1))
    assert len(whole) == loader(dataset, plan=plan).steps_per_epoch(1)
    for start in (0, 1, 9, len(whole)):
        rest = list(loader(dataset, workers=workers, plan=plan).iterate(1, start))
        assert len(rest) == len(whole) - start
        assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("of", ["batch", "epoch"])
def test_ranks_share_a_plan_by_windows(dataset: Dataset, of: Literal["batch", "epoch"]) -> None:
    config = LoaderConfig(batch_rows=16, window=50, plan="windows")
    ranks = [Loader(dataset, "train", config, seed=1, shard=Shard(rank, 3, of=of)) for rank in range(3)]
    assert len({made.steps_per_epoch(0) for made in ranks}) == 1
    found = torch.cat([batch.row_id for made in ranks for batch in made.iterate(0)]).tolist()
    assert sorted(found) == dataset.split("train").impressions["row_id"].to_pylist()


def test_skipped_batches_are_not_made(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    made = loader(dataset)
    collate, count = made._collate, []
    monkeypatch.setattr(made, "_collate", lambda *args: count.append(1) or collate(*args))
    steps = made.steps_per_epoch(0)
    assert len(list(made.iterate(0, steps - 2))) == len(count) == 2


def test_another_seed_another_order(dataset: Dataset) -> None:
    one, other = (next(loader(dataset, seed=seed).iterate(0)) for seed in (1, 2))
    assert one.row_id.tolist() != other.row_id.tolist()


def test_evaluation_reads_in_file_order(dataset: Dataset) -> None:
    batches = list(evaluation_loader(dataset, "test", batch_rows=40, max_len={"view": 2}).iterate(0))
    assert (
        torch.cat([b.row_id for b in batches]).tolist()
        == dataset.split("test").impressions["row_id"].to_pylist()
    )
    assert max(b.sequences["view"].max_length for b in batches) == 2


# ---- unique IDs ----


def test_ids_are_unique_per_table(dataset: Dataset) -> None:
    for batch in loader(dataset).iterate(0):
        assert batch.unique_ids.keys() == TABLES.keys()
        for ids in batch.unique_ids.values():
            assert len(ids) == len(ids.unique())


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 1000), users=st.integers(1, 9), rows=st.integers(1, 6), batch_rows=st.integers(1, 40)
)
def test_features_that_share_a_table_never_mix(
    tmp_path_factory: pytest.TempPathFactory, seed: int, users: int, rows: int, batch_rows: int
) -> None:
    """Item IDs of candidates, views and purchases stand in one table, and come back as they were."""
    sizes = Sizes(users=users, requests=12, rows=rows, events=6, max_len=5, record_batch=5)
    small = Dataset(write_dataset(tmp_path_factory.mktemp("shared"), sizes, seed=seed))
    impressions = {row["row_id"]: row for row in small.split("train").impressions.to_pylist()}
    items = {d: read_arrow(small.root / "events" / f"{d}.arrow")["id.item"].to_pylist() for d in SIDE}
    requests = {row["request_id"]: row for row in small.split("train").requests.to_pylist()}
    for batch in loader(small, batch_rows=batch_rows, window=7).iterate(0):
        table = batch.unique_ids["item"]
        found = {"candidate": decode(batch.candidate_ids["item"], table)}
        wanted = {"candidate": [impressions[i]["id.item"] for i in batch.row_id.tolist()]}
        for domain in SIDE:
            found[domain] = decode(batch.sequences[domain].ids["item"], table)
            spans = [
                (requests[i][f"start.{domain}"], requests[i][f"end.{domain}"])
                for i in batch.request_id.tolist()
            ]
            wanted[domain] = [item for start, end in spans for item in items[domain][start:end]]
        assert found == wanted
        assert sorted(table.tolist()) == sorted({item for part in wanted.values() for item in part})


def test_stats_count_ids(dataset: Dataset) -> None:
    batch = next(loader(dataset).iterate(0))
    stats = batch_stats(batch, dataset.manifest, dim=8)
    items = [batch.candidate_ids["item"], *(batch.sequences[d].ids["item"] for d in SIDE)]
    count = sum(len(column.inverse_indices) for column in items)
    assert stats["unique_ratio.item"] == len(batch.unique_ids["item"]) / count
    assert stats["tokens"] == sum(len(s.time_gap) for s in batch.sequences.values())
    total = stats["bytes_plain"] / (8 + 4 * 8)
    assert stats["bytes_unique"] == stats["unique_ratio"] * stats["bytes_plain"] + 8 * total


# ---- what can be missing, and what can be wrong ----


def test_a_data_set_without_domains_or_rows(tmp_path: Path) -> None:
    bare = Dataset(write_dataset(tmp_path / "bare", Sizes(requests=5), domains=False))
    assert next(loader(bare).iterate(0)).sequences == {}
    write_table(tmp_path / "bare" / "valid" / "requests.arrow", slice_of(bare, "requests"), record_batch=None)
    write_table(
        tmp_path / "bare" / "valid" / "impressions.arrow", slice_of(bare, "impressions"), record_batch=None
    )
    empty = loader(bare, "valid")
    assert empty.steps_per_epoch(0) == 0 and list(empty.iterate(0)) == []


def slice_of(dataset: Dataset, name: str) -> dict[str, Any]:
    table = getattr(dataset.split("valid"), name).slice(0, 0)
    return {column: table[column] for column in table.column_names}


@pytest.mark.fault(18)
def test_a_domain_without_events(tmp_path: Path) -> None:
    def drop(columns: dict[str, Any]) -> dict[str, Any]:
        return {name: values.slice(0, 0) for name, values in columns.items()}

    root = write_dataset(tmp_path / "quiet", Sizes(requests=5))
    rewrite(root / "events" / "view.arrow", drop)
    for side in ("start", "end"):
        rewrite(root / "train" / "requests.arrow", lambda c, s=side: {**c, f"{s}.view": [0] * 5})
    batch = next(loader(Dataset(root, verify=False)).iterate(0))
    assert batch.sequences["view"].max_length == 0
    assert batch.sequences["view"].ids["tags"].offsets.tolist() == [0]


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace columns of an Arrow file by a new file; the old one stays mapped where it is open."""
    table = read_arrow(path)
    changed = path.with_suffix(".new")
    write_table(changed, change({name: table[name] for name in table.column_names}), record_batch=None)
    changed.replace(path)


@pytest.mark.fault(19)
def test_an_event_after_its_request_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "leak")
    rewrite(root / "events" / "buy.arrow", lambda c: {**c, "time": [t + 5000 for t in c["time"].to_pylist()]})
    message = (
        r"future event: .* request \d+ at \d+ s has an event of domain 'buy' \d+ s later; run ctr doctor"
    )
    with pytest.raises(DataError, match=message):
        list(loader(Dataset(root, verify=False)).iterate(0))


def test_a_pointer_outside_the_store_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "pointer")
    rewrite(root / "train" / "requests.arrow", lambda c: {**c, "end.view": [10**6] * 120})
    with pytest.raises(
        DataError, match=r"request \d+ must point into the \d+ events of domain 'view', got \d+ to 1000000"
    ):
        list(loader(Dataset(root, verify=False)).iterate(0))


@pytest.mark.fault(15)
def test_an_id_outside_its_table_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "id")
    rewrite(root / "events" / "view.arrow", lambda c: {**c, "id.brand": [30] * len(c["time"])})
    with pytest.raises(
        DataError, match=r"table 'brand' \(used by event.view brand\): IDs must lie in \[0, 30\)"
    ):
        list(loader(Dataset(root, verify=False)).iterate(0))


def test_wrong_lengths_are_named(dataset: Dataset) -> None:
    with pytest.raises(
        ConfigError, match=r"loader.max_len must name domains of \['buy', 'view'\], got 'click'"
    ):
        loader(dataset, max_len={"click": 3})
    with pytest.raises(
        ConfigError, match=r"loader.max_len.view must be at most 10 \(what the data set holds\), got 11"
    ):
        loader(dataset, max_len={"view": 11})


@pytest.mark.fault(30)
def test_an_exception_of_a_worker_arrives_where_its_batch_would(dataset: Dataset) -> None:
    before = threading.active_count()
    batches = loader(dataset, workers=2).iterate(0)
    with injected("loader.batch:5:raise"):
        assert len(list(islice(batches, 5))) == 5
        with pytest.raises(InjectedFault) as caught:
            next(batches)
    [note] = caught.value.__notes__
    root = dataset.root
    assert re.fullmatch(
        rf"in thread loader-[01], making batch 5 of epoch 0 from {root}/train and {root}/events", note
    )
    assert threading.active_count() == before


def test_stopping_early_ends_the_threads(dataset: Dataset) -> None:
    before = threading.active_count()
    batches = loader(dataset, workers=3).iterate(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before

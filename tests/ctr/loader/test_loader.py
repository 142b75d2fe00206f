"""ctr.loader: batches hold what the files hold and depend on their position alone."""

from __future__ import annotations

from itertools import pairwise
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
from tests.ctr.dataset_fixture import FEATURES, SIDE, TABLES, Sizes, write_dataset
from tests.ctr.loaders import evaluation_loader, loader

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset")), verify=True)


def tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(batch, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def equal(one: Batch, other: Batch) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


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
    collate, count = made._collate, list[object]()

    def counted(*args: Any) -> Batch:
        count.append(args)
        return collate(*args)

    monkeypatch.setattr(made, "_collate", counted)
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

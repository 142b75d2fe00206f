"""ctr.loader: data that lacks or contradicts something, and errors of threads, which come through."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from features.dataset import Dataset, read_arrow
from features.durable.faults import InjectedFault, injected
from features.errors import ConfigError, DataError
from tests.ctr.dataset_fixture import Sizes, write_dataset, write_table
from tests.ctr.loaders import loader


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset")), verify=True)


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
    none = {"start.view": [0] * 5, "end.view": [0] * 5}
    rewrite(root / "train" / "requests.arrow", lambda columns: {**columns, **none})
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

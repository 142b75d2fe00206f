"""ctr.loader.negatives: which rows an epoch has depends on (seed, epoch, row) alone; batches say the rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ctr.batch import Batch
from ctr.config import LoaderConfig
from ctr.loader import Loader, Shard
from ctr.loader.view import DatasetView
from ctr.predictions.weights import metric_weight
from features.dataset import SPLITS, Dataset, SplitData
from tests.ctr.dataset_fixture import Sizes, write_dataset
from tests.ctr.task_dataset import with_tasks

RATE = 0.25


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset"), Sizes(requests=400)))


def batches(
    dataset: Dataset,
    epoch: int = 0,
    *,
    seed: int = 1,
    shard: Shard | None = None,
    start: int = 0,
    **knobs: Any,
) -> list[Batch]:
    config = LoaderConfig(**{"batch_rows": 40, "window": 50, **knobs})
    loader = Loader(dataset, "train", config, seed=seed, shard=shard, negatives=RATE)
    found = list(loader.iterate(epoch, start))
    assert len(found) == loader.steps_per_epoch(epoch) - start
    return found


def rows(found: list[Batch]) -> list[int]:
    return sorted(row for batch in found for row in batch.row_id.tolist())


def test_all_positives_and_a_share_of_the_negatives(dataset: Dataset) -> None:
    shown = dataset.split("train").impressions
    label = dict(zip(shown["row_id"].to_pylist(), shown["label"].to_pylist(), strict=True))
    found = batches(dataset)
    kept = rows(found)
    assert len(set(kept)) == len(kept)
    assert {row for row, y in label.items() if y} <= set(kept)
    negatives = [y for y in label.values()].count(0)
    share = sum(1 - label[row] for row in kept) / negatives
    assert abs(share - RATE) < 4 * math.sqrt(RATE * (1 - RATE) / negatives)
    for batch in found:
        assert batch.label.tolist() == [label[row] for row in batch.row_id.tolist()]
        assert batch.request_index.unique().tolist() == list(range(batch.num_requests))  # each has a row
        assert batch.offset is not None and batch.offset.tolist() == pytest.approx(
            [-math.log(RATE)] * batch.num_rows
        )
        assert batch.num_rows <= 40


def test_it_depends_on_seed_epoch_and_row_alone(dataset: Dataset) -> None:
    kept = rows(batches(dataset))
    for knobs in ({"batch_rows": 7}, {"workers": 3}, {"window": 1000}, {"order": "time"}):
        assert rows(batches(dataset, **knobs)) == kept
    assert rows(batches(dataset, 1)) != kept and rows(batches(dataset, seed=2)) != kept
    assert [b.row_id.tolist() for b in batches(dataset, 1, start=3)] == [
        b.row_id.tolist() for b in batches(dataset, 1)[3:]
    ]


def test_ranks_and_micro_batches_share_the_kept_rows(dataset: Dataset) -> None:
    ranks = [batches(dataset, shard=Shard(rank, 2), micro_batches=2) for rank in range(2)]
    for whole, *shares in zip(batches(dataset), *ranks, strict=True):
        parts = [part for share in shares for part in share.parts]
        assert sorted(torch.cat([p.row_id for p in parts]).tolist()) == sorted(whole.row_id.tolist())
        assert {p.targets["label"].total for p in parts} == {whole.num_rows} == {p.total_rows for p in parts}


def test_several_tasks_lose_the_same_rows(dataset: Dataset) -> None:
    kept = rows(batches(dataset))
    found = batches(with_tasks(dataset))
    assert rows(found) == kept
    assert all(batch.metric_weight("buy") is not None for batch in found)


def test_windows_without_a_row_make_no_batch(dataset: Dataset) -> None:
    data = dataset.split("train")
    none = data.impressions.set_column(
        data.impressions.column_names.index("label"), "label", pa.array(np.zeros(data.impressions.num_rows))
    )
    view = DatasetView(dataset, {"train": SplitData(data.info, data.requests, none)})
    found = batches(view, window=2)  # windows of a few rows, some of which keep none
    assert found and all(batch.num_rows for batch in found)
    assert len(rows(found)) < data.impressions.num_rows / 2


def sampled(dataset: Dataset, sampling: Any) -> Dataset:
    """The data set as if its log had been sampled; None: as it is."""

    def with_rates(data: SplitData) -> SplitData:
        rate = np.where(np.arange(data.impressions.num_rows) % 2, 0.5, 0.1).astype(np.float32)
        return SplitData(
            data.info, data.requests, data.impressions.append_column("keep_rate", pa.array(rate))
        )

    view = DatasetView(dataset, {name: with_rates(dataset.split(name)) for name in SPLITS})
    view.manifest = view.manifest.model_copy(update={"sampling": sampling})
    return view


@pytest.mark.parametrize("sampling", [0.2, "keep_rate"])
def test_a_sampled_log_brings_its_rates(dataset: Dataset, sampling: Any) -> None:
    view = sampled(dataset, sampling)
    shown = view.split("train").impressions
    rate = shown["keep_rate"].to_numpy() if sampling == "keep_rate" else np.full(shown.num_rows, sampling)
    config = LoaderConfig(batch_rows=40, order="time")
    found = list(Loader(view, "train", config, seed=1).iterate(0))
    offset = torch.cat([batch.offset for batch in found if batch.offset is not None]).numpy()
    assert offset == pytest.approx(-np.log(rate), rel=1e-6)
    weights = np.concatenate([batch.metric_weight("label").numpy() for batch in found])  # type: ignore[union-attr]
    label = shown["label"].to_numpy()
    assert weights == pytest.approx(np.where(label > 0, 1, 1 / rate), rel=1e-6)
    assert metric_weight(view.manifest, "label", shown) == pytest.approx(weights, rel=1e-6)
    again = batches(view, order="time")  # sampled once more in training
    both = {row: o for b in again for row, o in zip(b.row_id.tolist(), b.offset.tolist(), strict=True)}  # type: ignore[union-attr]
    every = dict(zip(shown["row_id"].to_pylist(), -np.log(rate) - np.log(RATE), strict=True))
    assert both == pytest.approx({row: every[row] for row in both}, rel=1e-5)


def test_a_plan_by_windows_has_the_same_rows(dataset: Dataset) -> None:
    """It asks for the kept rows of every window, and cuts those."""
    for epoch in (0, 1):
        cut = batches(dataset, epoch, plan="windows")
        assert rows(cut) == rows(batches(dataset, epoch)) and max(b.num_rows for b in cut) <= 40
    whole = [batch.row_id.tolist() for batch in cut]
    assert [b.row_id.tolist() for b in batches(dataset, 1, start=3, plan="windows")] == whole[3:]

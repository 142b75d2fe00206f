"""Synthetic data sets: real batches come out, of the shape that was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctr.batch import Batch
from ctr.bench.shape import Shape
from ctr.bench.synthetic import table_rows, write_dataset
from ctr.bench.workload import Workload, bench_config, first_batches, models
from features.dataset import Dataset

SHAPE = replace(Shape().small(), requests=12, rows_per_request=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SHAPE)


def batches(dataset: Dataset, model: str = "LONGER", requests: int = 4) -> list[Batch]:
    return first_batches(dataset, bench_config(dataset, model, requests=requests), 3)


def test_batches_hold_what_the_shape_says(dataset: Dataset) -> None:
    found = batches(dataset)
    assert [(b.num_requests, b.num_rows) for b in found] == [(4, 12)] * 3
    longest = dict.fromkeys(SHAPE.domains, 0)
    for batch in found:
        assert set(batch.unique_ids) == set(table_rows(SHAPE)) and batch.label.dtype == torch.float32
        for table, ids in batch.unique_ids.items():
            assert len(ids.unique()) == len(ids) and ids.max() < table_rows(SHAPE)[table]
        for name, events in batch.sequences.items():
            assert set(events.ids) == {f"{name}_{i}" for i in range(3)}
            assert (events.time_gap > 0).all() and events.offsets[-1] == len(events.time_gap)
            longest[name] = max(longest[name], events.max_length)
    assert longest == {name: domain.length for name, domain in SHAPE.domains.items()}


def test_the_same_seed_gives_the_same_data(tmp_path: Path, dataset: Dataset) -> None:
    again = write_dataset(tmp_path / "again", SHAPE)
    assert again.manifest == dataset.manifest
    assert write_dataset(tmp_path / "other", SHAPE, seed=2).manifest.files != again.manifest.files
    Dataset(again.root, verify=True)


def test_the_default_is_the_size_of_the_competition() -> None:
    shape = Shape()
    assert [len(d.tables) for d in shape.domains.values()] == [7, 12, 7, 9]
    assert [d.length for d in shape.domains.values()] == [256, 256, 512, 512]
    assert 2.4e6 < sum(table_rows(shape).values()) < 2.6e6
    assert [d.length for d in shape.longer(4).domains.values()] == [1024, 1024, 2048, 2048]


def test_skew_lowers_the_share_of_unique_ids(tmp_path: Path) -> None:
    shares = []
    for skew in (1.0, 8.0):
        made = write_dataset(tmp_path / str(skew), replace(SHAPE, skew=skew))
        (batch, *_) = batches(made)
        shares.append(sum(len(ids) for ids in batch.unique_ids.values()))
    assert shares[1] < 0.7 * shares[0]


@pytest.mark.parametrize("model", models())
def test_every_model_trains_on_it(dataset: Dataset, model: str) -> None:
    workload = Workload.build(bench_config(dataset, model, requests=4), dataset.manifest)
    (batch, *_) = batches(dataset)
    losses = [workload.step(batch) for _ in range(3)]
    assert all(0.0 < loss < 2.0 for loss in losses) and len(set(losses)) == 3


def test_tokens_are_split_automatically_where_the_groups_do_not_fit(dataset: Dataset) -> None:
    five = dataset.manifest.model_copy(
        update={"tokens": {"all": [c.name for c in dataset.manifest.features]}}
    )
    other = Dataset(dataset.root)
    other.manifest = five
    config = bench_config(other, "HyFormer, SwiGLU", requests=4)
    assert config.model.tokenizer.kind == "auto" and config.model.tokenizer.tokens == 8
    assert bench_config(dataset, "HyFormer, SwiGLU", requests=4).model.tokenizer.kind == "semantic"

"""What of a history reaches a model: the newest events, in their order, whatever the place of the cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.build import build_model
from ctr.config import EmbeddingConfig, LoaderConfig
from ctr.embedding import make_tables
from ctr.loader import Loader
from ctr.models.registry import model_config
from features.dataset import Dataset
from tests.ctr import batches
from tests.ctr.dataset_fixture import TABLES, Sizes, write_dataset

KINDS = ["hyformer", "longer", "two_stage", "one_trans", "hstu"]
SIZES = Sizes(users=9, requests=30, events=12, max_len=9)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("data") / "dataset", SIZES))


def make_model(kind: str, **options: Any) -> nn.Module:
    own = {"queries": {"view": 2}} if kind == "hyformer" else {}
    config = model_config(kind=kind, d_model=12, heads=2, positions=16, **own, **options)
    return build_model(batches.manifest(), config, dim=batches.DIM, seed=3).eval()


def read(dataset: Dataset, **max_len: int) -> Batch:
    """The whole validation split as one batch."""
    config = LoaderConfig(batch_rows=10_000, order="time", max_len=max_len)
    (batch,) = Loader(dataset, "valid", config, seed=0).iterate(0)
    return batch


def score(model: nn.Module, batch: Batch) -> Tensor:
    tables = make_tables(TABLES, EmbeddingConfig(dim=batches.DIM, init_std=0.5), seed=1)
    with torch.no_grad():
        return model(batch, tables.lookup(batch.unique_ids))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 4])
def test_only_the_newest_max_len_events_matter(dataset: Dataset, kind: str, count: int) -> None:
    model, whole = make_model(kind), read(dataset)
    cut = read(dataset, view=count, buy=count)
    by_hand = batches.newest(whole, count)
    assert whole.sequences["view"].max_length > 4
    torch.testing.assert_close(score(model, cut), score(model, by_hand), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(score(model, cut), score(model, whole), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_events_matters(dataset: Dataset, kind: str) -> None:
    model, batch = make_model(kind), read(dataset)
    view = batch.sequences["view"]
    bounds = zip(view.offsets[:-1].tolist(), view.offsets[1:].tolist(), strict=True)
    flipped = batches.take_events(view, [torch.arange(start, stop).flip(0) for start, stop in bounds])
    flipped = replace(
        flipped, time_gap=view.time_gap
    )  # the clock stays: only what happened when is exchanged
    other = replace(batch, sequences={**batch.sequences, "view": flipped})
    changed = (score(model, batch) - score(model, other)).abs() > 1e-5
    long = view.offsets.diff()[batch.request_index] > 1
    assert not changed[~long].any() and changed[long].float().mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_scored_as_its_parts_are(dataset: Dataset, kind: str) -> None:
    """Padding and the company of other requests change nothing."""
    model, whole = make_model(kind), read(dataset)
    config = LoaderConfig(batch_rows=5, order="time")
    parts = list(Loader(dataset, "valid", config, seed=0).iterate(0))
    assert len(parts) > 5
    together = torch.cat([score(model, batch) for batch in parts])
    torch.testing.assert_close(together, score(model, whole), atol=1e-6, rtol=1e-5)

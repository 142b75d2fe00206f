"""ID dropout: alike for all uses of an ID in a request, whatever the batches are, and in training alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from ctr.batch import Batch, IdColumn
from ctr.build import scoring_loader, training_loader
from ctr.config import LoaderConfig, RunConfig, parse_config
from ctr.generate.config import GenerateConfig
from ctr.loader import Loader, Shard
from ctr.loader.collate import batch_columns, column_tables
from ctr.loader.id_dropout import IdDropout, make_id_dropout
from ctr.runs.identity import identity
from ctr.tokens.config import NgramConfig
from ctr.tokens.ngram import ngram_fields, ngram_ids
from features.dataset import Dataset, Manifest
from features.errors import ConfigError
from tests.ctr.dataset_fixture import write_dataset

RATE = {"item": 0.3}
# (request, use) → the rows of its IDs in order; a use is a candidate's feature or a field of a domain.
Uses = dict[tuple[int, tuple[str, str]], list[int]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset")))


def loader(dataset: Dataset, rates: dict[str, float], *, shard: Shard | None = None, **knobs: Any) -> Loader:
    config = LoaderConfig(**{"batch_rows": 16, "window": 50, "id_dropout": rates, **knobs})
    return Loader(dataset, "train", config, seed=1, shard=shard)


def uses(batches: list[Batch], manifest: Manifest) -> Uses:
    """All IDs by request, feature and place."""
    found: Uses = {}
    tables = column_tables(manifest)
    for batch in batches:
        for key, column in batch_columns(batch).items():
            rows = batch.unique_ids[tables[key]][column.inverse_indices].tolist()
            for request, row in zip(owners(batch, key[0], column), rows, strict=True):
                found.setdefault((request, key), []).append(row)
    return found


def owners(batch: Batch, level: str, column: IdColumn) -> list[int]:
    """The request of each ID of a column."""
    bags = torch.arange(batch.num_requests)
    if level == "candidate":
        bags = batch.request_index
    elif level != "request":
        bags = torch.repeat_interleave(bags, batch.sequences[level.removeprefix("event.")].offsets.diff())
    if column.offsets is not None:
        bags = torch.repeat_interleave(bags, column.offsets.diff())
    return batch.request_id[bags].tolist()


def pairs(
    dataset: Dataset, rates: dict[str, float], epoch: int = 0, **knobs: Any
) -> set[tuple[int, int, int]]:
    """(request, item, what became of it) of all uses of the table of items."""
    plain = uses(list(loader(dataset, {}).iterate(0)), dataset.manifest)
    found = uses(list(loader(dataset, rates, **knobs).iterate(epoch)), dataset.manifest)
    tables = column_tables(dataset.manifest)
    return {
        (request, was, now)
        for (request, key), rows in plain.items()
        for was, now in zip(rows, found[request, key], strict=True)
        if tables[key] == "item"
    }


def test_without_a_rate_nothing_changes(dataset: Dataset) -> None:
    plain = uses(list(loader(dataset, {}).iterate(0)), dataset.manifest)
    assert uses(list(loader(dataset, {"item": 0.0}).iterate(0)), dataset.manifest) == plain
    assert make_id_dropout({"item": 0.0}, dataset.manifest, seed=1) is None


def test_only_known_ids_of_the_named_table_change_and_become_unknown(dataset: Dataset) -> None:
    plain = uses(list(loader(dataset, {}).iterate(0)), dataset.manifest)
    found = uses(list(loader(dataset, RATE).iterate(0)), dataset.manifest)
    tables = column_tables(dataset.manifest)
    assert plain.keys() == found.keys()
    changed = {key for (request, key), rows in plain.items() if found[request, key] != rows}
    assert changed == {key for key, table in tables.items() if table == "item"}
    for _, was, now in pairs(dataset, RATE):
        assert now == was or (now == 1 and was > 1)


def test_every_use_of_an_id_in_a_request_is_alike(dataset: Dataset) -> None:
    found = pairs(dataset, {"item": 0.5})
    fate = {(request, was): now for request, was, now in found}
    assert len(fate) == len(found)  # one fate per ID of a request
    several = {
        request_item for request_item, times in used(dataset).items() if times > 1 and request_item[1] > 1
    }
    assert len(several) > 50
    assert 0.3 < np.mean([fate[request_item] == 1 for request_item in several]) < 0.7


def used(dataset: Dataset) -> Counter[tuple[int, int]]:
    """How often each item stands in each request, as candidate, view or purchase."""
    plain = uses(list(loader(dataset, {}).iterate(0)), dataset.manifest)
    tables = column_tables(dataset.manifest)
    return Counter(
        (request, row) for (request, key), rows in plain.items() if tables[key] == "item" for row in rows
    )


def test_the_share_is_the_rate(dataset: Dataset) -> None:
    drawn = [now == 1 for epoch in range(4) for _, was, now in pairs(dataset, RATE, epoch) if was > 1]
    assert len(drawn) > 2000
    assert abs(np.mean(drawn) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / len(drawn))


@pytest.mark.parametrize("knobs", [{"batch_rows": 7}, {"window": 11}, {"order": "time"}, {"workers": 3}])
def test_draws_do_not_depend_on_the_batches(dataset: Dataset, knobs: dict[str, Any]) -> None:
    assert pairs(dataset, RATE, **knobs) == pairs(dataset, RATE)


def test_another_epoch_or_seed_draws_anew(dataset: Dataset) -> None:
    assert pairs(dataset, RATE, epoch=1) != pairs(dataset, RATE)
    ids, requests = np.arange(2, 200), np.arange(198)
    one, two = (IdDropout(RATE, {"item": 1}, seed)("item", ids, requests, epoch=0) for seed in (1, 2))
    assert (one != two).any()


def test_a_resumed_epoch_has_the_same_draws(dataset: Dataset) -> None:
    whole, rest = list(loader(dataset, RATE).iterate(1)), list(loader(dataset, RATE).iterate(1, 9))
    assert [b.row_id.tolist() for b in whole[9:]] == [b.row_id.tolist() for b in rest]
    assert uses(whole[9:], dataset.manifest) == uses(rest, dataset.manifest)


def test_ranks_and_micro_batches_have_the_draws_of_one_process(dataset: Dataset) -> None:
    alone = uses(list(loader(dataset, RATE).iterate(0)), dataset.manifest)
    ranks = [list(loader(dataset, RATE, shard=Shard(rank, 2)).iterate(0)) for rank in range(2)]
    assert uses([batch for part in ranks for batch in part], dataset.manifest) == alone
    parts = [p for batch in loader(dataset, RATE, micro_batches=3).iterate(0) for p in batch.parts]
    assert uses(parts, dataset.manifest) == alone


def test_n_grams_are_of_the_ids_that_are_left(dataset: Dataset) -> None:
    fields = ngram_fields(dataset.manifest, NgramConfig(fields=["view.item"], rows=500), dim=8)
    config = LoaderConfig(batch_rows=16, id_dropout={"item": 0.5})
    batch = next(Loader(dataset, "train", config, seed=1, ngrams=fields).iterate(0))
    view = batch.sequences["view"]
    items = batch.unique_ids["item"][view.ids["item"].inverse_indices].numpy()
    assert 0.2 < (items == 1).mean() < 0.8
    for name, rows in ngram_ids(items, view.offsets.numpy(), fields[0]).items():
        assert (batch.unique_ids[name][view.ids[name].inverse_indices].numpy() == rows).all()


def test_scoring_knows_all_ids(dataset: Dataset) -> None:
    config = run(dataset, RATE)
    plain, scored = (
        uses(list(scoring_loader(c, dataset, "train").iterate(0)), dataset.manifest)
        for c in (run(dataset, {}), config)
    )
    assert plain == scored
    assert uses(list(training_loader(config, dataset).iterate(0)), dataset.manifest) != plain


def test_a_run_with_another_rate_is_another_run(dataset: Dataset) -> None:
    rates: list[dict[str, float]] = [{}, RATE, {"item": 0.4}]
    found = [identity(run(dataset, r), dataset.manifest) for r in rates]
    assert all(one != two for one, two in pairwise(found))


def run(dataset: Dataset, rates: dict[str, float]) -> RunConfig:
    return parse_config({"dataset": str(dataset.root), "run": "r", "loader": {"id_dropout": rates}})


def test_unknown_rows_are_chosen_by_the_id() -> None:
    dropout = IdDropout({"item": 0.9}, {"item": 4}, seed=3)
    ids = np.tile(np.arange(100, dtype=np.uint8), 50)
    found = dropout("item", ids, np.repeat(np.arange(50), 100), epoch=0)
    assert found.dtype == np.uint8
    assert (found[ids <= 4] == ids[ids <= 4]).all()  # missing, or unknown already
    rows = {int(i): {*found[ids == i].tolist()} - {int(i)} for i in range(5, 100)}
    assert all(len(unknown) == 1 for unknown in rows.values())
    assert set().union(*rows.values()) == {1, 2, 3, 4}


def test_what_is_no_vocabulary_is_refused(dataset: Dataset) -> None:
    with pytest.raises(
        ConfigError, match=r"must name ID tables .* \['brand', 'item', 'tag', 'user'\], got 'age'"
    ):
        loader(dataset, {"age": 0.1})
    with pytest.raises(ConfigError, match=r"got 'tags'; the feature of that name is in table 'tag'"):
        loader(dataset, {"tags": 0.1})
    hashed = dataset.manifest.tables["item"].model_copy(update={"encode": "hash"})
    manifest = dataset.manifest.model_copy(update={"tables": dataset.manifest.tables | {"item": hashed}})
    with pytest.raises(
        ConfigError, match=r"got 'item'; its values are encoded by hash, so that none is ever"
    ):
        make_id_dropout(RATE, manifest, seed=1)
    with pytest.raises(ConfigError, match=r"loader.id_dropout.item: Input should be less than 1, got 1.0"):
        run(dataset, {"item": 1.0})


def test_a_generator_refuses_it() -> None:
    plain = {"dataset": "d", "run": "r", "ids": {"run": "i"}, "train": {"metric": "ne"}}
    generator = {"domain": "view", "event": "item", "candidate": "item"}
    GenerateConfig.model_validate({**plain, "generator": generator})
    with pytest.raises(ValueError, match=r"loader.id_dropout belongs to click models"):
        GenerateConfig.model_validate({**plain, "generator": generator, "loader": {"id_dropout": RATE}})

"""Views, baselines, metrics and settings of generation, against definitions written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ctr.generate.baselines import ItemNeighbours, Popularity
from ctr.generate.config import StrategyConfig
from ctr.generate.metrics import diversity, ndcg, recall
from ctr.generate.ordering import by_expected_utility, by_votes
from ctr.generate.views import Donors, covering_requests, last_requests, spread
from ctr.loader.view import DatasetView, pick_requests
from features.dataset import Dataset
from features.errors import ConfigError
from tests.ctr.dataset_fixture import Sizes, write_dataset
from tests.ctr.loaders import evaluation_loader


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("data") / "set", Sizes(), seed=2))


def test_last_and_covering_requests(dataset: Dataset) -> None:
    data = dataset.split("train")
    users, clock = data.requests["user_id"].to_numpy(), data.requests["clock"].to_numpy()
    for position in last_requests(data):
        assert clock[position] == clock[users == users[position]].max()
    assert len(last_requests(data)) == len(set(users))
    picked = covering_requests(data, "view", 3)
    ends = data.requests["end.view"].to_numpy().astype(int)
    for user in set(users):
        own = np.flatnonzero(users == user)
        taken = sorted(ends[[p for p in picked if p in set(own)]])
        assert taken[-1] == ends[own].max()
        # whatever the user's requests can show lies within a few events of a taken request
        for end in ends[own]:
            assert min(t for t in taken if t >= end) - end < 3


def test_a_view_gives_the_loader_chosen_requests(dataset: Dataset) -> None:
    data = dataset.split("test")
    picked = np.array([7, 2, 90])
    view = DatasetView(dataset, {"test": pick_requests(data, picked)})
    batches = list(evaluation_loader(view, "test", batch_rows=1000).iterate(0))
    assert len(batches) == 1
    whole = data.requests["request_id"].to_numpy()
    assert batches[0].request_id.tolist() == whole[picked].tolist()
    rows = [r for p in picked for r in range(data.row_offsets[p], data.row_offsets[p + 1])]
    assert batches[0].row_id.tolist() == data.impressions["row_id"].to_numpy()[rows].tolist()
    assert view.split("train").requests.num_rows == dataset.split("train").requests.num_rows
    assert spread(np.arange(10), 3).tolist() == [0, 4, 9] and spread(np.arange(10), 0).tolist() == [
        *range(10)
    ]


def test_donors_are_the_newest_rows_strictly_before(dataset: Dataset) -> None:
    donors = Donors(dataset, candidate="item", blind=["price", "tags"])
    rows: list[tuple[int, int]] = []
    for split in ("train", "valid", "test"):
        data = dataset.split(split)
        clocks = np.repeat(data.requests["clock"].to_numpy(), np.diff(data.row_offsets))
        rows += zip(data.impressions["id.item"].to_numpy().tolist(), clocks.tolist(), strict=True)
    moments = sorted({clock for _, clock in rows})[::40]
    for item in sorted({item for item, _ in rows})[::9]:
        for moment in moments:
            found = donors.find(np.array([item]), np.array([moment]))[0]
            before = [clock for other, clock in rows if other == item and clock < moment]
            assert (found == -1) == (not before)
            if before:
                assert rows[found] == (item, max(before))
    assert donors.find(np.array([10**6]), np.array([10**9])).tolist() == [-1]


def test_pairs_are_scored_as_rows_with_blind_features_missing(dataset: Dataset) -> None:
    data = dataset.split("test")
    donors = Donors(dataset, candidate="item", blind=["price", "tags"])
    rows = np.array([3, 1, 5])
    split = donors.split(data, np.array([4, 9]), np.array([2, 1]), rows)
    view = DatasetView(dataset, {"test": split})
    batch = next(iter(evaluation_loader(view, "test", batch_rows=100).iterate(0)))
    items = donors.impressions["id.item"].to_numpy()[rows]
    column = batch.candidate_ids["item"]
    assert batch.unique_ids["item"][column.inverse_indices].tolist() == items.tolist()
    assert batch.request_index.tolist() == [0, 0, 1] and batch.row_id.tolist() == [0, 1, 2]
    assert not batch.candidate_dense["price"].any()
    assert batch.candidate_ids["tags"].offsets.tolist() == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match="ranker_blind"):
        Donors(dataset, candidate="item", blind=["age"])


def test_item_neighbours_against_the_formula() -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 12, 60), random.integers(0, 8, 60)
    seen = np.zeros((12, 8))
    seen[users, items] = 1
    size = np.maximum(np.sqrt(seen.sum(0)), 1)
    cosine = (seen.T @ seen) / size[:, None] / size
    np.fill_diagonal(cosine, 0)
    for row in cosine:
        row[np.argsort(-row, kind="stable")[3:]] = 0
    history, gone = np.array([1, 4, 4]), np.array([1, 4])
    scores = cosine[[1, 4, 4]].sum(0)
    scores[gone] = 0
    found = ItemNeighbours(users, items, rows=8, neighbours=3).rank([history], [gone], items=4)[0]
    wanted = [i for i in np.argsort(-scores, kind="stable")[:4] if scores[i] > 0]
    assert [item for item, _ in found] == wanted
    np.testing.assert_allclose([score for _, score in found], scores[wanted])


def test_popularity_skips_what_was_seen() -> None:
    ranked = Popularity(np.array([0, 5, 9, 7])).rank([np.array([2]), np.array([0])], items=2)
    assert [[item for item, _ in own] for own in ranked] == [[3, 1], [2, 3]]


def test_metrics_of_several_targets() -> None:
    assert recall([[1, 2, 3]], [{2, 9}], k=3) == 0.5
    best = 1 + 1 / math.log2(3)
    assert ndcg([[1, 2, 3]], [{1, 3}], k=3) == pytest.approx((1 + 1 / math.log2(4)) / best)
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - unit[a] @ unit[b] for a, b in ((0, 2), (0, 4), (2, 4))]
    assert diversity([[0, 2, 4, 1], [3]], vectors, k=3) == pytest.approx(np.mean(pairs))


def test_votes_and_expected_utility() -> None:
    items, vectors = np.array([1, 2, 2, 0]), np.array([[1.0, 0], [1, 1], [0, 2]])
    assert by_votes(items) == [(2, 0.5), (1, 0.25), (0, 0.25)]
    r = math.sqrt(0.5)
    exact = {0: 0.25 + 0.25 * r, 1: 0.25 + 0.75 * r, 2: 0.5 + 0.25 * r}
    found = by_expected_utility(items, vectors)
    assert [item for item, _ in found] == sorted(exact, key=lambda item: -exact[item])
    assert dict(found) == pytest.approx(exact)


@pytest.mark.parametrize(
    "how",
    [
        {"horizon": 2},
        {"top_k": 3},
        {"mode": "sample", "diversity": {}},
        {"width": 6, "diversity": {"groups": 4}},
        {"draft": "runs/x"},
        {"order": "vote"},
        {"reward": {}, "constrained": False},
    ],
    ids=str,
)
def test_choices_that_do_not_go_together_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="does not go with mode"):
        StrategyConfig.model_validate(how)

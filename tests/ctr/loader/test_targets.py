"""ctr.loader.targets: batches carry the labels, masks and weights of the files, whole and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctr.batch import Batch, take_candidates
from ctr.config import LoaderConfig
from ctr.loader import Loader, Shard
from ctr.loader.targets import make_targets
from features.dataset import Dataset, Manifest, TaskInfo
from tests.ctr.dataset_fixture import write_dataset
from tests.ctr.task_dataset import TASKS, with_tasks


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset")))


@pytest.fixture(scope="module")
def dataset(plain: Dataset) -> Dataset:
    return with_tasks(plain)


def batches(dataset: Dataset, *, shard: Shard | None = None, **knobs: int) -> list[Batch]:
    config = LoaderConfig(batch_rows=40, window=50, order="time", **knobs)
    return list(Loader(dataset, "train", config, seed=1, shard=shard).iterate(0))


def test_one_label_is_one_task_that_is_known_everywhere(plain: Dataset) -> None:
    assert plain.manifest.tasks == [TaskInfo()] and "tasks" not in plain.manifest.model_dump()
    for batch in batches(plain):
        (target,) = batch.targets.values()
        assert list(batch.targets) == ["label"] and batch.label is target.label
        assert target.known.all() and target.weight is None and target.total is None


def test_targets_are_those_of_the_files(dataset: Dataset) -> None:
    shown = dataset.split("train").impressions
    for batch in batches(dataset):
        rows = np.searchsorted(shown["row_id"].to_numpy(), batch.row_id.numpy())
        assert list(batch.targets) == [task.name for task in TASKS]
        for task in TASKS:
            target, expected = batch.targets[task.name], shown[f"target.{task.name}"].take(rows).to_pylist()
            assert target.known.tolist() == [value is not None for value in expected]
            values = [0.0 if v is None else np.log1p(v) if task.scale else v for v in expected]
            assert target.label.tolist() == pytest.approx(values, rel=1e-6)
        assert batch.targets["click"].weight is None
        weight = batch.targets["buy"].weight
        assert weight is not None and weight.tolist() == shown["target_weight.buy"].take(rows).to_pylist()


@pytest.mark.parametrize("knobs", [{"micro_batches": 3}, {"micro_batches": 1}])
def test_parts_know_what_the_rows_of_the_whole_weigh(dataset: Dataset, knobs: dict[str, int]) -> None:
    ranks = [batches(dataset, shard=Shard(rank, 2), **knobs) for rank in range(2)]
    for whole, *shares in zip(batches(dataset), *ranks, strict=True):
        parts = [part for share in shares for part in (share.parts or (share,))]
        for name, target in whole.targets.items():
            weight = torch.ones_like(target.label) if target.weight is None else target.weight
            assert {part.targets[name].total for part in parts} == {float(weight[target.known].sum())}
            assert sum(int(part.targets[name].known.sum()) for part in parts) == int(target.known.sum())


def test_a_rank_without_rows_has_empty_targets(dataset: Dataset) -> None:
    shares = batches(dataset, shard=Shard(63, 64))  # fewer requests than ranks
    assert all(len(batch.targets["buy"].known) == batch.num_rows == 0 for batch in shares)


def test_picked_candidates_keep_their_targets(dataset: Dataset) -> None:
    batch = batches(dataset)[0]
    picked = torch.tensor([3, 0, 3])
    taken = take_candidates(batch, picked)
    for name, target in batch.targets.items():
        assert torch.equal(taken.targets[name].known, target.known[picked])
        assert torch.equal(taken.targets[name].label, target.label[picked])


def test_a_request_that_is_served_knows_no_label() -> None:
    targets = make_targets(TASKS, {"row_id": np.arange(3)})
    assert all(not target.known.any() and len(target.label) == 3 for target in targets.values())


def test_a_manifest_names_its_tasks_and_an_old_one_has_one_label(dataset: Dataset) -> None:
    again = Manifest.model_validate_json(dataset.manifest.model_dump_json())
    assert again.tasks == TASKS and again.digest() == dataset.manifest.digest()

"""IDs as categories of a baseline: which are kept, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctr.baseline import features, fit, score_baseline
from ctr.baseline.features import REST, Categories, dense_matrix
from features.dataset import Dataset, SplitData
from tests.ctr.dataset_fixture import Sizes, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("baseline"), Sizes(requests=400, users=50)))


def test_the_most_frequent_ids_of_training_are_categories(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "MAX_CATEGORIES", 5)
    monkeypatch.setattr(features, "MIN_ROWS", 2)
    train = dataset.split("train")
    found = Categories.counted(dataset, train)
    assert [c.name for c in found.columns] == ["user", "item"]  # lists of values are left out
    item = train.impressions["id.item"].to_numpy()
    counts = {i: int((item == i).sum()) for i in range(2, 200)}  # 0 is missing, 1 unknown
    best = sorted(counts, key=lambda i: (-counts[i], i))[:5]
    of = found.category_of[1]
    assert [int(of[i]) for i in best] == [1, 2, 3, 4, 5]
    assert np.isnan(of[0]) and of[1] == REST and (np.delete(of, [0, *best]) == REST).all()


def test_rare_ids_and_those_that_came_later_are_the_rest(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = dataset.split("train")
    item = train.impressions["id.item"].to_numpy()
    monkeypatch.setattr(features, "MIN_ROWS", int(np.bincount(item).max()))
    of = Categories.counted(dataset, train).category_of[1]
    often = np.flatnonzero(of > 0)
    assert 1 <= len(often) < 5 and all((item == i).sum() == np.bincount(item).max() for i in often)
    matrix = Categories.counted(dataset, train).matrix(dataset.split("test"))
    rows = dataset.split("test").info.impressions
    assert matrix.shape == (rows, 2) and matrix.dtype == np.float32 and (matrix[:, 1] == REST).any()


def test_features_of_a_request_are_repeated_for_its_candidates(dataset: Dataset) -> None:
    data = dataset.split("test")
    users = np.repeat(data.requests["id.user"].to_numpy(), np.diff(data.row_offsets))
    found = Categories.counted(dataset, dataset.split("train"))
    np.testing.assert_array_equal(found.matrix(data)[:, 0], found.category_of[0][users])
    assert dense_matrix(dataset, data).shape == (data.info.impressions, 3)


@pytest.mark.parametrize("kind", ["logistic", "lightgbm", "lightgbm-ids"])
def test_the_same_seed_gives_the_same_bits(dataset: Dataset, kind: str) -> None:
    first, again = (score_baseline(dataset, kind, "test", seed=3) for _ in range(2))
    assert (first == again).all() and ((first > 0) & (first < 1)).all()


def test_ids_tell_a_tree_what_dense_features_do_not(tmp_path: Path) -> None:
    """Labels that depend on the item alone: only the kind that sees it ranks them."""
    import pyarrow as pa

    from ctr.metrics import auc
    from features.dataset import SPLITS
    from tests.ctr.dataset_fixture import write_table

    root = write_dataset(tmp_path, Sizes(requests=900, users=50))
    for split in SPLITS:
        path = root / split / "impressions.arrow"
        table = Dataset(root, verify=False).split(split).impressions
        label = (table["id.item"].to_numpy() % 2).astype(np.float32)
        columns = {name: table[name] for name in table.column_names} | {"label": pa.array(label)}
        copied = {
            name: pa.concat_arrays(c.chunks) if hasattr(c, "chunks") else c for name, c in columns.items()
        }
        path.unlink()
        write_table(path, copied, record_batch=50)
    dataset = Dataset(root, verify=False)
    label = dataset.split("test").impressions["label"].to_numpy()
    found = {
        kind: auc(label, score_baseline(dataset, kind, "test")).value for kind in ("lightgbm", "lightgbm-ids")
    }
    assert found["lightgbm"] < 0.6 and found["lightgbm-ids"] > 0.9, found


@pytest.mark.parametrize("kind", ["logistic", "lightgbm"])
def test_rows_that_count_nothing_teach_nothing(
    dataset: Dataset, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(_: Dataset, data: SplitData) -> np.ndarray:
        return np.arange(data.info.impressions) % 2.0

    def turned(data: SplitData) -> np.ndarray:
        label = features.labels(data)
        return np.where(counts(dataset, data) > 0, label, 1 - label)

    monkeypatch.setattr(fit, "weights", counts)
    plain = score_baseline(dataset, kind, "test")
    monkeypatch.setattr(fit, "labels", turned)
    np.testing.assert_allclose(score_baseline(dataset, kind, "test"), plain, rtol=1e-4)

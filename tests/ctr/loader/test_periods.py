"""Rolling origin: every label of a training lies before its test; no row is lost or doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr.build import open_dataset, training_loader
from ctr.config import PeriodConfig, RunConfig
from ctr.loader.periods import restrict, window_cuts
from features.dataset import SPLITS, Dataset
from features.errors import ConfigError, DataError
from tests.ctr.ablate.small import small_log
from tests.ctr.loaders import evaluation_loader
from tests.ctr.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_log(tmp_path_factory.mktemp("periods"))


def view(dataset: Path, **period: Any) -> Dataset:
    return restrict(Dataset(dataset), PeriodConfig(**period))


def seen(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row IDs, times and labels that a loader gives of a split."""
    found = list(evaluation_loader(dataset, split, batch_rows=100).iterate(0))
    columns = ([b.row_id for b in found], [b.time[b.request_index] for b in found], [b.label for b in found])
    rows, times, labels = (np.concatenate([t.numpy() for t in column]) for column in columns)
    return rows, times, labels


def test_windows_together_are_the_test_part(dataset: Path) -> None:
    whole = seen(Dataset(dataset), "test")[0]
    windows = [seen(view(dataset, windows=3, window=w), "test")[0] for w in range(3)]
    assert np.array_equal(np.concatenate(windows), whole)
    assert min(map(len, windows)) > 0.25 * len(whole)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_no_label_after_the_origin_enters_training(dataset: Path, window: int) -> None:
    period = view(dataset, windows=3, window=window)
    (train, train_times, _), (valid, valid_times, _), (test, times, _) = (seen(period, s) for s in SPLITS)
    assert train_times.max() < valid_times.min() and valid_times.max() < times.min()
    assert not set(train) & set(valid) and not set(valid) & set(test) and not set(train) & set(test)
    before = [seen(Dataset(dataset), split)[0] for split in SPLITS]
    earlier = np.concatenate(before)[: len(train) + len(valid)]  # nothing between is lost
    assert np.array_equal(np.concatenate([train, valid]), earlier)


def test_counts_of_the_view_are_those_of_its_rows(dataset: Path) -> None:
    period = view(dataset, windows=2, window=1, train_fraction=0.5)
    for split in SPLITS:
        rows, _, labels = seen(period, split)
        info = period.manifest.splits[split]
        assert (info.impressions, info.positives) == (len(rows), labels.sum())
        assert info.requests == period.split(split).requests.num_rows


def test_a_fraction_is_the_newest_part_of_the_training(dataset: Path) -> None:
    whole, _, _ = seen(Dataset(dataset), "train")
    newest, _, _ = seen(view(dataset, train_fraction=0.3), "train")
    assert np.array_equal(newest, whole[-len(newest) :])
    assert 0.25 < len(newest) / len(whole) < 0.35
    tiny, _, _ = seen(view(dataset, train_fraction=1e-9), "train")
    assert len(tiny) > 0


def test_a_run_trains_on_its_period_alone(dataset: Path) -> None:
    config = RunConfig(dataset=str(dataset), run="r", period=PeriodConfig(windows=2, window=1), drop=["cart"])
    opened = open_dataset(config)
    trained = {int(i) for b in training_loader(config, opened).iterate(0) for i in b.row_id}
    assert trained == set(seen(opened, "train")[0].tolist())
    assert "cart" not in opened.manifest.domains


def test_the_whole_period_is_the_data_set_itself(dataset: Path) -> None:
    opened = Dataset(dataset)
    assert restrict(opened, PeriodConfig()) is opened


def test_ties_of_the_clock_are_not_cut() -> None:
    assert window_cuts(np.array([1, 1, 1, 1, 2, 3]), 2) == [0, 4, 6]
    for clock in ([1, 1, 1], [1, 2]):
        with pytest.raises(ConfigError, match="use fewer"):
            window_cuts(np.array(clock), 3)


@pytest.mark.fault(23)
def test_what_cannot_be_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="window must be less than"):
        view(dataset, windows=2, window=2)
    with pytest.raises(DataError, match="must end before"):  # a data set whose parts overlap in time
        restrict(Dataset(tiny_dataset(tmp_path)), PeriodConfig(windows=2))

"""How long an item had been shown when a row was made, against a slow definition."""

from __future__ import annotations

from pathlib import Path

from ctr.predictions import SplitRows
from ctr.predictions.split import AGE_BUCKETS, DAY
from features.dataset import SPLITS, Dataset
from tests.ctr.dataset_fixture import Sizes, write_dataset


def shown(dataset: Dataset, split: str) -> list[tuple[int, int]]:
    """Item and time of every row."""
    data = dataset.split(split)
    times = data.requests["time"].to_pylist()
    rows = [t for t, n in zip(times, data.requests["num_rows"].to_pylist(), strict=True) for _ in range(n)]
    return list(zip(data.impressions["item_id"].to_pylist(), rows, strict=True))


def test_days_since_an_item_was_first_shown(tmp_path: Path) -> None:
    dataset = Dataset(write_dataset(tmp_path, Sizes(requests=60, time_unit=2 * DAY)))
    everything = [row for split in SPLITS for row in shown(dataset, split)]
    expected = []
    for item, time in shown(dataset, "test"):
        days = (time - min(t for i, t in everything if i == item)) // DAY
        low = max(bound for bound in AGE_BUCKETS if bound <= days)
        expected.append(f"{low:03d}")
    rows = SplitRows(dataset, "test")
    halves = [rows.slices(0, 50), rows.slices(50, rows.rows)]  # a piece at a time gives the same
    found = [label[:3] for half in halves for label in half["slice_item_age"].to_pylist()]
    assert found == expected
    assert len(set(expected)) > 3


def test_an_item_is_known_if_training_has_shown_it_before(tmp_path: Path) -> None:
    dataset = Dataset(write_dataset(tmp_path, Sizes(requests=60, time_unit=2 * DAY)))
    train = shown(dataset, "train")
    for split in SPLITS:
        expected = [
            "known" if any(i == item and t < time for i, t in train) else "new"
            for item, time in shown(dataset, split)
        ]
        rows = SplitRows(dataset, split)
        assert rows.slices(0, rows.rows)["slice_known_item"].to_pylist() == expected
        assert set(expected) == {"known", "new"} or split != "test"

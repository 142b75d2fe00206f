"""`drop`: a view of a data set with fewer features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctr.config import LoaderConfig
from ctr.loader import Loader
from ctr.loader.view import sample_view
from features.dataset import Dataset
from features.errors import ConfigError
from tests.ctr.dataset_fixture import write_dataset


def test_a_view_reads_less_and_changes_nothing_else(tmp_path: Path) -> None:
    """Dropping features is a view: the batches hold the rest, as before."""
    dataset = Dataset(write_dataset(tmp_path / "dataset"))
    name = next(c.name for c in dataset.manifest.features if c.kind != "dense")
    domain, info = next((d, i) for d, i in dataset.manifest.domains.items() if len(i.side) > 1)
    side = f"{domain}.{info.side[0].name}"
    view = dataset.without([name, side])
    assert name not in {c.name for c in view.manifest.features} | {
        n for t in view.manifest.tokens.values() for n in t
    }
    assert view.manifest.digest() != dataset.manifest.digest()
    config = LoaderConfig(batch_rows=16)
    for less, whole in zip(
        Loader(view, "train", config, seed=1).iterate(0),
        Loader(dataset, "train", config, seed=1).iterate(0),
        strict=True,
    ):
        assert torch.equal(less.row_id, whole.row_id)
        assert info.side[0].name not in less.sequences[domain].ids
        rest = whole.sequences[domain].ids.keys() - {info.side[0].name}
        assert less.sequences[domain].ids.keys() == rest
    assert domain not in dataset.without([domain]).manifest.domains
    with pytest.raises(ConfigError, match="drop must name features"):
        dataset.without(["no_such_*"])


def test_a_sample_is_whole_requests_evenly_spaced(tmp_path: Path) -> None:
    """A few rows of a part are its requests at equal distances, with all of their impressions alone."""
    dataset = Dataset(write_dataset(tmp_path / "dataset"))
    whole = dataset.split("train")
    rows, requests = whole.impressions.num_rows, whole.requests.num_rows
    sample = sample_view(dataset, {"train": rows // 3}).split("train")
    picked = sample.requests["request_id"].to_pylist()
    every = whole.requests["request_id"].to_pylist()
    assert 0 < len(picked) < requests
    assert picked == [
        every[i] for i in sorted({*torch.linspace(0, requests - 1, len(picked)).long().tolist()})
    ]
    slow = whole.impressions.filter(
        [
            r in picked
            for r, n in zip(every, whole.requests["num_rows"].to_pylist(), strict=True)
            for _ in range(n)
        ]
    )
    assert sample.impressions.to_pylist() == slow.to_pylist()
    assert sample.info.impressions == slow.num_rows
    assert sample_view(dataset, {"train": 10 * rows}).split("train").impressions.to_pylist() == (
        whole.impressions.to_pylist()
    )

"""`drop`: a view of a data set with fewer features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctr.config import LoaderConfig
from ctr.loader import Loader
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

"""Loaders of tests: of small batches, and of every row of a split."""

from __future__ import annotations

from typing import Any

from ctr.config import LoaderConfig
from ctr.loader import Loader
from features.dataset import Dataset


def loader(
    dataset: Dataset, split: str | tuple[str, ...] = "train", *, seed: int = 1, **knobs: Any
) -> Loader:
    return Loader(dataset, split, LoaderConfig(**{"batch_rows": 16, "window": 50, **knobs}), seed=seed)


def evaluation_loader(
    dataset: Any, split: str, *, batch_rows: int, max_len: dict[str, int] | None = None
) -> Loader:
    """Every row once, in the order of time and of the files."""
    config = LoaderConfig(batch_rows=batch_rows, order="time", max_len=max_len or {})
    return Loader(dataset, split, config, seed=0)

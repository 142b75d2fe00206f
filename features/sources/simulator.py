"""The directory that `ctr simulate` writes (docs/simulator.md): impressions, domains, users and items."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from features.errors import DataError
from features.source import RawTable
from features.sources.raw import open_known

FILES = {
    "impressions": "impressions/*.parquet",
    "view": "view/*.parquet",
    "cart": "cart/*.parquet",
    "search": "search/*.parquet",
    "users": "users.parquet",
    "items": "items.parquet",
}
_COLUMNS = {
    "impressions": ["request_id", "user_id", "item_id", "time", "position", "clicked"],
    "view": ["user_id", "item_id", "time"],
    "cart": ["user_id", "item_id", "time"],
    "search": ["user_id", "time"],
    "users": ["user_id"],
    "items": ["item_id"],
}


def read(root: Path) -> dict[str, pl.LazyFrame]:
    """Open the simulated log in `root`; the truth beside it is left alone.

    Returns:
        impressions, view, cart, search, users, items.

    Raises:
        DataError: `root` holds no simulated log, or a file of it is missing or damaged.
    """
    if not (root / "impressions").is_dir():
        raise DataError(
            f"{root} must hold a simulated log, but has no impressions; run: ctr simulate --out {root}"
        )
    return open_known(root, {name: RawTable(path=path) for name, path in FILES.items()}, _COLUMNS)

"""What the tests of the simulator share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

Log = tuple[Path, dict[str, Any]]  # the directory, and what `simulate` returned
DAY = 86_400


def read(log_dir: Path, name: str) -> pl.DataFrame:
    """A whole stream, in the order of its files and rows."""
    single = log_dir / f"{name}.parquet"
    return pl.read_parquet(single if single.exists() else log_dir / name / "part-*.parquet")

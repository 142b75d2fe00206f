"""A simulated log cut into days, each a log of its own, as they would come night after night."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl

from features.errors import ConfigError
from features.synthetic.settings import DAY
from features.synthetic.write import new_log

_TIMED = ("impressions", "view", "cart", "search")
_WHOLE = ("users", "items")  # in every day


def write_days(log: Path, out: Path) -> list[Path]:
    """Write `out/day-01`, `day-02`, … from a simulated log; the first holds what lies before, too.

    The truth beside the log is not cut.

    Raises:
        ConfigError: `out` holds something, or `log` is no simulated log.
    """
    try:
        meta = json.loads((log / "truth" / "meta.json").read_bytes())
    except (OSError, ValueError):
        raise ConfigError(
            f"{log} must be a log that ctr simulate wrote, but has no truth/meta.json"
        ) from None
    days, start = int(meta["sizes"]["days"]), int(meta["start"])
    with new_log(out) as root:
        for number in range(1, days + 1):
            low = None if number == 1 else start + (number - 1) * DAY
            high = None if number == days else start + number * DAY
            _write_day(log, root / f"day-{number:02d}", low, high)
    return [out / f"day-{number:02d}" for number in range(1, days + 1)]


def _write_day(log: Path, day: Path, low: int | None, high: int | None) -> None:
    for name in _TIMED:
        (day / name).mkdir(parents=True)
        time = pl.col("time")
        within = [pl.lit(True)] + ([time >= low] if low is not None else [])
        within += [time < high] if high is not None else []
        rows = pl.scan_parquet(log / name / "*.parquet").filter(*within)
        rows.sink_parquet(day / name / f"{day.name}.parquet", maintain_order=True)
    for name in _WHOLE:
        shutil.copyfile(log / f"{name}.parquet", day / f"{name}.parquet")

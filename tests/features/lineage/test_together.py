"""The logs of several days as one: the data set is that of the whole log."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ConfigError
from features.lineage.together import together
from features.prepare import prepare
from features.spec import parse_spec
from tests.features.lineage.days import cut, written
from tests.features.small_log import SHOP_SPEC, changed, shop_tables, write_tables

TIMES = {"shown": "at", "events": "at"}


def test_all_days_together_are_the_whole_log(tmp_path: Path) -> None:
    tables = {name: frame.sort("at", maintain_order=True) for name, frame in shop_tables().items()}
    days = [tmp_path / "day-1", tmp_path / "day-2"]
    for day, own in zip(days, cut(tables, TIMES, [1_700_000_040_000]), strict=True):
        write_tables(day, own)
    write_tables(tmp_path / "raw", tables)
    spec = parse_spec(SHOP_SPEC)
    prepare(spec, tmp_path / "whole", base=tmp_path / "raw")
    prepare(together(spec, days, tmp_path / "all"), tmp_path / "joined", base=tmp_path)
    kept = {"manifest.json", "spec.yaml", "origin.arrow"}
    whole, joined = (
        {n: h for n, h in written(tmp_path / d).items() if n not in kept} for d in ("whole", "joined")
    )
    assert joined == whole and len(whole) > 8


def test_sources_without_known_files_are_refused(tmp_path: Path) -> None:
    spec = parse_spec(changed(SHOP_SPEC, source={"kind": "movielens", "path": "x"}))
    with pytest.raises(ConfigError, match="'movielens' cannot be put together"):
        together(spec, [tmp_path], tmp_path / "all")

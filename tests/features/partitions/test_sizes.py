"""How many partitions a memory asks for."""

from __future__ import annotations

import pytest

from features.errors import ConfigError
from features.partitions.sizes import MOST, PROCESS_BYTES, parts_for, whole_bytes

COUNTS = {"": 7_000_000, "view": 13_000_000, "cart": 4_000_000}


def test_one_partition_where_all_fits() -> None:
    assert parts_for(COUNTS, whole_bytes(COUNTS) + PROCESS_BYTES, workers=1) == 1
    assert parts_for(COUNTS, whole_bytes(COUNTS) + PROCESS_BYTES - 1, workers=1) > 1


def test_half_the_memory_of_a_task_makes_twice_the_partitions() -> None:
    few, many = (parts_for(COUNTS, PROCESS_BYTES + room, workers=1) for room in (2 * 10**9, 10**9))
    assert few < many <= 2 * few
    assert parts_for(COUNTS, 2 * (PROCESS_BYTES + 10**9), workers=2) == many  # they share the memory


def test_too_little_memory_is_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError, match="--memory must leave every worker more than 300 MB, got 500 MB"):
        parts_for(COUNTS, 500 * 10**6, workers=2)
    with pytest.raises(ConfigError, match=f"at most {MOST:,} are made; give each worker at least"):
        parts_for(COUNTS, PROCESS_BYTES + 10**6, workers=1)

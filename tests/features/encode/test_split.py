from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.encode.split import split_rows
from features.errors import ConfigError, DataError
from features.spec import Split

DAY = 86_400
START = 1_704_067_200  # 2024-01-01


def parts(clock: list[int], valid: float | int | str, test: float | int | str) -> list[int]:
    """Rows of each part, with a clock of days from 2024-01-01."""
    days = np.array(clock, dtype=np.int64)
    found = split_rows(days, START + days * DAY, Split(valid=valid, test=test))
    return [high - low for low, high in map(found.of, ("train", "valid", "test"))]


@pytest.mark.parametrize(
    ("valid", "test", "wanted"),
    [
        (0.1, 0.1, [8, 1, 1]),
        (0.2, 0.1, [7, 2, 1]),
        (0, 0.3, [7, 0, 3]),
        (0.3, 0, [7, 3, 0]),
        (0, 0, [10, 0, 0]),
        ("2024-01-05", "2024-01-09", [4, 4, 2]),
        (START + 4 * DAY, START * 1000 + 8 * DAY * 1000, [4, 4, 2]),
        (0.2, "2024-01-09T12:00", [7, 2, 1]),
    ],
)
def test_shares_and_times(valid: float | int | str, test: float | int | str, wanted: list[int]) -> None:
    assert parts(list(range(10)), valid, test) == wanted


def test_shares_as_the_peers_cut_ml_1m() -> None:
    assert parts(list(range(1_000_209)), 0.1, 0.1) == [800_167, 100_021, 100_021]


def test_a_tie_belongs_to_the_earlier_part() -> None:
    assert parts([0, 1, 2, 3, 4, 5, 6, 7, 7, 9], 0.2, 0.1) == [7, 2, 1]
    assert parts([0, 1, 2, 3, 4, 5, 6, 7, 8, 8], 0.2, 0) == [8, 2, 0]


@pytest.mark.fault(23)
@given(st.lists(st.integers(0, 40), min_size=30, max_size=60), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_no_clock_lies_in_two_parts(clock: list[int], valid: float, test: float) -> None:
    clock = sorted(clock)
    try:
        sizes = parts(clock, valid, test)
    except DataError:  # a part is empty
        return
    ends = np.cumsum(sizes)
    assert ends[-1] == len(clock)
    assert clock[ends[0] - 1] < clock[ends[0]] and clock[ends[1] - 1] < clock[ends[1]]
    assert sizes[0] >= int(round((1 - valid - test) * len(clock), 6))


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("valid", "test", "error", "message"),
    [
        ("2024-01-09", "2024-01-05", ConfigError, "valid must begin before split.test.*overlap"),
        (0.6, 0.5, ConfigError, "sum to less than 1"),
        (0.1, -0.1, ConfigError, "must be positive"),
        ("2030-01-01", 0.0, DataError, "the valid part is empty"),
        ("2020-01-01", 0.1, DataError, "the train part is empty"),
        ("soon", 0.1, ConfigError, "must read like"),
    ],
)
def test_bad_splits_are_refused(
    valid: float | str, test: float | str, error: type[Exception], message: str
) -> None:
    """Fault 23."""
    with pytest.raises(error, match=message):
        parts(list(range(10)), valid, test)


def test_one_clock_cannot_be_split() -> None:
    with pytest.raises(DataError, match="the valid part is empty"):
        parts([3] * 10, 0.1, 0.1)

"""Errors of libraries that had no memory, as what they are."""

from __future__ import annotations

import pytest

from features.errors import DataError
from features.memory.shortage import is_shortage, told_by


@pytest.mark.fault(31)
def test_the_line_that_tells_of_memory_is_the_one_that_is_said() -> None:
    error = DataError("2 things must be corrected:\n- a column\n- table: malloc of size 7168 failed")
    assert is_shortage(error)
    assert told_by(error) == "- table: malloc of size 7168 failed"
    assert told_by(MemoryError()) == "no message"
    assert len(told_by(DataError("x" * 1000))) == 300

"""The table of faults: each row has tests, the page is the table, the printed rows tell failures."""

from __future__ import annotations

import pytest

from tests import faults
from tests.faults import PAGE, Fault, Shown, marked_tests, page, read_faults, shown_rows

pytest_plugins = ["pytester"]


def test_every_row_has_a_test_and_every_mark_a_row() -> None:
    rows = [fault.row for fault in read_faults()]
    assert rows == list(range(1, len(rows) + 1)) and len(rows) >= 46
    assert set(marked_tests()) == set(rows)


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: .venv/bin/python -m tests.faults"


def test_a_row_holds_when_a_test_passed_and_none_failed() -> None:
    rows = shown_rows(
        {
            "a": ("passed", [("fault", 1), ("seed", 7), ("figure kills", 2)]),
            "b": ("passed", [("fault", 1), ("fault", 2), ("figure kills", 3)]),
            "c": ("failed", [("fault", 2)]),
            "d": ("skipped", [("fault", 3)]),
            "e": ("passed", []),
        }
    )
    assert {row: shown.holds for row, shown in rows.items()} == {1: True, 2: False, 3: False}
    line = rows[1].line(Fault(1, "a kill", "goes on"))
    assert line.split() == ["1", "a", "kill", "ok", "2", "seed", "7;", "5", "kills"]
    assert "FAILED" in rows[2].line(Fault(2, "x", "y")) and "NO TEST" in Shown().line(Fault(4, "x", "y"))


@pytest.mark.parametrize(
    ("tests", "code"),
    [
        ("import pytest\n@pytest.mark.fault(1)\ndef test_a(): pass\n", 0),
        ("import pytest\n@pytest.mark.fault(2)\ndef test_a(): pass\n", 1),  # row 1 has no test
        ("import pytest\n@pytest.mark.fault(1)\ndef test_a(): assert False\n", 1),
        ("import pytest\n@pytest.mark.fault(1)\ndef test_a(): pytest.skip()\n", 1),
    ],
)
def test_the_matrix_decides_the_exit_code(
    tests: str, code: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "read_faults", lambda: [Fault(1, "a kill", "goes on")])
    monkeypatch.setattr(faults, "_tests", {})
    pytester.makepyfile(tests)
    pytester.makeconftest((faults.ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = fault: x\n")
    ended = pytester.inline_run("-p", "tests.faults", "-p", "no:cacheprovider", "-q")
    assert ended.ret == code

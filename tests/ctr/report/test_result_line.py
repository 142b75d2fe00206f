"""Lines keep every digit, say what is null, and are refused with file and line where they are no result."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from ctr.report.result_line import Figure, ResultLine, append_line, read_lines
from features.errors import DataError

LINE = ResultLine(dataset="d", split="test", model="m", metrics={"auc": Figure(value=Decimal("0.7200"))})


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    append_line(file, LINE)
    append_line(file, LINE.model_copy(update={"model": "n"}))
    assert [line.model for line in read_lines(file)] == ["m", "n"]
    first = json.loads(file.read_text().splitlines()[0])
    assert first["commit"] is None and set(first) == set(ResultLine.model_fields)
    assert first["metrics"] == {"auc": {"value": 0.72}}


def test_digits_of_a_file_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(LINE.to_json().replace("0.72", "0.7200") + "\n")
    assert str(read_lines(file)[0].metrics["auc"].value) == "0.7200"


@pytest.mark.parametrize("text", ["{", "[]", '{"dataset": "d"}', LINE.to_json().replace("auc", "auc\n")])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(LINE.to_json() + "\n" + text + "\n")
    with pytest.raises(DataError, match=r"results.jsonl, line 2 must be a result, got"):
        read_lines(file)


def test_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(LINE.to_json().replace('"commit"', '"comit"') + "\n")
    with pytest.raises(DataError, match="comit"):
        read_lines(file)

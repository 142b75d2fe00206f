"""The doctor on histories that came as lists: strictly before, and what their order shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.doctor import examine
from features.doctor.opened import CheckResult
from tests.features.list_log import SPEC, domain, line, prepared, random_lines

ORDER = "read: the lists show their order"


def checks(folder: Path, lists: list[list[str]] | None = None, spec: object = SPEC) -> dict[str, CheckResult]:
    lines = random_lines(1) if lists is None else [line(i, "u", own) for i, own in enumerate(lists)]
    data = prepared(folder, spec, lines)  # type: ignore[arg-type]
    return {check.name: (check.status, check.detail) for check in examine(data.root).checks}


@pytest.mark.parametrize("split", [{"valid": 0.2, "test": 0.2}, {"valid": 0, "test": 0}])
def test_nothing_fails(tmp_path: Path, split: dict[str, float]) -> None:
    """Vocabularies among it: an event belongs to the training part if a request of it shows the event."""
    found = checks(tmp_path, spec=SPEC | {"split": split})
    assert {name: f for name, f in found.items() if f[0] == "fail"} == {}
    assert found[ORDER][0] == "pass"
    assert found["read: history is strictly before the request"][0] == "pass"
    assert not any("beside an impression" in name or "complete and the newest" in name for name in found)


def test_a_news_that_only_a_later_list_shows_is_unknown(tmp_path: Path) -> None:
    lines = [line(i, "u", ["n1", "n2"][: 1 + (i > 7)]) for i in range(10)]
    spec = domain(side={"seen": {"column": "news", "table": "seen"}})
    spec |= {"tables": SPEC["tables"] | {"seen": {}}, "split": {"valid": 0, "test": 0.2}}
    data = prepared(tmp_path, spec, lines)
    assert data.events("read").ids["seen"].values.tolist() == [2, 1]  # 0 missing, 1 unknown, 2 n1
    assert examine(data.root).healthy


def test_lists_that_never_change_show_no_order(tmp_path: Path) -> None:
    assert checks(tmp_path, [["n1", "n2"]] * 3)[ORDER][0] == "warn"


def test_lists_that_share_nothing_are_told(tmp_path: Path) -> None:
    status, detail = checks(tmp_path, [["n1"], ["n2"], ["n3"], ["n3", "n4"]])[ORDER]
    assert status == "warn" and "2 of 3 lists" in detail and "from_list.order" in detail

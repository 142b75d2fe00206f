"""Matches over lists without times, against their definition: over the whole list, whatever `max_len` is."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.past.list_matches import list_match_columns
from features.read.log import read_log
from features.sources.of_spec import open_spec
from features.spec import parse_spec
from tests.features.list_log import SPEC, Line, prepared, random_lines, topic_of, write_log

OUTPUTS = ["count", "last", "share"]


def topics(news: str) -> set[str]:
    return set((topic_of(news) or "").split("|")) - {""}


def by_definition(one: Line, news: str) -> list[float | None]:
    mine, history = topics(news), one["history"] or []
    if not mine:
        return [None] * 3
    pairs = [len(mine & topics(event)) for event in history]
    return [sum(pairs), int(bool(pairs) and pairs[-1] > 0), sum(pairs) / len(pairs) if pairs else 0.0]


@pytest.mark.parametrize("seed", range(8))
def test_matches_by_definition(tmp_path: Path, seed: int) -> None:
    lines = random_lines(seed)
    write_log(tmp_path, lines)
    spec, tables = open_spec(parse_spec(SPEC), tmp_path, {})
    log = read_log(spec, tables)
    columns = list_match_columns(log.rows, log.events["read"], "topic", spec.matches["topic"])
    assert columns.columns == [f"match.topic.{output}" for output in OUTPUTS]
    shown = zip(log.rows["__request"], log.rows["news"], strict=True)
    assert columns.rows() == [tuple(by_definition(lines[request], news)) for request, news in shown]
    assert columns["match.topic.count"].sum() > 0


def test_a_log_without_any_event(tmp_path: Path) -> None:
    lines = [one | {"history": None} for one in random_lines(0, pages=10)]
    assert prepared(tmp_path, SPEC, lines).events("read").info.events == 0

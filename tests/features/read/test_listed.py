"""Histories that come as lists without times: read back exactly, stored once, and their order checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from features.dataset import Dataset
from features.errors import ConfigError, DataError
from features.prepare import check, prepare
from features.read import listed
from features.read.overlap import Overlaps, find_overlaps
from features.spec import parse_spec
from tests.features.list_log import (
    SPEC,
    domain,
    from_list,
    histories,
    line,
    prepared,
    random_lines,
    write_log,
)

MAX_LEN = SPEC["domains"]["read"]["max_len"]
GROWING = [["n1", "n2"], ["n1", "n2", "n3"], ["n2", "n3", "n4", "n5"]]


def pages(*lists: list[str] | None, user: str = "u") -> list[dict[str, Any]]:
    return [line(page, user, history) for page, history in enumerate(lists)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_every_request_gets_the_end_of_its_own_list(tmp_path: Path, seed: int, order: str) -> None:
    lines = random_lines(seed)
    want = [(one["history"] or [])[-MAX_LEN:] for one in lines]
    if order == "newest_first":
        lines = [one | {"history": one["history"] and one["history"][::-1]} for one in lines]
    data = prepared(tmp_path, from_list(order=order), lines)
    assert histories(data) == want
    assert any(want)


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (lambda values: " ".join(values), {"separator": " "}),
        (lambda values: "  ".join(["", *values, ""]), {"separator": " "}),
        (json.dumps, {"format": "json"}),
    ],
)
def test_texts_are_lists(tmp_path: Path, write: Any, how: dict[str, str]) -> None:
    lines = random_lines(3)
    want = [(one["history"] or [])[-MAX_LEN:] for one in lines]
    texts = [one | {"history": None if one["history"] is None else write(one["history"])} for one in lines]
    assert histories(prepared(tmp_path, from_list(**how), texts)) == want


def test_lists_of_packed_impressions(tmp_path: Path) -> None:
    """As in MIND: a line holds the history, and what was shown with its clicks."""
    lines = ["u\t2020-01-01\tn1 n2\tn3-0 n4-1", "u\t2020-01-02\tn1 n2 n4\tn5-1", "v\t2020-01-03\t\tn1-0"]
    write_log(tmp_path, pages(["n1"]))  # for the table of news
    (tmp_path / "shown.tsv").write_text("".join(f"{one}\n" for one in lines))
    table = {"path": "shown.tsv", "format": "csv", "separator": "\t", "header": False}
    table |= {"columns": ["user", "at", "history", "shown"]}
    shown = SPEC["impressions"] | {"explode": {"column": "shown", "separator": " ", "label_separator": "-"}}
    del shown["request"]
    spec = from_list(separator=" ") | {"impressions": shown}
    spec |= {"source": {"tables": SPEC["source"]["tables"] | {"shown": table}}}
    check(parse_spec(spec), base=tmp_path)
    manifest = prepare(parse_spec(spec), tmp_path / "out", base=tmp_path)
    assert histories(Dataset(tmp_path / "out")) == [["n1", "n2"], ["n1", "n2", "n4"], []]
    assert manifest.domains["read"].events == 3


def test_lists_that_repeat_and_extend_are_stored_once(tmp_path: Path) -> None:
    lists = [None, ["n1", "n2"], ["n1", "n2"], [], ["n1", "n2", "n3"], ["n2", "n3", "n4", "n5"], ["n4", "n5"]]
    data = prepared(tmp_path, SPEC, pages(*lists))
    assert data.events("read").info.events == 5  # n1 … n5
    assert data.manifest.counters["events.read.lists_stored_anew"] == 0
    assert data.manifest.counters["events.read.lists_that_changed"] == 3


def test_lists_that_contradict_the_one_before_are_stored_anew_and_counted(tmp_path: Path) -> None:
    lists = [*GROWING, ["n5", "n2"], ["n5", "n2", "n6"], ["n1"]]
    data = prepared(tmp_path, SPEC, pages(*lists))
    assert histories(data) == lists
    assert data.events("read").info.events == 5 + 1 + 1 + 1  # [n5, n2] goes on from n5
    assert data.manifest.counters["events.read.lists_stored_anew"] == 1
    assert data.manifest.counters["events.read.lists_that_changed"] == 5


def test_users_share_no_events(tmp_path: Path) -> None:
    lines = [line(0, "a", ["n1"]), line(1, "b", ["n1"]), line(2, "a", ["n1", "n2"])]
    data = prepared(tmp_path, SPEC, lines)
    assert data.events("read").info.events == 3
    assert histories(data) == [["n1"], ["n1"], ["n1", "n2"]]


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_lists_that_grow_at_the_other_end_are_refused(tmp_path: Path, order: str) -> None:
    lists = GROWING if order == "newest_first" else [history[::-1] for history in GROWING]
    other = "oldest_first" if order == "newest_first" else "newest_first"
    with pytest.raises(DataError, match=rf"'read': from_list.order says {order}.*2 go on at the other end.*"):
        prepared(tmp_path, from_list(order=order), pages(*lists))
    assert len(histories(prepared(tmp_path, from_list(order=other), pages(*lists)))) == 3


def test_a_request_has_one_list(tmp_path: Path) -> None:
    lines = [line(0, "u", ["n1"]), line(0, "u", ["n2"])]
    spec = SPEC | {"impressions": SPEC["impressions"] | {"dedup": "allow"}}
    with pytest.raises(DataError, match="must hold one list, but 1 requests have several"):
        prepared(tmp_path, spec, lines)


@pytest.mark.parametrize("more", [-1, 1])
def test_the_store_is_proved_to_give_back_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    def wrong(*given: Any) -> Overlaps:
        found = find_overlaps(*given)
        found.shared[-1] += more
        return found

    monkeypatch.setattr(listed, "find_overlaps", wrong)
    texts = zip(pages(None, None), ("n1 n2", "n1 n2 n3"), strict=True)
    lines = [one | {"history": text} for one, text in texts]
    with pytest.raises(AssertionError, match="'read': the event store does not give back the lists"):
        prepared(tmp_path, from_list(separator=" "), lines)


def test_times_are_missing_and_not_pretended(tmp_path: Path) -> None:
    data = prepared(tmp_path, SPEC, pages(*GROWING))
    assert not data.manifest.domains["read"].timed
    assert data.manifest.domains["read"].time_range is None
    requests = data.split("train").requests
    store = data.events("read")
    for end, clock in zip(requests["end.read"].to_pylist(), requests["clock"].to_pylist(), strict=True):
        assert (store.clock[:end] < clock).all()


def test_a_list_may_be_a_feature_too(tmp_path: Path) -> None:
    features = SPEC["features"] | {"seen": {"column": "history", "table": "news"}}
    spec = SPEC | {"features": features, "tokens": SPEC["tokens"] | {"seen": ["seen"]}}
    assert histories(prepared(tmp_path, spec, pages(*GROWING))) == GROWING


TIMED: list[tuple[dict[str, Any], str]] = [
    (domain(side={"hour": {"calendar": "hour"}}), "side 'hour' needs the times of events"),
    (domain(side={"gap": {"since_previous": True}}), "side 'gap' needs the times of events"),
    (domain(tick=60), "tick cannot be said of their events"),
    (domain(where={"news": ["n1"]}), "where cannot be said"),
    (domain(outcome={"column": "clicked"}), "outcome cannot be said"),
    (domain(time="other"), "its time must be that of the impressions, 'at'"),
    (domain(item=None), "item must name the column"),
    (domain(side={"user": {"column": "user", "table": "news"}}), "side 'user' reads"),
    (SPEC | {"counters": {"read": {"by": ["news"], "over": "read"}}}, "counter 'read' would count over them"),
] + [
    (SPEC | {"matches": {"topic": SPEC["matches"]["topic"] | {"outputs": [output]}}}, f"not .'{output}'")
    for output in ("decayed", "recency", "share_old", "share_recent", "count_recent", "positive_share")
]  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), TIMED)
def test_what_needs_times_is_refused_with_the_reason(
    tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    write_log(tmp_path, pages(*GROWING))
    for run in (check, lambda spec, base: prepare(spec, base / "out", base=base)):
        with pytest.raises(ConfigError, match=f"domain 'read' holds lists without times: .*{message}"):
            run(parse_spec(spec), base=tmp_path)


@pytest.mark.parametrize("spec", [SPEC, domain(from_list={"column": "page", "order": "oldest_first"})])
def test_a_dry_run_finds_what_is_no_list(tmp_path: Path, spec: dict[str, Any]) -> None:
    texts = [one | {"history": " ".join(one["history"])} for one in pages(*GROWING)]
    write_log(tmp_path, texts)
    with pytest.raises(DataError, match=r"must hold lists, got .*; give the separator"):
        check(parse_spec(spec), base=tmp_path)


def test_a_dry_run_finds_what_is_not_packed(tmp_path: Path) -> None:
    write_log(tmp_path, pages(*GROWING))
    shown = SPEC["impressions"] | {"explode": {"column": "page", "clicked": "clicked"}, "item": "made"}
    shown |= {"label": {"column": "told"}, "request": None}
    spec = parse_spec(SPEC | {"impressions": shown})
    with pytest.raises(DataError, match=r"'page' must hold lists[\s\S]*'clicked' must hold lists"):
        check(spec, base=tmp_path)


def test_an_order_must_be_declared() -> None:
    with pytest.raises(ConfigError, match="order: Field required"):
        parse_spec(domain(from_list={"column": "history"}))

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.sources import read_source
from features.spec import Source

Event = dict[str, object]
KINDS = ["clickout item", "interaction item image", "filter selection"]
PAGE = [5, 6, 7]
PRICES = [50, 120, 80]

_event = st.tuples(
    st.sampled_from("ab"),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(KINDS),
    st.sampled_from(PAGE),
)


def events(drawn: list[tuple[str, int, int, int, str, int]]) -> list[Event]:
    """Drawn events, each (user, session, second, step) once, as the log writes them."""
    seen: dict[tuple[object, ...], Event] = {}
    for user, session, second, step, kind, hotel in drawn:
        page = kind == KINDS[0]
        event = {
            "user_id": user,
            "session_id": f"{user}{session}",
            "timestamp": 1_541_548_800 + second,
            "step": step,
            "action_type": kind,
            "reference": "Sort by Price" if kind == KINDS[2] else str(hotel),
            "platform": "AU",
            "city": "Bendigo, Australia",
            "device": "tablet",
            "current_filters": "5 Star|Spa" if page else None,
            "impressions": "|".join(map(str, PAGE)) if page else None,
            "prices": "|".join(map(str, PRICES)) if page else None,
        }
        seen.setdefault((user, session, second, step), event)
    return list(seen.values())


def read(folder: Path) -> dict[str, pl.LazyFrame]:
    return read_source(Source(kind="trivago", path=str(folder)), base=Path())


def clock(event: Event) -> tuple[object, object]:
    return event["timestamp"], event["step"]


def by_definition(log: list[Event], request: Event) -> dict[str, list[object]]:
    """What the page knows, straight from the words of the reader's docstring."""
    session = [e for e in log if e["session_id"] == request["session_id"]]
    before = sorted((e for e in session if clock(e) < clock(request)), key=clock)
    touched = [e for e in before if e["action_type"] != KINDS[2]]
    clicked = [e for e in before if e["action_type"] == KINDS[0]]
    last, last_clicked = (int(es[-1]["reference"]) if es else None for es in (touched, clicked))
    begin = min([*before, request], key=clock)["timestamp"]

    def below(hotel: int | None) -> list[object]:
        return [None] * 3 if hotel is None else [i - PAGE.index(hotel) for i in range(3)]

    earlier = [e["reference"] for e in log if e["timestamp"] < request["timestamp"]]
    return {
        "clicked": [int(str(hotel) == request["reference"]) for hotel in PAGE],
        "session_seconds": [request["timestamp"] - begin] * 3,
        "session_actions": [len(before)] * 3,
        "session_clickouts": [len(clicked)] * 3,
        "seconds_since_action": [request["timestamp"] - before[-1]["timestamp"] if before else None] * 3,
        "last_action": [before[-1]["action_type"] if before else None] * 3,
        "places_below_last": below(last),
        "places_below_clicked": below(last_clicked),
        "price_to_last": [None if last is None else p / PRICES[PAGE.index(last)] for p in PRICES],
        "item_touches": [earlier.count(str(hotel)) for hotel in PAGE],
    }


@settings(deadline=None, max_examples=8)
@given(st.lists(_event, min_size=10, max_size=40))
def test_the_page_knows_only_what_lies_strictly_before(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[object]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = events([*drawn, ("b", 0, 2, 2, KINDS[0], 6)])
    pl.DataFrame(log, infer_schema_length=None).write_parquet(folder / "events.parquet")
    rows = read(folder)["impressions"].collect()
    requests = sorted(
        (e for e in log if e["action_type"] == KINDS[0]),
        key=lambda e: (*clock(e), e["user_id"], e["session_id"]),
    )
    assert rows["request_id"].to_list() == [i for i in range(len(requests)) for _ in PAGE]
    assert rows["position"].to_list() == [1, 2, 3] * len(requests)
    expected = [by_definition(log, request) for request in requests]
    for column in expected[0]:
        assert rows[column].to_list() == pytest.approx([v for page in expected for v in page[column]]), column


def test_actions_and_searches_part_the_log(tmp_path: Path) -> None:
    log = events([("a", 0, 0, 1, KINDS[2], 5), ("a", 0, 1, 2, KINDS[1], 6), ("a", 0, 2, 3, KINDS[0], 7)])
    pl.DataFrame(log, infer_schema_length=None).write_csv(tmp_path / "train.csv")
    tables = {name: table.collect() for name, table in read(tmp_path).items()}
    assert tables["actions"]["item_id"].to_list() == [6, 7]
    assert tables["searches"]["term"].to_list() == ["Sort by Price"]
    assert tables["impressions"]["filters"].to_list() == [["5 Star", "Spa"]] * 3
    assert tables["impressions"]["price"].to_list() == PRICES


def test_errors_name_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold one of \['events.parquet', 'train.csv'\]"):
        read(tmp_path)
    pl.DataFrame(events([("a", 0, 0, 1, KINDS[0], 5)])).drop("prices").write_parquet(
        tmp_path / "events.parquet"
    )
    with pytest.raises(DataError, match=r"events\.parquet must have column 'prices'"):
        read(tmp_path)

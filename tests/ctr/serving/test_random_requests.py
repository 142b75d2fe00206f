"""Random score requests, part of each hostile: finite numbers or a refusal, never anything else."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from ctr.serving.bodies import parse_body
from features.errors import DataError
from tests.ctr.serving.test_counters import SHOP, Exporting
from tests.features.small_log import shop_tables

REQUESTS = 150
HOSTILE: list[Any] = [
    *(None, True, False, float("nan"), float("inf"), -1, 0, 2**31, 2**63 - 1, 2**63, -(2**63), 2**70, 1e308),
    *(
        "",
        "x" * 300,
        "\x00",
        "\x1b[2J",
        "a|b",
        "007",
        "\u0661",
        "\ud800",
        "9" * 30,
        "9" * 5000,
        "-0",
        "i3",
        "u1",
        "1",
    ),
    *([], [None], ["a", None], [1, "a"], [True], [[1]], {}, {"a": 1}, "2023-11-15T00:00:00Z", 1_700_050_000),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Exporting:
    return Exporting(tmp_path_factory.mktemp("random"), SHOP, shop_tables(60))


def drawn(case: Exporting, draw: random.Random) -> dict[str, Any]:
    """A score request of the log, in which some values are replaced."""

    def some(value: Any) -> Any:
        return draw.choice(HOSTILE) if draw.random() < 0.08 else value

    count, base = draw.choice([1, 2, 3]), case.raw(0)
    asked: dict[str, Any] = {"request_id": some(case.of(draw.randrange(3), "request_id"))}
    if draw.random() < 0.6:
        asked = {"user": some(f"u{draw.randrange(12)}"), "time": some(case.moment(2) / 10**9)}
    which = draw.choice(["items", "row_ids", "columns", "columns"])
    if which != "columns":
        known = {"items": [f"i{draw.randrange(60)}" for _ in range(count)], "row_ids": list(range(count))}
        asked[which] = [some(value) for value in known[which]]
    columns = {n: [some(v[0]) for _ in range(count)] for n, v in base["columns"].items()}
    kept = draw.choice([0.0, 0.5, 1.0])
    asked["columns"] = {n: v for n, v in columns.items() if draw.random() < kept or which == "columns"}
    if draw.random() < 0.5:
        asked["request_columns"] = {n: some(v) for n, v in base["request_columns"].items()}
    return asked


@pytest.mark.parametrize("filled", [False, True])
def test_random_requests(case: Exporting, filled: bool) -> None:
    draw, scored = random.Random(19 + filled), 0
    if filled:
        assert case.export(case.moment(1) / 10**9) == 0
    service = case.filled() if filled else case.service
    for _ in range(REQUESTS):
        body = json.dumps(drawn(case, draw)).encode()
        try:
            response = service(parse_body(body, most=10))
        except DataError as error:
            assert 0 < len(str(error)) < 20_000
            continue
        scored += 1
        assert np.isfinite(response.logit).all()
        names = response.unknown.of_each(len(response.logit))
        assert json.dumps(response.unknown.plain()) and len(names) == len(response.logit)
    assert REQUESTS * 0.1 < scored < REQUESTS * 0.9, scored

from __future__ import annotations

import polars as pl
import pytest

from features.errors import ConfigError
from features.read.derive import operands, parse


@pytest.mark.parametrize(
    ("expression", "roles"),
    [
        ("play / length", {"play": {"number"}, "length": {"number"}}),
        ("floor(play / 10)", {"play": {"number"}}),
        ("CASE WHEN kind = 'read' THEN play * 2 END", {"kind": {"category"}, "play": {"number"}}),
        ("kind IN ('a', 'b')", {"kind": {"category"}}),
        ("level IN (1, 2)", {"level": {"number"}}),
        ("upper(kind)", {"kind": {"category"}}),
        ("coalesce(play, 0)", {"play": {"number"}}),
        ("coalesce(kind, 'x')", {"kind": {"category"}}),
        ("CAST(play AS DOUBLE)", {"play": {"number"}}),
        ("play BETWEEN 1 AND 2 AND kind LIKE 'a%'", {"play": {"number"}, "kind": {"category"}}),
        ("round(play, 2)", {"play": {"number"}}),
        ("kind || 'x'", {"kind": {"category"}}),
        ("a > b", {"a": set(), "b": set()}),
        ("play IS NULL", {"play": set()}),
    ],
)
def test_operands_and_what_they_are_taken_for(expression: str, roles: dict[str, set[str]]) -> None:
    assert operands(parse(expression, what="d")) == roles


@pytest.mark.parametrize(
    "expression",
    [
        "sum(play)",
        "play - avg(play)",
        "lag(play) OVER (ORDER BY time)",
        "row_number() OVER (ORDER BY time)",
        "rank() OVER (ORDER BY time)",
        "count(*)",
        "first(play)",
        "CASE WHEN play > max(play) THEN 1 END",
        "(SELECT 1)",
        "play IN (SELECT play FROM self)",
        "current_timestamp",
        "play > now()",
    ],
)
def test_what_is_not_of_one_row_is_refused(expression: str) -> None:
    """A mean over the table would know the future."""
    with pytest.raises(ConfigError, match="must be computed from one row alone, but uses"):
        parse(expression, what="table 't', derived column 'd'")


@pytest.mark.parametrize(
    "expression", ["read_csv('/etc/passwd')", "play +", "", "random()", "'a'", "1", "play; DROP TABLE t", "*"]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match="'d'"):
        parse(expression, what="table 't', derived column 'd'")


def test_every_allowed_function_is_of_one_row() -> None:
    """What a row gives does not depend on the rows beside it."""
    frame = pl.DataFrame({"a": [1.5, -2.0, 3.0], "k": ["x", "yy", None]})
    texts = """abs(a) + floor(a) + ceil(a) + sign(a); a % 2; power(a, 2); ln(abs(a)); exp(a); sqrt(abs(a));
    greatest(a, 1.0); least(a, 1.0); nullif(a, 3.0); length(k); substr(k, 1, 1); concat(k, 'x'); lower(k);
    a > 1 OR k = 'x'; NOT (a > 1); k IS NOT NULL; round(a, 1); replace(k, 'y', 'z')"""
    for text in texts.split(";"):
        expression = parse(text, what="d").alias("d")
        whole = frame.select(expression)["d"].to_list()
        assert whole == [frame[i].select(expression)["d"][0] for i in range(3)], text

from __future__ import annotations

from typing import Any

import pytest

from features.errors import ConfigError
from features.read.columns import is_request_level
from features.read.needed import expand_patterns, needed_columns
from features.spec import DenseFeature, Spec, parse_spec
from tests.features.small_log import RATINGS_SPEC, SHOP_SPEC, changed

_DECLARE = "counter 'item' reads 'count.x.rate', which is computed after it; declare that counter before"
AGES = {"movie": "item.added", "account": "user.joined"}


def with_columns(*columns: str, **more: Any) -> Spec:
    return parse_spec(changed(RATINGS_SPEC, features__year={"columns": list(columns)}, **more))


@pytest.mark.parametrize(
    ("column", "request_level"),
    [
        ("user.age", True),
        ("user_id", True),
        ("timestamp", True),
        ("item.year", False),
        ("movie_id", False),  # although the clock is made of it
        ("count.item.count", False),
        ("count.user.rate", True),
        ("count.both.rate", False),
        ("match.genre.count", False),
        ("page.year.rank", False),
        ("page.year.size", True),
        ("age.movie", False),
        ("age.account", True),
    ],
)
def test_what_belongs_to_the_request(column: str, request_level: bool) -> None:
    counters = {
        "item": {"by": ["movie_id"]},
        "user": {"by": ["user_id"]},
        "both": {"by": ["user.sex", "movie_id"]},
    }
    pages = {"year": {"column": "item.year", "outputs": ["rank", "size"]}}
    for columns, wanted in (([column], request_level), ([column, "item.year"], False)):
        spec = with_columns(*columns, counters=counters, pages=pages, ages=AGES)
        assert is_request_level(spec, spec.features["year"]) == wanted


def test_context_belongs_to_the_request() -> None:
    spec = parse_spec(SHOP_SPEC)
    assert [n for n, f in spec.features.items() if is_request_level(spec, f)] == ["device"]


def test_patterns_expand_in_the_order_of_the_tables() -> None:
    """Each name once; never the label, which is a column of the impressions."""
    columns = {
        "ratings": ["timestamp", "rating", "user_id", "movie_id"],
        "users": ["user_id", "age"],
        "movies": ["movie_id", "year"],
    }
    found = expand_patterns(with_columns("item.year", "*r*", "count.*"), columns).features["year"]
    assert isinstance(found, DenseFeature)
    assert found.columns[:5] == ["item.year", "user_id", "user.user_id", "user.age", "count.item.rate"]
    assert found.columns.count("count.item.rate") == 1 and "rating" not in found.columns


def test_needed_columns_name_their_reader() -> None:
    needed = needed_columns(parse_spec(RATINGS_SPEC))
    assert needed["users"] == {"sex": "feature 'sex'", "age": "feature 'age'", "user_id": "user.key"}
    assert needed["ratings"]["rating"] == "impressions.label"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "feature 'sex' reads 'user.sex', but"),
        ({"domains__ratings__side__x": {"column": "user.sex", "table": "sex"}}, "side 'x' reads 'user.sex'"),
        ({"domains__ratings__side__x": {"columns": ["count.item.rate"]}}, "side 'x' reads 'count.item.rate'"),
        ({"domains__ratings__item": None}, "side 'genres' reads 'item.genres'"),
        ({"features__item": {"column": "__user", "table": "item"}}, "names with __ are reserved"),
        ({"counters__x": {"by": ["rating"]}}, "counter 'x' reads 'rating', the label column"),
        ({"matches__genre__candidate": "rating"}, "match 'genre' reads 'rating', the label column"),
        (
            {"ages": AGES, "counters__x": {"by": ["age.movie"]}},
            "counter 'x' reads 'age.movie', which is computed after it; read columns of the tables",
        ),
        ({"counters__item__by": ["count.x.rate"], "counters__x": {"by": ["movie_id"]}}, _DECLARE),
        (
            {"counters__x": {"by": ["movie_id"], "value": "match.genre.count"}},
            "'match.genre.count', which is c",
        ),
        (
            {"matches__genre__candidate": "page.p.rank", "pages": {"p": {"column": "item.year"}}},
            "'page.p.rank'",
        ),
        (
            {"pages": {"a": {"column": "page.b.rank"}, "b": {"column": "item.year"}}},
            "declare that page before",
        ),
        ({"tables__gap.x": {}}, r"tables calendar\.\* and gap\.\* are made for time features"),
    ],
)
def test_columns_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        needed_columns(parse_spec(changed(RATINGS_SPEC, **change)))


CLICKED = {"clicked": "clicks"}
_ROLES: dict[str, Any] = {
    "impressions.user": lambda c: {"impressions__user": c},
    "impressions.item": lambda c: {"impressions__item": c},
    "impressions.item, made": lambda c: {
        "impressions__item": c,
        "impressions__explode": {"column": "items", **CLICKED},
    },
    "impressions.time": lambda c: {"impressions__time": c},
    "impressions.request": lambda c: {"impressions__request": c},
    "impressions.position": lambda c: {"impressions__position": c},
    "impressions.context": lambda c: {"impressions__context": [c]},
    "impressions.where": lambda c: {"impressions__where": {c: [1]}},
    "impressions.explode": lambda c: {"impressions__explode": {"column": c, **CLICKED}},
    "impressions.label": lambda c: {"impressions__label": {"column": c}},
    "impressions.label.weight": lambda c: {"impressions__label__weight": c},
    "impressions.sampling": lambda c: {"impressions__sampling": {"negatives": c}},
    "impressions.outcomes": lambda c: {"impressions__outcomes": [c]},
    "label 'label', known_at": lambda c: {"impressions__label__known_at": c},
    "order": lambda c: {"order": [c]},
    "domain 'ratings', user": lambda c: {"domains__ratings__user": c},
    "domain 'ratings', item": lambda c: {"domains__ratings__item": c},
    "domain 'ratings', time": lambda c: {"domains__ratings__time": c},
    "domain 'ratings', where": lambda c: {"domains__ratings__where": {c: [1]}},
    "domain 'ratings', outcome": lambda c: {"domains__ratings__outcome": {"column": c}},
    "domain 'ratings', from_list": lambda c: {
        "domains__ratings__from_list": {"column": c, "order": "oldest_first"}
    },
    "domain 'ratings', known_later": lambda c: {"domains__ratings__known_later": [c]},
}


@pytest.mark.parametrize("role", _ROLES)
def test_rows_are_made_of_columns_of_their_own_table(role: str) -> None:
    """Neither of what is joined to them nor of what is computed for them."""
    computed = ["count.item.rate", "match.genre.count", "age.movie", "cross.both", "page.year.rank"]
    for column in ("user.age", "item.year", *computed):
        change = {
            "impressions__label": {"column": "rating"},
            "ages": AGES,
            "crosses": {"both": ["user.sex", "item.genres"]},
            "pages": {"year": {"column": "item.year"}},
            **_ROLES[role](column),
        }
        with pytest.raises(ConfigError) as refused:
            needed_columns(parse_spec(changed(RATINGS_SPEC, **change)))
        says = (
            f" must name a column of the table 'ratings' itself, got {column!r}, which is joined or computed"
        )
        assert role.partition(",")[0] + says in str(refused.value) or f"{role}{says}" in str(refused.value)

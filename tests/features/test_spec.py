from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError
from features.safe_yaml import dump_yaml
from features.spec import load_spec, parse_spec
from tests.features.small_log import RATINGS_SPEC, changed


def write(path: Path, **own: object) -> Path:
    path.write_text(dump_yaml(own))
    return path


def test_a_spec_extends_another_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(dump_yaml(RATINGS_SPEC))
    base = load_spec(tmp_path / "base.yaml")
    table = {"item": {"min_count": 7}, "extra": {}}
    more = load_spec(write(tmp_path / "more.yaml", extends="base", name="more", tables=table, order=None))
    assert (more.name, more.order) == ("more", [])
    assert (more.tables["item"].min_count, more.tables["item"].oov_rows) == (7, 3)
    assert more.tables.keys() == base.tables.keys() | {"extra"}
    assert more.features == base.features


def test_what_is_extended_is_a_name_beside_the_spec(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="extended spec name must start"):
        load_spec(write(tmp_path / "out.yaml", extends="../base"))
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_spec(write(tmp_path / "none.yaml", extends="gone"))


def test_specs_extend_one_another_over_several_levels(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(dump_yaml(RATINGS_SPEC))
    write(tmp_path / "chain.yaml", extends="base", name="chain", order=None)
    end = load_spec(write(tmp_path / "end.yaml", extends="chain", name="end"))
    assert (end.name, end.order) == ("end", [])
    assert end.features == load_spec(tmp_path / "base.yaml").features
    write(tmp_path / "one.yaml", extends="two")
    write(tmp_path / "two.yaml", extends="one")
    with pytest.raises(ConfigError, match=r"circle, got one.yaml → two.yaml → one.yaml"):
        load_spec(tmp_path / "one.yaml")


@pytest.mark.parametrize("place", ["features.sex", "domains.ratings.side.rating"])
@pytest.mark.parametrize(
    ("feature", "says"),
    [
        ({"column": "user.sex"}, ["table: Field required"]),
        ({"column": "user.sex", "table": "sex", "max_values": 0}, ["max_values: Input should be greater"]),
        ({"colum": "user.sex", "table": "sex"}, ["column: Field required", "colum: Extra inputs"]),
        ({"calendar": "day"}, ["calendar: Input should be 'hour' or 'weekday', got 'day'"]),
        ({"columns": ["user.age"], "scale": "linear"}, ["scale: Input should be 'none', 'standard'"]),
        ({"columns": ["user.age"], "table": "sex"}, ["table: Extra inputs"]),
    ],
)
def test_a_fault_of_a_feature_is_told_once(place: str, feature: dict[str, Any], says: list[str]) -> None:
    """As one of the kind that its keys tell, and not once more for every other kind."""
    with pytest.raises(ConfigError) as refused:
        parse_spec(changed(RATINGS_SPEC, **{place.replace(".", "__"): feature}))
    head, *lines = str(refused.value).splitlines()
    assert head == "spec is not valid:" and len(lines) == len(says)
    assert all(line.startswith(f"  {place}.{said}") for line, said in zip(lines, says, strict=True))


def test_a_gap_between_events_is_no_feature_of_an_impression() -> None:
    spec = changed(RATINGS_SPEC, features__sex={"since_previous": True})
    with pytest.raises(
        ConfigError, match=r"features.sex: since_previous is of events, as side info"
    ) as error:
        parse_spec(spec)
    assert len(str(error.value).splitlines()) == 2

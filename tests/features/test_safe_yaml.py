from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from features.safe_yaml import apply_overrides, dump_yaml, load_yaml, parse_yaml


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("3.", 3.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("012", 12),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        # Numbers, truth values and dates of YAML 1.1 only: all strings here.
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-31", "2024-01-31"),
        ("<<", "<<"),
        ("=", "="),
        ("'12'", "12"),
        ("inf", "inf"),
        ("1e", "1e"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    got = parse_yaml(f"key: {text}", "t")["key"]
    assert got == value
    assert type(got) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(parse_yaml("a: .nan", "t")["a"])


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", r"t, line 1: anchors .* write the value out"),
        ("a: 1\nb: *x", r"t, line 2: aliases .* write the value out"),
        ("a: 1\nb: 2\na: 3", r"t, line 3: key 'a' is already set in line 1; remove one"),
        ("x:\n  - {b: 1, b: 2}", r"t, line 2: key 'b' is already set in line 2"),
        ("a: !!python/object/apply:os.system [echo]", r"t, line 1: tags are not allowed, got .*os.system"),
        ("a: !!str 3", r"line 1: tags are not allowed"),
        ("!!set {a}", r"line 1: tags are not allowed"),
        ("a: ! 3", r"line 1: tags are not allowed"),
        ("? [1, 2]\n: 3", r"line 1: keys must be strings, got 'a list or mapping'"),
        ("1: a", r"line 1: keys must be strings, got '1'; put it in quotes"),
        ("true: a", r"line 1: keys must be strings, got 'true'"),
        ("a: 1e999", r"line 1: number '1e999' is too large"),
        ("a: " + "9" * 5000, r"line 1: a whole number must have at most 100 digits"),
        ("a: b\n---\nc: d", r"t, line 2: not valid YAML: but found another document"),
        ("a: [1, 2", r"t, line 1: not valid YAML"),
        ("a: 1\n\tb: 2", r"t, line 2: not valid YAML"),
        ("a: 1\nb: \x00", r"t, line 2: must be printable text"),
        ("", r"t: the file must hold a mapping .*, got nothing"),
        ("- a", r"got a list"),
        ("plain", r"got a str"),
    ],
)
def test_refused_with_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "t")


@pytest.mark.fault(33)
def test_alias_bomb_is_refused() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="anchors"):
        parse_yaml("\n".join(lines), "bomb")


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 20_000, "- " * 50_000, "".join(" " * i + "a:\n" for i in range(60))]
)
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="at most 50 levels deep"):
        parse_yaml(text, "deep")


def test_nesting_of_50_levels_is_read() -> None:
    node = parse_yaml("a: " + "[" * 48 + "7" + "]" * 48, "t")["a"]
    for _ in range(48):
        (node,) = node
    assert node == 7
    with pytest.raises(ConfigError, match="levels deep"):
        parse_yaml("a: " + "[" * 49 + "7" + "]" * 49, "t")


@pytest.mark.fault(33)
def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("a: " + "x" * 1_000_000)
    with pytest.raises(ConfigError, match=r"big.yaml: must be at most 1,000,000 bytes"):
        load_yaml(path)


def test_load_reads_utf8_with_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: Zoë\n".encode())
    assert load_yaml(str(path)) == {"name": "Zoë"}


def test_load_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: .* there is no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_yaml(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml, line 2: must be UTF-8"):
        load_yaml(path)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(
        [
            "no",
            "1e-3",
            "089",
            "0x1F",
            "2024-01-31",
            "~",
            "1_0",
            ".5",
            "=",
            "<<",
            "&x",
            "*x",
            "!a",
            "#",
            "-",
            "?",
            "|",
        ]
    )
    | st.sampled_from(["", "a: b", "a #b", "\n", "a\n\nb ", " a"])
)
_KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.dictionaries(_KEYS, _DATA, max_size=5))
def test_dump_round_trip(data: dict[str, Any]) -> None:
    text = dump_yaml(data)
    again = parse_yaml(text, "dump")
    assert repr(again) == repr(data)  # repr: also the types, the order of keys, and -0.0
    assert dump_yaml(again) == text


def test_dump_writes_shared_values_out() -> None:
    shared = [1, 2]
    assert parse_yaml(dump_yaml({"a": shared, "b": shared}), "t") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=7", {"seed": 7, "m": {"dims": [1, {"d": 2}], "off": None}}),
        ("m.dims.1.d=[8, x]", {"seed": 1, "m": {"dims": [1, {"d": [8, "x"]}], "off": None}}),
        ("m.off.deep.er=1e-3", {"seed": 1, "m": {"dims": [1, {"d": 2}], "off": {"deep": {"er": 0.001}}}}),
        ("m=", {"seed": 1, "m": None}),
        ("m={a: 1}", {"seed": 1, "m": {"a": 1}}),
        ("seed=a=b", {"seed": "a=b", "m": {"dims": [1, {"d": 2}], "off": None}}),
    ],
)
def test_overrides(override: str, expected: dict[str, Any]) -> None:
    data = {"seed": 1, "m": {"dims": [1, {"d": 2}], "off": None}}
    before = repr(data)
    assert apply_overrides(data, [override]) == expected
    assert repr(data) == before


def test_overrides_apply_in_order() -> None:
    assert apply_overrides({}, ["a.b=1", "a.b=2", "a.c=no"]) == {"a": {"b": 2, "c": "no"}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"must read path=value"),
        ("=3", r"must read path=value"),
        ("a..b=3", r"must read path=value"),
        ("seed.x=3", r"seed is the plain value 1, so it has no 'x'"),
        ("dims.2=3", r"dims is a list of 2: the index must lie in \[0, 2\), got '2'"),
        ("dims.-1=3", r"got '-1'"),
        ("dims.²=3", r"got '²'"),
        ("dims.x.y=3", r"got 'x'"),
        ("seed=[1", r"--set 'seed=\[1', line 1: not valid YAML"),
        ("seed=!!python/name:os.system", r"tags are not allowed"),
        (".".join("a" * 51) + "=1", r"at most 50 parts"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    data = {"seed": 1, "dims": [1, 2]}
    with pytest.raises(ConfigError, match=message):
        apply_overrides(data, [override])
    assert data == {"seed": 1, "dims": [1, 2]}

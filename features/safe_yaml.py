"""YAML without its traps: a small, bounded subset that reads as plain data.

What is read is YAML 1.2's core schema without octal and hexadecimal numbers: `1e-3` is a number,
`no` and `2024-01-31` are strings, `012` is twelve. Aliases, anchors, tags and duplicate keys are refused,
and so is anything larger than 1 MB or nested deeper than 50 levels: a config needs none of them, and each has
been used to run code, to exhaust memory or to hide a setting.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from features.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50

_PREFIX = "tag:yaml.org,2002:"
# (type, pattern, the first characters it can have): the core schema, decimal numbers only.
_SCALARS: list[tuple[str, str, list[str]]] = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
]


class _Refused(yaml.MarkedYAMLError):
    """A construct outside the subset, with the remedy in its text and the place it was met."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


# Pure Python on purpose: the C loader crashes the process on deeply nested input.
class _Loader(yaml.SafeLoader):
    """SafeLoader that composes only the subset described at the head of this file."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own form)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("aliases (*name) are not allowed; write the value out", mark)
        if getattr(event, "anchor", None) is not None:
            raise _Refused("anchors (&name) are not allowed; write the value out", mark)
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"tags are not allowed, got {event.tag!r}; remove the tag", mark)
        if self._depth >= MAX_DEPTH:
            raise _Refused(f"nesting must be at most {MAX_DEPTH} levels deep; flatten it", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != _PREFIX + "str":
                text = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise _Refused(f"keys must be strings, got {text!r}; put it in quotes", key.start_mark)
            if key.value in seen:
                first = seen[key.value]
                raise _Refused(
                    f"key {key.value!r} is already set in line {first}; remove one", key.start_mark
                )
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > 100:
        raise _Refused("a whole number must have at most 100 digits; put it in quotes", node.start_mark)
    return int(node.value)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = node.value.lower()
    named = text.endswith((".inf", ".nan"))
    value = float(text.replace(".", "") if named else text)
    if math.isinf(value) and not named:
        raise _Refused(f"number {node.value!r} is too large; write .inf to mean infinity", node.start_mark)
    return value


class _Dumper(yaml.SafeDumper):
    """SafeDumper without anchors, which quotes every string that YAML 1.1 *or* 1.2 would misread."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Only double quotes escape Unicode's line breaks; anything else folds them into spaces.
        style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
        return self.represent_scalar(_PREFIX + "str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


for _type, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _type, re.compile(f"(?:{_pattern})$"), _first)
_Loader.add_constructor(_PREFIX + "int", _construct_int)
_Loader.add_constructor(_PREFIX + "float", _construct_float)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose root is a mapping.

    Args:
        path: the file, UTF-8, at most 1 MB.

    Returns:
        Plain data: dict, list, str, int, float, bool and None.

    Raises:
        ConfigError: the file cannot be read, or holds anything outside the subset; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        state = "it is not a regular file" if path.exists() else "there is no such file"
        raise ConfigError(f"{path}: must be a YAML file, but {state}; check the path")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: must be UTF-8 text; save the file as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, what: str) -> dict[str, Any]:
    """Parse YAML text whose root is a mapping.

    Args:
        text: at most 1 MB.
        what: where the text comes from, for the error message: a file name, say.

    Raises:
        ConfigError: the text holds anything outside the subset; names `what` and the line.

    Example:
        >>> parse_yaml("rate: 1e-3\\ncountry: no", "example")
        {'rate': 0.001, 'country': 'no'}
    """
    data = _parse(text, what)
    if not isinstance(data, dict):
        got = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{what}: the file must hold a mapping (`name: value` lines), got {got}")
    return data


def dump_yaml(data: dict[str, Any]) -> str:
    """Write plain data as YAML that `parse_yaml` reads back unchanged, keys in the given order.

    Example:
        >>> print(dump_yaml({"country": "no", "rate": 0.001, "version": "1e-3"}), end="")
        country: 'no'
        rate: 0.001
        version: '1e-3'
    """
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def apply_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return a copy of `data` with `--set` overrides applied in order.

    Args:
        data: plain data, as `load_yaml` returns it; left as it is.
        overrides: `path=value` each. The path is dotted and goes through mappings by key and through
            lists by index; missing mappings are made. The value is YAML: `3`, `true`, `[8, 16]`, `name`.

    Raises:
        ConfigError: no `=`, an empty part in the path, an index outside its list, a path through a plain
            value, or a value that is not YAML.

    Example:
        >>> apply_overrides({"model": {"layers": [1, 2]}}, ["model.layers.0=8", "seed=3"])
        {'model': {'layers': [8, 2]}, 'seed': 3}
    """
    result = _copy(data)
    for override in overrides:
        _apply(result, override)
    return result


def _parse(text: str, what: str) -> Any:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise ConfigError(f"{what}: must be at most {MAX_BYTES:,} bytes; move the data out of the config")
    try:
        # _Loader is a SafeLoader: it builds plain data only.
        return yaml.load(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{what}, line {line}: must be printable text, got {error.character!r}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = error.problem or str(error)
        if not isinstance(error, _Refused):
            problem = f"not valid YAML: {problem}; check indentation, quotes and brackets"
        raise ConfigError(f"{what}, line {line}: {problem}") from error


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: must read path=value, as in train.steps=100")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"--set {override[:40]!r}…: the path must have at most {MAX_DEPTH} parts")
    value = _parse(text, f"--set {override!r}")
    node: Any = data
    for depth, part in enumerate(parts):
        key = _key(node, part, f"--set {override!r}: {'.'.join(parts[:depth]) or 'the root'}")
        if depth == len(parts) - 1:
            node[key] = value
        elif isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]


def _key(node: Any, part: str, where: str) -> str | int:
    """Return `part` as the key or index it is in `node`."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(f"{where} is the plain value {node!r}, so it has no {part!r}; check the path")
    # isdecimal alone also admits other scripts' digits.
    if not (part.isascii() and part.isdecimal() and len(part) < 10 and int(part) < len(node)):
        raise ConfigError(
            f"{where} is a list of {len(node)}: the index must lie in [0, {len(node)}), got {part!r}"
        )
    return int(part)


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(item) for item in data] if isinstance(data, list) else data

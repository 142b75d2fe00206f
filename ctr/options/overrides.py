"""Changes of a configuration as `a.b=1`: a choice that is changed leaves the options of the old one behind.

    model: {kind: hyformer, layers: 2, attention_sink: true}     with model.kind=longer
    model: {kind: longer, layers: 2}                             an option that LONGER has not is gone

What a change itself names stays, so that a mistake in it is still refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ctr.options.kinds import OneOf, Path, one_of
from ctr.options.knobs import Knobs, section_of
from features.errors import ConfigError
from features.safe_yaml import apply_overrides


def change(options: type[Knobs], data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of plain data with `path=value` overrides applied in order.

    Args:
        options: the class that the data is for.
        data: plain data.
        overrides: as `features.safe_yaml.apply_overrides` takes them.

    Raises:
        ConfigError: an override that is none, or does not fit the data.
    """
    data, named = apply_overrides(data, []), list[Path]()
    for override in overrides:
        path = tuple(override.partition("=")[0].strip().split("."))
        section = _inside(data, path[:-1])
        changed = apply_overrides(data, [override])
        if section is not None and (inner := _inside(changed, path[:-1])) is not None:
            keep = {other[len(path) - 1] for other in [*named, path] if _beside(other, path)}
            _leave_behind(options, changed, path, section, inner, keep)
        data = changed
        named.append(path)
    return data


def refuse_decided(overrides: Sequence[str], decided: Mapping[str, str], *, what: str) -> None:
    """Refuse overrides of options that something else decides: they would be of no effect.

    Args:
        overrides: `path=value` each; a value may be a whole section.
        decided: option or section → what decides it.
        what: would set them, for the message.

    Raises:
        ConfigError: naming the option and what decides it.
    """
    for override in overrides:
        for path in _leaves(apply_overrides({}, [override])):
            for option, by in decided.items():
                if path == option or path.startswith(f"{option}."):
                    raise ConfigError(f"{what} must not set {path}: {by}; delete it there")


def _leaves(data: Mapping[str, Any]) -> Iterator[str]:
    """Paths of the plain values."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{name}.{path}" for path in _leaves(value))
        else:
            yield str(name)


def _leave_behind(
    options: type[Knobs], data: dict[str, Any], path: Path, before: Mapping[str, Any],
    section: dict[str, Any], keep: set[str],
) -> None:  # fmt: skip
    """Delete from `section`, whose option `path` was just set, what its old choice alone had."""
    found = _class_at(options, data, path[:-1])
    if found is None:
        return
    cls, mark = found
    name, value = path[-1], section[path[-1]]
    if mark is not None and name == "kind" and before.get("kind", mark.default) != value:
        for other in set(section) - keep:
            _fit(section, other, cls.model_fields.get(other))
    for rule in cls.UNUSED:
        if rule.by == name and rule.when(value):
            for option in set(rule.options) - keep:
                _forget(section, tuple(option.split(".")), rule.values)


def _forget(section: dict[str, Any], path: Path, values: tuple[Any, ...] | None) -> None:
    """Delete an option, if it has one of the values."""
    inside = _inside(section, path[:-1])
    if inside is not None and path[-1] in inside and (values is None or inside[path[-1]] in values):
        del inside[path[-1]]


def _fit(section: dict[str, Any], name: str, option: FieldInfo | None) -> None:
    """Delete an entry, or as much of it, as the option of that name does not have."""
    inner = section_of(option) if option else None
    if inner is not None and isinstance(section[name], dict):
        section[name] = {key: value for key, value in section[name].items() if key in inner.model_fields}
    if option is None:
        del section[name]
        return
    try:
        TypeAdapter(option.rebuild_annotation()).validate_python(section[name])
    except ValidationError:
        del section[name]


def _beside(other: Path, path: Path) -> bool:
    """Whether another option, or a part of it, stands in the section of this one."""
    return len(other) >= len(path) and other[: len(path) - 1] == path[:-1]


def _class_at(
    options: type[Knobs], data: Mapping[str, Any], path: Path
) -> tuple[type[Knobs], OneOf | None] | None:
    """The class of the section at a path, and its mark if it has several kinds; None if there is none."""
    cls, mark = options, None
    for part in path:
        field = cls.model_fields.get(part)
        inside = data.get(part) if isinstance(data, Mapping) else None
        if field is None or not isinstance(inside, Mapping):
            return None
        mark = one_of(field)
        found = mark.class_of(inside) if mark else section_of(field)
        if found is None:
            return None
        cls, data = found, inside
    return cls, mark


def _inside(data: Any, path: Path) -> dict[str, Any] | None:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None

"""A section that is of one of several kinds, each a class with the options that this kind has and no others.

An option of another kind is refused with the kinds that have it. Run directories of before name the options
of all kinds, those without effect at their defaults: these are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from ctr.options.knobs import DROP_UNUSED, KindSection, Knobs, default_of, section_of

Path = tuple[str, ...]
Wrong = tuple[Path, str, Any]  # option, what must hold, what came


@dataclass(frozen=True)
class OneOf:
    """The mark of such a section: `Annotated[SerializeAsAny[Base], OneOf({"a": A, "b": B}, default="a")]`.

    Args:
        kinds: kind → class; asked whenever a section is read, so that it may grow.
        default: the kind of a section that names none.
    """

    kinds: Mapping[str, type[KindSection]]
    default: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self._validate, handler(source))

    def _validate(self, section: Any, info: ValidationInfo) -> Any:
        return self.read(section, context=info.context) if isinstance(section, Mapping) else section

    def class_of(self, section: Mapping[str, Any]) -> type[KindSection] | None:
        """The class of a section, by its `kind`; None if there is no such kind."""
        kind = section.get("kind", self.default)
        return self.kinds[kind] if isinstance(kind, str) and kind in self.kinds else None

    def read(self, section: Mapping[str, Any], *, context: dict[str, str] | None = None) -> KindSection:
        """The options of a section in plain data.

        Raises:
            ValidationError: naming every wrong option; with the kinds that have it, if any has.
        """
        own = self.class_of(section)
        if own is None:
            raise _invalid([(("kind",), f"must be one of {', '.join(self.kinds)}", section["kind"])])
        wrong: list[Wrong] = []
        kept = dict(self._own_options(section, own, (), wrong))
        if wrong and context is not DROP_UNUSED:
            rest = f", not of kind {section.get('kind', self.default)}; delete it or change the kind"
            raise _invalid([(path, text + rest, value) for path, text, value in wrong])
        try:
            return own.model_validate(kept, context=context)
        except ValidationError as error:
            raise self._with_hints(error, own) from None

    def owners(self, path: Path) -> dict[str, FieldInfo]:
        """kind → the option at a path inside the section, for every kind that has it."""
        found = {kind: _option(cls, path) for kind, cls in self.kinds.items()}
        return {kind: option for kind, option in found.items() if option is not None}

    def _own_options(
        self, section: Mapping[str, Any], own: type[Knobs], at: Path, wrong: list[Wrong]
    ) -> Iterator[tuple[str, Any]]:
        """The entries without those of other kinds; `wrong` takes these if they are not at their defaults."""
        for name, value in section.items():
            path = (*at, name)
            if name in own.model_fields:
                inner = section_of(own.model_fields[name])
                if inner is not None and isinstance(value, Mapping):
                    value = dict(self._own_options(value, inner, path, wrong))
                yield name, value
            elif not (owners := self.owners(path)):
                yield name, value  # no kind has it: the class says so
            elif all(differing := [_differing(option, value) for option in owners.values()]):
                text = f"is an option of {_listed(owners)}"
                wrong += [((*path, *rest), text, leaf) for rest, leaf in differing[0].items()]

    def _with_hints(self, error: ValidationError, own: type[KindSection]) -> ValidationError:
        """The same error; where another kind allows the value, it says which."""
        lines: list[InitErrorDetails] = []
        for item in error.errors():
            path, value = tuple(str(part) for part in item["loc"]), item["input"]
            others = {k: o for k, o in self.owners(path).items() if self.kinds[k] is not own}
            if allowing := [kind for kind, option in others.items() if _allows(option, value)]:
                said = item["msg"].removeprefix("Value error, ")
                lines.append(_line(path, f"{said}; only {_listed(allowing)} allows this value", value))
            elif item["type"] == "extra_forbidden":
                lines.append(InitErrorDetails(type="extra_forbidden", loc=item["loc"], input=value))
            else:
                lines.append(_line(item["loc"], item["msg"], value))
        return ValidationError.from_exception_data(own.__name__, lines)


def one_of(field: FieldInfo) -> OneOf | None:
    """The mark of an option that is a section of several kinds."""
    return next((mark for mark in field.metadata if isinstance(mark, OneOf)), None)


def differing(own: Knobs, usual: Any) -> dict[str, Any]:
    """The options of a section that are not at their defaults, as plain data.

    A section of another kind than `usual` is held against the defaults of its own kind, and named by it.
    """
    same = type(own) is type(usual)
    found: dict[str, Any] = {} if same or not isinstance(own, KindSection) else {"kind": own.kind}
    for name, field in type(own).model_fields.items():
        value, default = getattr(own, name), getattr(usual, name) if same else default_of(field)
        if isinstance(value, Knobs):
            if rest := differing(value, default):
                found[name] = rest
        elif value != default:
            found[name] = value
    return found


def _option(cls: type[Knobs], path: Path) -> FieldInfo | None:
    """The option at a path, through sections of one kind; None if there is none."""
    if not path:
        return None
    for name in path[:-1]:
        field = cls.model_fields.get(name)
        inner = section_of(field) if field else None
        if inner is None:
            return None
        cls = inner
    return cls.model_fields.get(path[-1])


def _differing(option: FieldInfo, value: Any) -> dict[Path, Any]:
    """What of a value is not at its default: path below the option → value."""
    try:
        read = TypeAdapter(option.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return {(): value}
    usual = default_of(option)
    if isinstance(read, Knobs) and isinstance(usual, Knobs) and isinstance(value, Mapping):
        mine, others = dict(read), dict(usual)
        return {(name,): mine[name] for name in mine if name not in others or mine[name] != others[name]}
    return {} if read == usual else {(): value}


def _allows(option: FieldInfo, value: Any) -> bool:
    try:
        TypeAdapter(option.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


def _listed(kinds: Mapping[str, Any] | list[str]) -> str:
    return "kind " + " or ".join(kinds)


def _line(path: tuple[int | str, ...], text: str, value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("option", text), loc=path, input=value)


def _invalid(wrong: list[Wrong]) -> ValidationError:
    return ValidationError.from_exception_data("options", [_line(*one) for one in wrong])

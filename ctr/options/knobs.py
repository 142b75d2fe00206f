"""Plain, immutable options; an unknown key is an error, and so is an option that would change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.fields import FieldInfo

# No size is beyond 32 bits, so that a product of two is a number that torch can refuse.
MOST = 2**31 - 1
Positive = Annotated[int, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
# Of parts that are made one by one, before anything can tell what they take together.
Few = Annotated[int, Field(gt=0, le=10_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]  # what torch takes
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must differ from each other, got {list(seeds)}")
    return seeds


# Of several trainings of one configuration.
Seeds = Annotated[tuple[Annotated[Seed, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)]

# As the context of a validation: options without effect are dropped, whatever their value. For configurations
# of before, when they were accepted.
DROP_UNUSED = {"options without effect": "drop"}


K = TypeVar("K", bound="Knobs")


@dataclass(frozen=True)
class Unused:
    """Options that change nothing while another one has certain values.

    Args:
        options: their names, `section.name` for one in a section.
        by: the option that decides.
        when: whether a value of `by` leaves them without effect.
        because: the reason, for the message.
        values: those of their values that have none; all but the default if None.
    """

    options: tuple[str, ...]
    by: str
    when: Callable[[Any], bool]
    because: str
    values: tuple[Any, ...] | None = None

    def given(self, section: Knobs) -> dict[str, Any]:
        """The options without effect that a section sets, with their values."""
        if not self.when(getattr(section, self.by)):
            return {}
        found = {path: _get(section, path) for path in self.options}
        usual = {path: _default(type(section), path) for path in self.options}
        return {
            path: value
            for path, value in found.items()
            if (value != usual[path] if self.values is None else value in self.values)
        }


class Knobs(BaseModel):
    """Plain, immutable data; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    UNUSED: ClassVar[tuple[Unused, ...]] = ()

    @model_validator(mode="after")
    def _without_unused(self, info: ValidationInfo) -> Self:
        kept = self
        for rule in self.UNUSED:
            given = rule.given(self)
            if given and info.context is not DROP_UNUSED:
                told = ", ".join(f"{path}: {value!r}" for path, value in given.items())
                raise ValueError(f"{rule.because}, so that {told} would change nothing; delete it")
            for path in given:
                kept = _set(kept, path, _default(type(self), path))
        return kept


class KindSection(Knobs):
    """A section that is of one of several kinds."""

    kind: str


def default_of(field: FieldInfo) -> Any:
    """The value of an option that nobody sets."""
    return field.get_default(call_default_factory=True, validated_data={})


def section_of(field: FieldInfo) -> type[Knobs] | None:
    """The class of a section that has one kind only; None for plain values."""
    kind: Any = field.annotation
    plain = not isinstance(kind, type) or not issubclass(kind, Knobs) or issubclass(kind, KindSection)
    return None if plain else kind


def _get(section: Knobs, path: str) -> Any:
    name, _, rest = path.partition(".")
    return _get(getattr(section, name), rest) if rest else getattr(section, name)


def _default(section: type[Knobs], path: str) -> Any:
    name, _, rest = path.partition(".")
    usual = default_of(section.model_fields[name])
    return _get(usual, rest) if rest else usual


def _set(section: K, path: str, value: Any) -> K:
    name, _, rest = path.partition(".")
    return section.model_copy(update={name: _set(getattr(section, name), rest, value) if rest else value})

"""When a value is known: labels, outcomes and other columns that are logged with a row but fixed later."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from features.computed import Seconds, Strict, is_none


class Known(Strict):
    """When a logged value is known; without a rule it is known at the time of its row.

    With both keys, `known_at` holds where it is given and `delay` where it is missing: a purchase is known
    when it happens, and that there was none when the time for it is over.
    """

    delay: Seconds | None = Field(default=None, exclude_if=is_none)  # after the time of the row
    known_at: str | None = Field(default=None, exclude_if=is_none)  # a column that holds the time

    @property
    def at_once(self) -> bool:
        """Whether the value is known at the time of its row."""
        return self.delay is None and self.known_at is None

    @property
    def rule(self) -> Known:
        """The rule alone."""
        return Known(delay=self.delay, known_at=self.known_at)


class Label(Known):
    """How a column becomes the 0/1 label; without a rule the column must already be 0/1."""

    column: str
    at_least: float | None = None
    equals: bool | float | int | str | None = None

    @model_validator(mode="after")
    def one_rule(self) -> Label:
        if self.at_least is not None and self.equals is not None:
            raise ValueError("label takes one of at_least and equals, got both; drop one")
        return self


def _as_rules(columns: object) -> object:
    """A list of columns as columns that are known at once after their row."""
    return {str(name): {} for name in columns} if isinstance(columns, list) else columns


def _is_empty(value: Any) -> bool:
    return not value


# Column → when it is known. A plain list of columns names those that are known right after their row.
KnownLater = Annotated[dict[str, Known], BeforeValidator(_as_rules), Field(default={}, exclude_if=_is_empty)]

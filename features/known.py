"""Labels, and when they are known, as are outcomes and other columns that are fixed later than their row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from features.computed import Seconds, Strict, is_none

LABEL = "label"  # the one task of a data set whose spec has a single label


def is_empty(value: Any) -> bool:
    """Whether a value need not be written down."""
    return not value


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


class RowWeight(Strict):
    """How much a row counts in the loss and the metrics of a task.

        weight = min(f(column), at_most) · positives where the label is 1, · negatives where it is 0

    Without a column f is 1. `scale` is f: the value itself, log(1 + value) or its square root.
    """

    column: str | None = None
    scale: Literal["none", "log", "sqrt"] = "none"
    at_most: float | None = Field(default=None, gt=0)
    positives: float = Field(default=1.0, ge=0)
    negatives: float = Field(default=1.0, ge=0)


def _as_weight(weight: object) -> object:
    return {"column": weight} if isinstance(weight, str) else weight


class FromEvents(Strict):
    """A label made of what the same user did with the same item after the impression.

    It is 1 if an event of the domain lies strictly after the impression and at most `within` later, and known
    when that time is over: rows whose time is not over when the events end have no label.
    """

    domain: str  # has an item and times
    within: Seconds
    where: dict[str, list[Any]] = Field(default={}, exclude_if=is_empty)  # as of a domain: events that count


class TaskLabel(Label):
    """What one task learns of an impression: a label, where it exists, and how much its rows count."""

    column: str = Field(default="", exclude_if=is_empty)  # of the impressions; none with from_events
    from_events: FromEvents | None = Field(default=None, exclude_if=is_none)
    kind: Literal["binary", "regression"] = Field(default="binary", exclude_if=lambda kind: kind == "binary")
    given: str | None = Field(default=None, exclude_if=is_none)  # another label that must be 1 for this one
    # The rows of the newest so many seconds of the data are left out: their label may still change.
    mature: Seconds | None = Field(default=None, exclude_if=is_none)
    # How rows count whose label may still become 1: as observed, or weighted by how many will
    # (`features.encode.late`). It needs known_at, and a delay after which no label changes.
    late: Literal["importance"] | None = Field(default=None, exclude_if=is_none)
    # Of a regression: none (the default), log or quantile; see `features.store.tasks.TargetScale`.
    scale: Literal["none", "log", "quantile"] | None = Field(default=None, exclude_if=is_none)
    weight: Annotated[RowWeight | None, BeforeValidator(_as_weight)] = Field(default=None, exclude_if=is_none)

    @property
    def rule(self) -> Known:
        """When the label is known."""
        return super().rule if self.from_events is None else Known(delay=self.from_events.within)

    @property
    def unknown_for(self) -> float | None:
        """The rows of the newest so many seconds of the data have no label, if any."""
        return self.mature if self.from_events is None else self.from_events.within

    @model_validator(mode="after")
    def of_one_source(self) -> TaskLabel:
        """A column or later events, which say themselves when the label is known."""
        if (self.from_events is None) == (not self.column):
            raise ValueError("a label comes from a column or from_events; give one of them")
        fields = type(self).model_fields.items()
        said = {name for name, field in fields if getattr(self, name) != field.default}
        if self.from_events is not None and (own := sorted(said - {"from_events", "given", "weight"})):
            raise ValueError(f"a label from_events is 0 or 1, and known after `within`; drop {own}")
        return self

    @model_validator(mode="after")
    def fits_its_kind(self) -> TaskLabel:
        if self.kind == "binary" and self.scale is not None:
            raise ValueError(f"scale is for kind: regression, got {self.scale!r}; drop it or set the kind")
        if self.late is not None and (self.kind == "regression" or None in (self.delay, self.known_at)):
            raise ValueError(
                "late needs a binary label with known_at, when it became 1, and delay, after which it never "
                f"does, got kind {self.kind!r}, known_at {self.known_at!r} and delay {self.delay!r}"
            )
        if self.kind == "regression":
            if self.at_least is not None or self.equals is not None:
                raise ValueError("a regression learns the values themselves; drop at_least and equals")
            if self.weight is not None and (self.weight.positives, self.weight.negatives) != (1.0, 1.0):
                raise ValueError("weight.positives and negatives are for binary labels; drop them")
        return self


class Sampling(Strict):
    """Of what the log leaves out: a share of the rows whose first label is 0 was kept, and all others.

    The share is one number, or the column that holds it for each row.
    """

    negatives: Annotated[float, Field(gt=0, le=1)] | str


def _as_rules(columns: object) -> object:
    """A list of columns as columns that are known at once after their row."""
    return {str(name): {} for name in columns} if isinstance(columns, list) else columns


# Column → when it is known. A plain list of columns names those that are known right after their row.
KnownLater = Annotated[dict[str, Known], BeforeValidator(_as_rules), Field(default={}, exclude_if=is_empty)]
TaskLabels = Annotated[dict[str, TaskLabel], Field(default={}, exclude_if=is_empty)]


class HasLabels(Strict):
    """What impressions make of their labels; the fields are theirs."""

    if TYPE_CHECKING:
        label: TaskLabel
        labels: dict[str, TaskLabel]
        explode: Any

    @property
    def tasks(self) -> dict[str, TaskLabel]:
        """Every task with its label; a single label is the task `label`."""
        return self.labels or {LABEL: self.label}

    @property
    def logged(self) -> dict[str, TaskLabel]:
        """The tasks whose label a column of the impressions holds."""
        return {name: label for name, label in self.tasks.items() if label.from_events is None}

    @property
    def from_events(self) -> dict[str, FromEvents]:
        """The tasks whose label is made of later events, each with its rule."""
        return {name: task.from_events for name, task in self.tasks.items() if task.from_events is not None}

    @model_validator(mode="before")
    @classmethod
    def first_label(cls, data: Any) -> Any:
        """The label of the log, which counters and checks read, is the first of several."""
        labels = data.get("labels") if isinstance(data, dict) else None
        if not isinstance(labels, dict) or not labels or "label" in data:
            return data
        return {**data, "label": next(iter(labels.values()))}

    @model_validator(mode="after")
    def labels_fit(self) -> Self:
        """No two accounts of the first label, none that some rows lack, and names that a task can have."""
        if self.labels and self.label != next(iter(self.labels.values())):
            raise ValueError("give label or labels, not both; the label of the log is the first of labels")
        if self.label.kind == "regression" or self.label.given is not None or self.label.from_events:
            came = "from_events" if self.label.from_events else f"given {self.label.given!r}"
            raise ValueError(
                "the first label must be binary and exist in every row, as counters and checks read it, got "
                f"kind {self.label.kind!r} and {came}; put another one first"
            )
        if len(self.logged) > 1 and self.explode is not None:
            raise ValueError("explode makes one label of its own; further ones must be made from_events")
        above: list[str] = []
        for name, label in self.labels.items():
            if not name.isidentifier() or not name.isascii():
                raise ValueError(f"a label must be named by letters, digits and _, got {name!r}; rename it")
            if label.given is not None and label.given not in above:
                raise ValueError(
                    f"label {name!r}: given must name a binary label above it, {above}, got {label.given!r}"
                )
            above += [name] if label.kind == "binary" else []
            # Labels of columns are made before those of events.
            if label.column and label.given is not None and self.labels[label.given].from_events:
                raise ValueError(f"label {name!r} of a column cannot be given {label.given!r}, of events")
        return self

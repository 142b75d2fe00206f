"""What a caller sends: a request, and candidates to score for it. The same fields in JSON and in Parquet."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from features.errors import DataError, explain
from features.read.moment import moment_of

MOST_CHARACTERS = 2**22
JsonNumber = int | float


class FirstFault(FailFast):
    """A list is given up at its first wrong value: a million of them makes no million of messages."""

    def __hash__(self) -> int:  # unions of types want it
        return hash(FirstFault)


def _time(value: Any) -> Any:
    """A time as it came; its zone is known only beside a data set."""
    try:
        return value if value is None else (moment_of(value), value)[1]
    except ValueError as error:
        raise ValueError(str(error).partition(", got ")[0]) from None


def _not_infinite(value: float) -> float:
    """NaN is how logs write a missing number; an infinite one is a number that got too large on its way."""
    if math.isinf(value):
        raise ValueError("a number must be finite, or null or NaN where it is missing")
    return value


Time = Annotated[int | float | str | None, PlainValidator(_time)]
Numbers = Annotated[list[JsonNumber], FirstFault()]
Value = JsonNumber | Numbers  # an ID, several IDs, or the numbers of a dense feature
RawNumber = Annotated[float, Field(allow_inf_nan=True), AfterValidator(_not_infinite)]
Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]  # with a bound, halves of surrogates are refused too
Scalar = bool | int | RawNumber | Text | None
RawValue = Scalar | Annotated[list[Scalar], FirstFault()]
Key = int | Text
INT64 = 2**63
Id = Annotated[int, Field(ge=0, lt=INT64)]


class ScoreRequest(BaseModel):
    """One request and its candidates.

    Columns hold raw values as the log has them, under the names of the spec; they are encoded as the log was
    by `ctr prepare`. Features hold values that are encoded already.

    Example:
        >>> ScoreRequest(request_id=7, columns={"item_id": ["a", "b"], "price": [9.95, None]}).candidates
        2
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    request_id: Id | None = None  # a request of the data set
    user: Key | None = None  # or: a raw key of a user, and the moment
    time: Time = None  # seconds, or ISO 8601; events strictly before it are the history
    request_columns: dict[str, RawValue] = {}  # raw; they replace what the data set has for the features
    request_features: dict[str, Value] = {}  # the same, encoded
    row_ids: Annotated[list[Id], FirstFault()] | None = (
        None  # candidates with the features of prepared impressions
    )
    items: Annotated[list[Key], FirstFault()] | None = None  # or: raw keys of items, with what is their own
    columns: dict[
        str, Annotated[list[RawValue], FirstFault()]
    ] = {}  # raw, a value per candidate; they replace the data set's
    features: dict[str, Annotated[list[Value], FirstFault()]] = {}  # the same, encoded

    @model_validator(mode="after")
    def one_way_each(self) -> ScoreRequest:
        if (self.request_id is None) == (self.user is None) or (self.user is None) != (self.time is None):
            raise ValueError("give either request_id, or user and time")
        if self.row_ids is not None and self.items is not None:
            raise ValueError("give row_ids or items, not both")
        counts = {name: len(values) for name, values in self._lists().items()}
        if not counts or len(set(counts.values())) > 1 or not max(counts.values()):
            raise ValueError(
                "give at least one candidate, and as many row_ids or items as values of each column and "
                f"feature; got {counts}"
            )
        return self

    @property
    def candidates(self) -> int:
        """C."""
        return len(next(iter(self._lists().values())))

    def _lists(self) -> dict[str, list[Any]]:
        named: dict[str, list[Any] | None] = {"row_ids": self.row_ids, "items": self.items}
        named |= {f"columns.{name}": values for name, values in self.columns.items()}
        named |= {f"features.{name}": values for name, values in self.features.items()}
        return {name: values for name, values in named.items() if values is not None}


def parse_score_request(data: object, *, what: str, most: int) -> ScoreRequest:
    """A checked score request from plain data.

    Args:
        data: fields of `ScoreRequest`.
        what: names it in messages.
        most: candidates it may have.

    Raises:
        DataError: a field is unknown, missing or not as it must be, or there are too many candidates.
    """
    try:
        score_request = ScoreRequest.model_validate(data)
    except ValidationError as error:
        raise DataError(f"{what} is not valid:\n{explain(error)}") from None
    if score_request.candidates > most:
        raise DataError(
            f"{what} must have at most {most:,} candidates, got {score_request.candidates:,}; "
            "send it in parts"
        )
    return score_request

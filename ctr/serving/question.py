"""What a caller asks: a request, and candidates to score for it. The same fields in JSON and in Parquet."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.errors import DataError
from features.spec import explain

Number = int | float
Value = Number | list[Number]  # an ID, several IDs, or the numbers of a dense feature
Key = int | str
INT64 = 2**63
Id = Annotated[int, Field(ge=0, lt=INT64)]


class Question(BaseModel):
    """One request and its candidates.

    Values of features are as they stand in the data set: rows of embedding tables, scaled numbers.

    Example:
        >>> Question(request_id=7, items=[1, 2], features={"price": [0.5, 1.5]}).candidates
        2
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    request_id: Id | None = None  # a request of the data set
    user: Key | None = None  # or: a raw key of a user, and the moment
    time: int | None = Field(default=None, ge=-INT64, lt=INT64)  # seconds; events before it are the history
    request_features: dict[str, Value] = {}  # instead of those of the data set
    row_ids: list[Id] | None = None  # candidates with the features of prepared impressions
    items: list[Key] | None = None  # or: raw keys of items, with what is their own
    features: dict[str, list[Value]] = {}  # name → a value per candidate; instead of those of the data set

    @model_validator(mode="after")
    def one_way_each(self) -> Question:
        if (self.request_id is None) == (self.user is None) or (self.user is None) != (self.time is None):
            raise ValueError("give either request_id, or user and time")
        if self.row_ids is not None and self.items is not None:
            raise ValueError("give row_ids or items, not both")
        counts = {name: len(values) for name, values in self._lists().items()}
        if not counts or len(set(counts.values())) > 1 or not max(counts.values()):
            raise ValueError(
                "give at least one candidate, and as many row_ids or items as values of each feature; "
                f"got {counts}"
            )
        return self

    @property
    def candidates(self) -> int:
        """C."""
        return len(next(iter(self._lists().values())))

    def _lists(self) -> dict[str, list[Any]]:
        named: dict[str, list[Any] | None] = {"row_ids": self.row_ids, "items": self.items}
        return {n: v for n, v in {**named, **self.features}.items() if v is not None}


def parse_question(data: object, *, what: str, most: int) -> Question:
    """A checked question from plain data.

    Args:
        data: fields of `Question`.
        what: names it in messages.
        most: candidates it may have.

    Raises:
        DataError: a field is unknown, missing or not as it must be, or there are too many candidates.
    """
    try:
        question = Question.model_validate(data)
    except ValidationError as error:
        raise DataError(f"{what} is not valid:\n{explain(error)}") from None
    if question.candidates > most:
        raise DataError(
            f"{what} must have at most {most:,} candidates, got {question.candidates:,}; send it in parts"
        )
    return question

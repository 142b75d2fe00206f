"""A small JSON file that a run or an ensemble keeps of itself, read with a bound and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from features.errors import DataError, explain

RecordModel = TypeVar("RecordModel", bound=BaseModel)
_MOST = 2**24  # bytes that are read


def read_record(path: Path, kind: type[RecordModel], *, tells: str, remedy: str) -> RecordModel:
    """The record in a file.

    Args:
        path: the file.
        kind: its model.
        tells: what the file must say, for the error.
        remedy: what to do about a damaged one.

    Raises:
        DataError: the file is too large, damaged, or of another version.
    """
    try:
        if path.stat().st_size > _MOST:
            raise DataError(f"{path} must have at most {_MOST} bytes; {remedy}")
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} must say {tells}:\n{explain(error)}\n{remedy}") from None

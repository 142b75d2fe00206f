"""From plain data, as of a YAML file, to options: one error for whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ctr.options.knobs import Knobs
from features.errors import ConfigError, explain
from features.safe_yaml import load_yaml

K = TypeVar("K", bound=Knobs)


def options_from(kind: type[K], data: object, *, what: str) -> K:
    """Options from plain data.

    Args:
        kind: their class.
        data: their plain data.
        what: they are called in the error, such as the path of their file.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{explain(error)}") from None


def read_base(base: str | dict[str, Any], folder: Path) -> dict[str, Any]:
    """The plain data of the run that a plan is written around: given, or in a file beside the plan."""
    return load_yaml(folder / base) if isinstance(base, str) else base

"""Errors that are found together are told together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from features.errors import ConfigError, DataError


class Problems:
    """Collects errors until they are raised as one.

    Example:
        >>> problems = Problems()
        >>> for name in ("a", "b"):
        ...     with problems.collect():
        ...         raise DataError(f"no {name}")
        >>> problems.raise_all()
        Traceback (most recent call last):
            ...
        features.errors.DataError: 2 things must be corrected:
        - no a
        - no b
    """

    def __init__(self) -> None:
        self._found: list[ConfigError | DataError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep an error of the body instead of letting it through."""
        try:
            yield
        except (ConfigError, DataError) as error:
            self._found += getattr(error, "problems", [error])

    def raise_all(self) -> None:
        """Raise what was collected, if anything.

        Raises:
            ConfigError, DataError: the one error, or one with the messages of all.
        """
        distinct = list({str(error): error for error in self._found}.values())
        if len(distinct) > 1:
            text = "\n".join(f"- {error}" for error in distinct)
            several = type(distinct[0])(f"{len(distinct)} things must be corrected:\n{text}")
            several.problems = distinct  # type: ignore[union-attr]
            raise several
        if distinct:
            raise distinct[0]

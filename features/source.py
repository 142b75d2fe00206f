"""Where raw tables lie and how their files are read (parts of `features.spec`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from features.computed import Strict

ColumnType = Literal["text", "int", "float", "bool", "time", "json"]
_SPELLINGS = {"tab": "\t", "space": " ", "none": ""}


def option(default: Any) -> Any:
    """A field that a written spec leaves out where it is the default: older data sets keep their hash."""
    return Field(default=default, exclude_if=lambda value: value == default)


def one_character(text: str, *, what: str) -> str:
    r"""One ASCII character, from itself or from its escape, in any spelling: `\t`, `tab`, `\x01`.

    Raises:
        ValueError: anything else.

    Example:
        >>> one_character(r"\t", what="separator"), one_character("tab", what="separator")
        ('\t', '\t')
    """
    found = _SPELLINGS.get(text.strip().lower() if len(text) > 1 else text, text)
    if found.startswith("\\") and len(found) > 1:
        try:
            found = found.encode("ascii").decode("unicode_escape")
        except UnicodeError:
            found = text
    if len(found) != 1 or not found.isascii() or found in "\r\n\0":
        raise ValueError(
            f"{what} must be one ASCII character, such as ',' or '\\t', got {text!r}; write the files with "
            "another one, or as Parquet"
        )
    return found


class RawTable(Strict):
    """One raw table of a `files` source; `separator` and what follows are for CSV."""

    path: str  # a file, a directory or a glob, relative to the source's path; or s3://, gs://, az://
    format: Literal["parquet", "csv", "delta", "iceberg"] = "parquet"
    root: str | None = option(None)  # what path is relative to, in the place of the source's path
    version: int | None = option(None)  # of a Delta or Iceberg table, instead of the newest
    rename: dict[str, str] = Field(default={})
    optional: dict[str, Any] = Field(default={})  # columns that a file may lack, and what stands for them
    types: dict[str, ColumnType] = option({})  # instead of what follows from who reads the column
    derive: dict[str, str] = option({})  # further columns: Polars SQL expressions over a row's columns
    nulls: list[str] = option([])  # texts that mean missing, beside an empty field
    time_format: str | None = option(None)  # as in strftime; or s, ms, us, ns for numbers since 1970
    time_zone: str | None = option(None)  # of times that name none
    separator: str | None = option(None)
    quote: str | None = option('"')  # none: a quote is a character like any other
    escape: str | None = option(None)  # makes the next character literal, in quotes and outside
    encoding: str = option("utf-8")
    header: bool = option(True)
    columns: list[str] = option([])  # their names, where there is no header
    by_file: dict[str, dict[str, str | int]] = option({})  # further columns: column → file name → its value
    number: str | None = option(None)  # a further column: the number of the row in the table, from 0

    @field_validator("separator", "quote", "escape")
    @classmethod
    def _one_character(cls, text: str | None, info: Any) -> str | None:
        if info.field_name != "separator" and (text or "none").lower() == "none":
            return None
        return None if text is None else one_character(text, what=info.field_name)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("encoding must be one that Python knows, such as utf-8 or latin-1") from None
        return name

    @model_validator(mode="after")
    def _consistent(self) -> RawTable:
        if self.version is not None and self.format not in ("delta", "iceberg"):
            raise ValueError(f"version is of Delta and Iceberg tables, format is {self.format!r}")
        if self.by_file and self.format in ("delta", "iceberg"):
            raise ValueError(f"by_file is of plain files, whose names stay; format is {self.format!r}")
        if self.header == bool(self.columns):
            raise ValueError("columns must be given where header is false, and only there")
        if self.quote is not None and self.quote == (self.separator or ","):
            raise ValueError(f"separator and quote must differ, both are {self.quote!r}")
        if self.escape is not None and self.escape in (self.quote, self.separator or ","):
            raise ValueError(
                f"escape must differ from separator and quote, got {self.escape!r}; quotes that are written "
                "twice are read without it"
            )
        return self


class Packed(Strict):
    """A column of several values: a list, or a text that holds one."""

    column: str
    separator: Annotated[str, Field(min_length=1)] | None = option(None)  # of a text
    format: Literal["json"] | None = option(None)  # of a text that holds a JSON list

    @model_validator(mode="after")
    def _one_way(self) -> Packed:
        if self.separator is not None and self.format is not None:
            raise ValueError("separator and format are two ways to read a text; give one")
        return self


class FromList(Packed):
    """Histories without times: the items before the request, as a list in the impressions."""

    order: Literal["oldest_first", "newest_first"]


class Explode(Packed):
    """Impressions of which one line of the log holds several: every value becomes a row of its own.

    The rows of a line are one request. They have the columns that `item`, `label` and `position` name, which
    the table itself does not have. What was clicked stands behind `label_separator` in each value, as in
    `N1-0 N2-1`, or is the list `clicked`, split as the column is.
    """

    label_separator: Annotated[str, Field(min_length=1)] | None = option(None)
    clicked: str | None = option(None)

    @model_validator(mode="after")
    def _one_label(self) -> Explode:
        if (self.label_separator is None) == (self.clicked is None):
            raise ValueError("the label comes from label_separator or from clicked; give one of them")
        return self


class Source(Strict):
    """Which reader makes the raw tables, and from where."""

    kind: str = "files"
    path: str = "."
    options: dict[str, Any] = Field(default={})
    tables: dict[str, RawTable] = Field(default={})

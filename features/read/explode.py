"""Impressions of which one line of a log holds several: each becomes a row of its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

import polars as pl

from features.errors import ConfigError, DataError
from features.read.convert import MUST, convert
from features.read.lists import TEXT, as_list
from features.read.locate import ROW, locate
from features.read.roles import kind_of, label_role
from features.source import Explode, Packed
from features.spec import Impressions, Spec

PLACE = "__place"  # where an item stood in its line, from 1
_log = logging.getLogger(__name__)


def explode(rows: pl.DataFrame, spec: Spec, counters: dict[str, int], *, what: str) -> pl.DataFrame:
    """One row for every value of the packed column, in its order.

    Args:
        rows: one per line, with `__row` and, where known, `__file` and `__line`.
        spec: whose impressions have `explode`.
        counters: gets the number of lines, and of those that show nothing.
        what: the table, for messages.

    Returns:
        The rows with the columns that item, label and position name, without those they were made of.

    Raises:
        DataError: a line without a list, or a value that is malformed; names lines and values.
    """
    shown = spec.impressions
    rule = shown.explode
    assert rule is not None
    _refuse_unlabelled(rows, rule, spec, what)
    if (missing := rows[rule.column].is_null()).any():
        raise DataError(
            f"{what}: column {rule.column!r} must hold the items shown in every line, but "
            f"{locate(rows, missing)} hold none; fill or drop them"
        )
    lists = packed_lists(rows, rule, what=what)
    clicks = None if rule.clicked is None else _clicks(rows, rule, shown, what)
    lines = rows.drop(c for c in (rule.column, rule.clicked) if c is not None)
    lines = lines.with_columns(
        lists.alias(shown.item),
        lists.list.len().alias("__shown"),
    )
    counters["impressions.lines"] = lines.height
    if empty := int((lines["__shown"] == 0).sum()):
        counters["impressions.lines_without_items"] = empty
        lines = lines.filter(pl.col("__shown") > 0)
    lines = lines.with_columns(pl.int_ranges(1, pl.col("__shown") + 1).alias(PLACE)).drop("__shown")
    every = lines.explode(shown.item, PLACE)
    if clicks is not None:
        every = _with_clicked(every, clicks, shown, counters, what)
    else:
        every = _with_labels(every, shown, rule, what)
    return every if shown.position is None else every.rename({PLACE: shown.position})


def refuse_taken_names(spec: Spec, columns: Collection[str] = ()) -> None:
    """Refuse columns that `explode` makes under a name that there is already.

    Args:
        spec: whose columns of the whole line are known without the table.
        columns: of the table.

    Raises:
        ConfigError: naming them.
    """
    shown = spec.impressions
    if shown.explode is None:
        return
    made = [c for c in (shown.item, shown.label.column, shown.position) if c is not None]
    if len(set(made)) < len(made):
        raise ConfigError(
            f"impressions: explode makes item, label and position, which need names of their own, got {made}"
        )
    line = {shown.user, shown.time, shown.request, *shown.context, *shown.where, *spec.order}
    line |= {shown.explode.column, shown.explode.clicked, shown.label.known_at, *shown.outcomes}
    line |= {domain.from_list.column for domain in spec.domains.values() if domain.from_list is not None}
    what = "columns of the whole line"
    if not (taken := [c for c in made if c in line]):
        taken, what = [c for c in made if c in columns], f"columns of table {shown.table!r} itself"
    if taken:
        raise ConfigError(
            f"impressions: explode makes the columns of item, label and position, but {taken} are {what}; "
            "give what is made other names"
        )


def packed_lists(rows: pl.DataFrame, packed: Packed, *, what: str) -> pl.Series:
    """The lists of a packed column; a missing one is empty.

    Args:
        rows: with the column, and what tells where rows stand.
        packed: which column, and how its texts are split; blanks around values and empty values are dropped.
        what: the table, for messages.

    Raises:
        DataError: neither lists nor texts that are split, or a list with a missing value.
    """
    name = check_packed(rows.schema[packed.column], packed, what=what)
    column = as_list(rows[packed.column])
    if isinstance(column.dtype, TEXT) and packed.separator is not None:
        parts = column.cast(pl.String).str.split(packed.separator)
        column = parts.list.eval(pl.element().str.strip_chars()).list.eval(
            pl.element().filter(pl.element() != "")
        )
    if column.dtype == pl.Null:
        column = column.cast(pl.List(pl.String))
    if (wrong := column.list.eval(pl.element().is_null()).list.any()).any():
        raise DataError(
            f"{name} must hold a value in every place of its lists, but {locate(rows, wrong)} have missing "
            "ones; fill or drop them"
        )
    return pl.select(pl.when(column.is_null()).then(pl.lit([], column.dtype)).otherwise(column)).to_series()


def check_packed(dtype: pl.DataType, packed: Packed, *, what: str) -> str:
    """What the packed column is called in messages, if its type can hold lists.

    Raises:
        DataError: neither lists nor texts that are split.
    """
    name = f"{what}: column {packed.column!r}"
    text = isinstance(dtype, TEXT) and packed.separator is not None
    if not (text or isinstance(dtype, pl.List | pl.Array | pl.Null)):
        raise DataError(
            f"{name} must hold lists, got {dtype}; give the separator of its texts, or format: json"
        )
    return name


def clicked_lists(rule: Explode) -> Packed | None:
    """The column of what was clicked, split as that of what was shown."""
    if rule.clicked is None:
        return None
    return Packed(column=rule.clicked, separator=rule.separator, format=rule.format)


def of_line(shown: Impressions) -> Impressions:
    """With requests and positions of their own: a line is a request, with its items in their order."""
    if shown.explode is None:
        return shown
    return shown.model_copy(update={"request": shown.request or ROW, "position": shown.position or PLACE})


def _refuse_unlabelled(rows: pl.DataFrame, rule: Explode, spec: Spec, what: str) -> None:
    """A line of which nobody knows what was clicked is none without a click."""
    raw = spec.source.tables.get(spec.impressions.table)
    # An empty field of a text file is read as null, and without declared spellings nothing else is.
    only_empty = raw is not None and raw.format == "csv" and not raw.nulls
    if rule.clicked is not None and not only_empty and (unknown := rows[rule.clicked].is_null()).any():
        raise DataError(
            f"{what}: column {rule.clicked!r} must hold a list in every line, an empty one where nothing was "
            f"clicked, but {locate(rows, unknown)} hold null, which may be labels that are missing; write "
            "empty lists (of texts: empty texts) where nothing was clicked, and drop the other lines"
        )


def _with_labels(every: pl.DataFrame, shown: Impressions, rule: Explode, what: str) -> pl.DataFrame:
    """Cut `N1-0` at its last separator."""
    assert rule.label_separator is not None
    texts, kind = every[shown.item].cast(pl.String), kind_of({label_role(shown.label)}, None, what="label")
    pattern = f"(?s)^(.+){re.escape(rule.label_separator)}(.+?)$"
    item, label = (texts.str.extract(pattern, group).str.strip_chars() for group in (1, 2))
    values, wrong = convert(label, kind)
    malformed = item.is_null() | label.is_null() | (item == "") | (label == "")
    for which, must, remedy in (
        (malformed, f"read like ITEM{rule.label_separator}LABEL", "correct them"),
        (wrong, f"end with {MUST.get(kind, 'a label')}", "set at_least or equals for the label"),
    ):
        if which.any():
            raise DataError(
                f"{what}: every value of {rule.column!r} must {must}, but {locate(every, which)} hold "
                f"{texts.filter(which).head(3).to_list()}; {remedy}"
            )
    return every.with_columns(item.alias(shown.item), values.alias(shown.label.column))


def _clicks(rows: pl.DataFrame, rule: Explode, shown: Impressions, what: str) -> pl.DataFrame:
    """What was clicked in each line, once: `__row`, the item, and a label of 1."""
    packed = clicked_lists(rule)
    assert packed is not None
    lists = packed_lists(rows, packed, what=what).list.unique().alias(shown.item)
    clicks = rows.select(ROW).with_columns(lists).filter(pl.col(shown.item).list.len() > 0)
    return clicks.explode(shown.item).with_columns(pl.lit(1, dtype=pl.Int8).alias(shown.label.column))


def _with_clicked(
    every: pl.DataFrame, clicks: pl.DataFrame, shown: Impressions, counters: dict[str, int], what: str
) -> pl.DataFrame:
    """1 for the items that are among those clicked in their line, 0 for the others."""
    if (one := clicks[shown.item].dtype) != (other := every[shown.item].dtype) and clicks.height:
        raise DataError(
            f"{what}: the lists shown and clicked must hold values of one type, got {other} and {one}; "
            "write them alike"
        )
    clicks = clicks.with_columns(pl.col(shown.item).cast(every[shown.item].dtype))
    keys = [ROW, shown.item]
    if (unseen := clicks.join(every, on=keys, how="anti")).height:
        counters["impressions.clicked_but_not_shown"] = unseen.height
        _log.warning("%s: %d clicked items are not among those shown in their line", what, unseen.height)
    every = every.join(clicks, on=keys, how="left", maintain_order="left")
    return every.with_columns(pl.col(shown.label.column).fill_null(0))

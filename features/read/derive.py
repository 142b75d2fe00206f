"""Derived columns: Polars SQL expressions over the other columns of the same row.

Only what stands in the row is read: a sum or a rank over the table would know the future, a function of the
clock would differ from run to run, and nothing may open files.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from features.errors import ConfigError, first_line
from features.read.roles import Role

_ROW_NODES = {
    "Column", "Literal", "BinaryExpr", "Cast", "Ternary", "Function", "Alias", "Display", "Field",
}  # fmt: skip
# Functions of one row; families hold many, of which those beside them are none of one row.
_ROW_FUNCTIONS = {
    "Abs", "Sql", "StringExpr", "TemporalExpr", "Boolean", "Pow", "Round", "RoundSF", "Floor", "Ceil", "Clip",
    "Log", "Log1p", "Exp", "Sign", "Coalesce", "FillNull", "MaxHorizontal", "MinHorizontal", "SumHorizontal",
    "StructExpr", "ListExpr", "ArrayExpr", "Negate", "ConcatExpr", "Trigonometry", "Bitwise", "Hash",
}  # fmt: skip
_NOT_OF_ONE_ROW = re.compile(
    r"\b(is_duplicated|is_unique|is_first_distinct|is_last_distinct|current_\w+|now|random|over|select|from)\b",
    re.I,
)
_NUMBERS = {"Plus", "Minus", "Multiply", "Divide", "TrueDivide", "FloorDivide", "Modulus"}
_NUMBER_FUNCTIONS = {
    "Abs", "Pow", "Round", "RoundSF", "Floor", "Ceil", "Clip", "Log", "Log1p", "Exp", "Sign", "Negate",
    "Trigonometry",
}  # fmt: skip


def parse(expression: str, *, what: str) -> pl.Expr:
    """An SQL expression of one row.

    Args:
        expression: such as `play_ms / duration_ms`.
        what: the derived column, for the error message.

    Raises:
        ConfigError: no SQL, or something that reads more than the row.
    """
    try:
        found = pl.sql_expr(_checked(expression, what))
        tree = json.loads(found.meta.serialize(format="json"))
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ConfigError(
            f"{what}: {expression!r} is no SQL expression: {first_line(error)}; a column whose name is a "
            'word of SQL, such as "user", stands in double quotes'
        ) from None
    if foreign := sorted(set(_foreign(tree))):
        raise ConfigError(
            f"{what}: {expression!r} must be computed from one row alone, but uses {', '.join(foreign)}; use "
            "a counter for sums over earlier rows"
        )
    if not found.meta.root_names():
        raise ConfigError(f"{what}: {expression!r} must read a column of its table; correct it")
    return found


def operands(expression: pl.Expr) -> dict[str, set[Role]]:
    """The columns that an expression reads, with what it takes them for: a number, or a text."""
    tree = json.loads(expression.meta.serialize(format="json"))
    roles: dict[str, set[Role]] = {name: set() for name in expression.meta.root_names()}
    for name, role in _roles(tree):
        roles[name].add(role)
    return roles


def _checked(expression: str, what: str) -> str:
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", expression)
    if found := _NOT_OF_ONE_ROW.search(plain):
        raise ConfigError(
            f"{what}: {expression!r} must be computed from one row alone, but uses {found.group(0)!r}; take "
            "it out"
        )
    return expression


def _foreign(node: Any) -> Iterator[str]:
    """What a tree holds beside the columns, literals and functions of one row."""
    if isinstance(node, str):
        yield from ([node] if node not in _ROW_NODES else [])
        return
    if not isinstance(node, dict):
        return
    for kind, body in node.items():
        if kind not in _ROW_NODES:
            yield kind
        elif kind == "Function":
            function = body["function"]
            name = function if isinstance(function, str) else next(iter(function))
            if name not in _ROW_FUNCTIONS:
                yield name
            yield from (f for child in body["input"] for f in _foreign(child))
        elif isinstance(body, dict) and kind not in ("Literal", "Column"):
            children = (v for k, v in body.items() if k not in ("op", "dtype", "options"))
            yield from (f for child in children for f in _foreign(child))
        elif isinstance(body, list):
            yield from _foreign(body[0])


def _roles(node: Any, wanted: Role | None = None) -> Iterator[tuple[str, Role]]:
    """Columns, and the role that the expression around each gives it."""
    if not isinstance(node, dict):
        return
    for kind, body in node.items():
        if kind == "Column":
            if wanted is not None:
                yield body, wanted
        elif kind == "BinaryExpr":
            role = _operator_role(body, wanted)
            yield from (*_roles(body["left"], role), *_roles(body["right"], role))
        elif kind == "Function":
            role = _function_role(body["function"], body["input"])
            yield from (r for child in body["input"] for r in _roles(child, role))
        elif kind == "Ternary":
            yield from _roles(body["predicate"])
            yield from (*_roles(body["truthy"], wanted), *_roles(body["falsy"], wanted))
        elif kind == "Cast":
            yield from _roles(body["expr"], _cast_role(body["dtype"]))
        elif kind == "Alias":
            yield from _roles(body[0], wanted)


def _operator_role(body: dict[str, Any], wanted: Role | None) -> Role | None:
    if body["op"] in _NUMBERS:
        return "number"
    if body["op"] in ("And", "Or", "LogicalAnd", "LogicalOr"):
        return None
    literals = [v for side in ("left", "right") for v in [_literal(body[side])] if v is not None]
    if any(isinstance(v, str) for v in literals):
        return "category"
    computed = any(_is_number(body[side]) for side in ("left", "right"))
    return "number" if literals or computed else wanted


def _is_number(node: Any) -> bool:
    return isinstance(node, dict) and "BinaryExpr" in node and node["BinaryExpr"]["op"] in _NUMBERS


def _cast_role(dtype: Any) -> Role:
    return "category" if "String" in json.dumps(dtype) else "number"


def _literal(node: Any) -> str | float | None:
    """A text or 0, by what kind of literal, or list of them, the node is; None for anything else."""
    if not (isinstance(node, dict) and "Literal" in node):
        return None
    literal = pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")
    dtype = pl.select(literal).to_series().dtype
    return "" if dtype in (pl.String, pl.List(pl.String)) else 0


def _function_role(function: Any, inputs: list[Any]) -> Role | None:
    family = function if isinstance(function, str) else next(iter(function))
    named = function.get("Sql") if isinstance(function, dict) else None
    if family in _NUMBER_FUNCTIONS or named == "ToFloat" or (isinstance(named, dict) and "IsIn" not in named):
        return "number"
    if family == "StringExpr":
        return "category"
    literals = [v for node in inputs for v in [_literal(node)] if v is not None]
    return "category" if any(isinstance(v, str) for v in literals) else ("number" if literals else None)

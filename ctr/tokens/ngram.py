"""N-grams of behaviour IDs: their tables, and the rows of the events of a batch in these tables.

L events of one request, V_0 rows of the base table, N longest n-gram, K tables per order, E embedding width.

    history of a request     a      b      c          oldest first
    order 2                 0·a    a·b    b·c         a 0 stands before the history
    order 3                0·0·a  0·a·b  a·b·c

Each n-gram of each order is hashed K times, into tables of different sizes: two n-grams that collide in one
table do not in another. Source: arXiv 2601.21204, N-gram Embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from ctr.tokens.config import NgramConfig
from features.dataset import Column, Manifest
from features.errors import ConfigError

# A table's size stays at least this share of V_0 away from every multiple of V_0.
_CLEAR = 8
# IDs are int32; the sum of a hash is int64 without a remainder in between.
_ROWS, _SUM = 2**31, 2**63


@dataclass(frozen=True)
class NgramTable:
    """The sub-table E_{n,k}."""

    name: str  # of the embedding table; has colons, which no table of a data set may have
    order: int  # n
    rows: int  # V_{n,k}


@dataclass(frozen=True)
class NgramField:
    """An ID field of a domain's events that has n-grams."""

    domain: str
    column: Column
    base_rows: int  # V_0
    tables: tuple[NgramTable, ...]  # by order, then k
    dim: int  # width of a sub-embedding


def ngram_fields(manifest: Manifest, config: NgramConfig, *, dim: int) -> list[NgramField]:
    """Every field with n-grams and its sub-tables; the same for loader, tables and model.

    Args:
        manifest: domains and base tables.
        config: `model.ngram`.
        dim: E.

    Raises:
        ConfigError: a field that is no ID of an event, or sizes that do not fit.
    """
    fields = []
    for field in dict.fromkeys(config.fields):
        domain, column = _find(manifest, field)
        base = manifest.tables[str(column.table)].rows
        orders = [(n, k) for n in range(2, config.max_order + 1) for k in range(config.tables_per_order)]
        sizes = table_sizes(config.rows, len(orders), base=base)
        if max(sizes) >= _ROWS or config.max_order * base * max(sizes) >= _SUM:
            raise ConfigError(
                f"model.ngram.rows must stay below 2^31, and times the {base} rows of table {column.table!r} "
                f"below 2^63, got {config.rows}; lower it"
            )
        tables = (
            NgramTable(f"ngram:{field}:{n}.{k}", n, size) for (n, k), size in zip(orders, sizes, strict=True)
        )
        width = config.dim or _paper_width(config, dim)
        fields.append(NgramField(domain, column, base, tuple(tables), width))
    return fields


def field_of(table: str) -> str | None:
    """The `domain.field` whose n-grams an embedding table (or the column of its uses) holds; None for others.

    Example:
        >>> field_of("ngram:view.item:3.1"), field_of("item")
        ('view.item', None)
    """
    return table.split(":")[1] if table.startswith("ngram:") else None


def _paper_width(config: NgramConfig, dim: int) -> int:
    """E / ((N − 1) K)."""
    tables = (config.max_order - 1) * config.tables_per_order
    if dim % tables:
        raise ConfigError(
            f"embedding.dim must be a multiple of (max_order - 1) * tables_per_order = {tables} of "
            f"model.ngram, got {dim}; change one of them, or set model.ngram.dim"
        )
    return dim // tables


def _find(manifest: Manifest, field: str) -> tuple[str, Column]:
    """The domain and the ID column that `domain.field` names."""
    known = {
        f"{domain}.{column.name}": (domain, column)
        for domain, info in manifest.domains.items()
        for column in info.side
        if column.kind == "id"
    }
    if field not in known:
        raise ConfigError(
            f"model.ngram.fields must name fields of events with one ID each, {sorted(known)}, got {field!r}"
        )
    return known[field]


def table_sizes(rows: int, number: int, *, base: int) -> list[int]:
    """Sizes of sub-tables: the first primes from `rows` on that keep clear of the multiples of the base.

    With a multiple of V_0 as size, the hash t_i + V_0 t_{i−1} mod m V_0 sees of t_{i−1} only its remainder
    mod m, and close to a multiple nearly so: the remainder V mod V_0 therefore stays V_0 / 8 away from 0.
    Primes have no factor in common with V_0 or each other, so no size loses a term, and n-grams that
    collide in one table hardly collide in the next.

    Differs from the paper: it asks for sizes that avoid multiples; primes and the distance are our choice.

    Args:
        rows: the smallest size.
        number: how many.
        base: V_0.

    Raises:
        ConfigError: the base table has a single row, so that there is nothing to tell apart.

    Example:
        >>> table_sizes(100, 4, base=50)
        [107, 109, 113, 127]
        >>> table_sizes(40, 3, base=50)  # 47 and 53 are near 50
        [41, 43, 59]
    """
    if base < 2:
        raise ConfigError(f"a field with n-grams must have a table of at least 2 rows, got {base}; drop it")
    fitting = (v for v in count(max(rows, 2)) if _clear(v, base) and base % v and _is_prime(v))
    return list(islice(fitting, number))


def _clear(size: int, base: int) -> bool:
    """Whether a size is far from 1, 2, … times the base."""
    above = size % base if size > base else base  # no multiple lies below a smaller size
    return _CLEAR * min(above, -size % base) >= base


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def ngram_ids(values: np.ndarray, offsets: np.ndarray, field: NgramField) -> dict[str, np.ndarray]:
    """The row of each event in every sub-table: H_{n,k} = (Σ_{j=0}^{n−1} t_{i−j} · V_0^j) mod V_{n,k}.

    Source: arXiv 2601.21204, polynomial rolling hash.

    Args:
        values: (ΣL,) integers in [0, V_0), the events of each request oldest first.
        offsets: (R + 1,) int64.
        field: the sub-tables.

    Returns:
        Table name → (ΣL,) int32 in [0, V_{n,k}). Where an n-gram begins before the history, its terms are 0.

    Example:
        >>> table = NgramTable("t", 2, 7)
        >>> item = Column(name="item", level="event", kind="id", table="item")
        >>> field = NgramField("view", item, 10, (table,), 4)
        >>> ngram_ids(np.array([3, 5, 4]), np.array([0, 2, 3]), field)["t"].tolist()  # 3, 35, 4 mod 7
        [3, 0, 4]
    """
    back = _steps_back(values.astype(np.int64), offsets, max(t.order for t in field.tables))
    return {table.name: _hash(back[: table.order], field.base_rows, table.rows) for table in field.tables}


def _steps_back(values: np.ndarray, offsets: np.ndarray, number: int) -> list[np.ndarray]:
    """t_i, t_{i−1}, …, t_{i−number+1} of every event, 0 before its history."""
    oldest = offsets[:-1][np.diff(offsets) > 0]
    back = [values]
    for _ in range(number - 1):
        earlier = np.zeros_like(values)
        earlier[1:] = back[-1][:-1]
        earlier[oldest] = 0
        back.append(earlier)
    return back


def _hash(terms: Sequence[np.ndarray], base: int, rows: int) -> np.ndarray:
    """(Σ_j terms[j] · base^j) mod rows; each power is reduced first, so that no sum leaves int64."""
    total = terms[0].copy()
    for j, term in enumerate(terms[1:], start=1):
        total += term * pow(base, j, rows)
    total %= rows
    return total.astype(np.int32)

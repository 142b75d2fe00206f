"""Keys of rows: what a counter or a match feature groups by, as dense integer codes.

Letters: N rows of a table, P pairs (row, distinct key of the row).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError
from features.read.ids import common_keys, key_values
from features.read.lists import split

_ROOM = 2**62  # products of codes stay below


@dataclass(frozen=True)
class Keys:
    """The pairs of a table: a row of several values has several, a row with a missing value has none.

    Attributes:
        row: int64 (P,) index of the row; rises.
        code: int64 (P,) equal for equal keys, at least 0, of the order of P.
    """

    row: np.ndarray
    code: np.ndarray

    def per_row(self, ufunc: np.ufunc, pairs: np.ndarray, rows: int) -> np.ndarray:
        """Reduce a number per pair (P,) to one per row (N,); rows without a pair get 0."""
        result = np.zeros(rows, dtype=pairs.dtype)
        if len(self.row):
            starts = np.flatnonzero(np.concatenate([[True], self.row[1:] != self.row[:-1]]))
            result[self.row[starts]] = ufunc.reduceat(pairs, starts)
        return result

    def present(self, rows: int) -> np.ndarray:
        """Which rows (N,) have a pair."""
        present = np.zeros(rows, dtype=bool)
        present[self.row] = True
        return present


def encode_keys(
    *tables: pl.DataFrame,
    by: Sequence[Sequence[str]],
    separator: str | None = None,
    what: str,
    ordered: bool = False,
) -> list[Keys]:
    """Give the keys of one or several tables codes that agree between the tables.

    Args:
        tables: the tables.
        by: for each table the columns of its key, in the same order; at most one may hold lists, or
            strings of several values joined by `separator`.
        separator: splits every string column; empty parts do not count.
        what: who asks, for the error message: "counter 'user'", say.
        ordered: codes rise with the values, so that which of two is the smaller does not depend on further
            rows; else they count from where a value first stands, which costs no sort. For what is added up
            as floating-point numbers, whose sum depends on the order.

    Raises:
        ConfigError: a column is missing, or two of a table hold several values.
        DataError: values that are no IDs, such as fractions.

    Example:
        >>> table = pl.DataFrame({"user": [1, 1], "tags": [["a", "b", "a"], ["b"]]})
        >>> (keys,) = encode_keys(table, by=[["user", "tags"]], what="example")
        >>> keys.row.tolist(), keys.code.tolist()
        ([0, 0, 1], [0, 1, 1])
    """
    columns = [_columns(table, names, separator, what) for table, names in zip(tables, by, strict=True)]
    parents = [_parents(each, what) for each in columns]
    codes, width = [np.zeros(len(parent), dtype=np.int64) for parent in parents], 1
    for same in zip(*columns, strict=True):
        values, size = _encode(same, what, ordered=ordered)
        if width * size >= _ROOM:
            codes, width = _densify(codes)
        codes = [_append(*each, size) for each in zip(codes, same, values, parents, strict=True)]
        width *= size
    if width > 4 * sum(map(len, codes)):
        codes, width = _densify(codes)
    return [_distinct(parent, code, width) for parent, code in zip(parents, codes, strict=True)]


def key_pairs(
    table: pl.DataFrame, by: Sequence[str], *, separator: str | None = None, what: str
) -> pl.DataFrame:
    """The pairs of `encode_keys` with the key itself: `row`, and `key0`, `key1`, … as IDs.

    Example:
        >>> table = pl.DataFrame({"user": [1, 1], "tags": [["a", "b", "a"], ["b"]]})
        >>> key_pairs(table, ["user", "tags"], what="example").sort("row", "key1").rows()
        [(0, 1, 'a'), (0, 1, 'b'), (1, 1, 'b')]
    """
    columns = _columns(table, by, separator, what)
    parents = _parents(columns, what)
    flat = [_flat(c) if isinstance(c.dtype, pl.List) else c.gather(parents) for c in columns]
    keys = [_one_kind(v, f"{what}, column {v.name!r}").alias(f"key{i}") for i, v in enumerate(flat)]
    pairs = pl.DataFrame([pl.Series("row", parents), *keys]).drop_nulls()
    return pairs.unique() if any(isinstance(c.dtype, pl.List) for c in columns) else pairs


def value_hashes(table: pl.DataFrame, column: str, *, separator: str | None = None, what: str) -> np.ndarray:
    """Hashes (C,) of the values of a column, by their code of `encode_keys` of this column alone, `ordered`.

    Example:
        >>> one, two = pl.DataFrame({"user": [9, 5, 9]}), pl.DataFrame({"user": [9]})
        >>> bool(value_hashes(one, "user", what="a")[1] == value_hashes(two, "user", what="b")[0])
        True
    """
    encoded, _ = _dictionary(_columns(table, [column], separator, what), what)
    values = pl.Series(encoded.dictionary.take(pc.sort_indices(encoded.dictionary)))
    return hashes(key_values(values, what=what))


def distinct(values: np.ndarray) -> np.ndarray:
    """The distinct values in rising order; `np.unique` hashes integers, which takes 20 times as long here."""
    values = np.sort(values)
    return values[np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]]


def stable_order(key: np.ndarray) -> np.ndarray:
    """The order (P,) in which integers rise, equal ones as they come: not a matter of what lies around them.

    Where both fit into 64 bits, key and position are sorted as one number: NumPy's plain sort of distinct
    numbers takes a tenth to a third of the time of its stable one.

    Example:
        >>> stable_order(np.array([7, 2, 7, 2])).tolist()
        [1, 3, 0, 2]
    """
    bits = len(key).bit_length()
    if not len(key) or key.min() < 0 or int(key.max()) >> (63 - bits):
        return np.argsort(key, kind="stable")
    both = key.astype(np.int64) << bits | np.arange(len(key))
    both.sort()
    both &= (1 << bits) - 1
    return both


def mixed(bits: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit integers evenly (the finalizer of SplitMix64)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def hashes(values: pl.Series) -> np.ndarray:
    """uint64 hashes, the same in every version and on every machine.

    Args:
        values: int64 or string, none missing.
    """
    if values.dtype == pl.Int64:
        return mixed(values.to_numpy().view(np.uint64))
    unique = values.unique()
    digests = b"".join(hashlib.blake2b(v.encode(), digest_size=8).digest() for v in unique)
    book = pl.DataFrame({"key": unique, "hash": np.frombuffer(digests, dtype="<u8")})
    return (
        pl.DataFrame({"key": values})
        .join(book, on="key", how="left", maintain_order="left")["hash"]
        .to_numpy()
    )


def nullable(name: str, values: np.ndarray, valid: np.ndarray) -> pl.Series:
    """A column of `values` (N,), null where `valid` (N,) is false."""
    both = pl.DataFrame({"values": values, "valid": valid})
    return both.select(pl.when("valid").then("values").alias(name)).to_series()


def _one_kind(values: pl.Series, what: str) -> pl.Series:
    """IDs of a type that does not depend on which values of the column there are."""
    wide = values.dtype in (pl.UInt64, pl.Int128, pl.UInt128) or values.dtype.is_decimal()
    keys = key_values(values, what=what)
    return keys.cast(pl.String) if wide else keys


def _columns(table: pl.DataFrame, by: Sequence[str], separator: str | None, what: str) -> list[pl.Series]:
    """The columns of the key, strings of several values split."""
    if missing := [name for name in by if name not in table.columns]:
        known = sorted(table.columns)
        raise ConfigError(f"{what} reads columns that are not there: {missing}; the columns are {known}")
    return [split(table[name], separator) for name in by]


def _parents(columns: list[pl.Series], what: str) -> np.ndarray:
    """The row (P,) of each value of the list column; each row once without one."""
    several = [column for column in columns if isinstance(column.dtype, pl.List)]
    if len(several) > 1:
        names = [column.name for column in several]
        raise ConfigError(f"{what} may read at most one column of several values, got {names}; drop one")
    rows = np.arange(len(columns[0]), dtype=np.int64)
    return np.repeat(rows, several[0].list.len().fill_null(0).to_numpy()) if several else rows


def _encode(columns: Sequence[pl.Series], what: str, *, ordered: bool) -> tuple[list[np.ndarray], int]:
    """Codes of the values of one column in every table, -1 for missing, and how many there are."""
    encoded, lengths = _dictionary(columns, what)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if ordered:
        rank = np.argsort(pc.sort_indices(encoded.dictionary).to_numpy())
        codes = np.append(rank, -1)[codes]  # the last one for what is missing
    return np.split(codes, np.cumsum(lengths)[:-1]), max(len(encoded.dictionary), 1)


def _dictionary(columns: Sequence[pl.Series], what: str) -> tuple[pa.DictionaryArray, list[int]]:
    """The values of one column in every table, one table after the other, and how many each has."""
    flat = [_flat(column) for column in columns]
    if len({values.dtype for values in flat}) > 1 or not flat[0].dtype.is_integer():
        # Integers of one width need no conversion: they are their own keys.
        names = [f"{what}, column {column.name!r}" for column in columns]
        flat = common_keys([key_values(v, what=name) for v, name in zip(flat, names, strict=True)])
    # Arrow does not encode views.
    plain = {pa.string_view(): pa.large_string()}
    arrays = [a.cast(plain.get(a.type, a.type)) for a in (values.to_arrow() for values in flat)]
    return pa.concat_arrays(arrays).dictionary_encode(), [len(array) for array in arrays]


def _flat(column: pl.Series) -> pl.Series:
    """The values of a column, those of lists one after the other."""
    if not isinstance(column.dtype, pl.List):
        return column
    return column.explode(empty_as_null=False, keep_nulls=False)


def _append(
    code: np.ndarray, column: pl.Series, values: np.ndarray, parents: np.ndarray, size: int
) -> np.ndarray:
    """The codes (P,) with one column more; a missing value makes the whole key missing (-1)."""
    values = values if isinstance(column.dtype, pl.List) else values[parents]
    return np.where((code < 0) | (values < 0), -1, code * size + values)


def _densify(codes: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """The same keys with codes from 0 without gaps, and how many there are."""
    unique, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    shift = int(len(unique) > 0 and unique[0] < 0)  # -1 stays -1
    return np.split(inverse - shift, np.cumsum([len(code) for code in codes])[:-1]), max(len(unique), 1)


def _distinct(row: np.ndarray, code: np.ndarray, width: int) -> Keys:
    """The pairs that have a key, each once."""
    row, code = row[code >= 0], code[code >= 0]
    if len(row) and (row[1:] == row[:-1]).any():
        pairs = distinct(row * width + code)
        row, code = pairs // width, pairs % width
    return Keys(row, code)

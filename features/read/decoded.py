"""What columns take once they are decoded, told by footers alone.

A run-length or dictionary encoding makes a file of a few megabytes out of gigabytes of values, and the sizes
that its footer states are those of the encoded pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16}
_OFFSET = 8  # bytes of where a list begins


def decoded_bytes(path: Path, columns: Iterable[str]) -> int:
    """Bytes that columns of a Parquet file take in memory: their values × width, and the texts themselves.

    Args:
        path: the file; its footer alone is read.
        columns: names of columns, or of fields of structs, as `struct.field`.
    """
    names = tuple(columns)
    prefixes = tuple(f"{name}." for name in names)
    with pq.ParquetFile(path) as file:
        meta, schema = file.metadata, file.schema
        leaves = [i for i in range(len(schema)) if _is_of(schema.column(i).path, names, prefixes)]
        widths = [_width(schema.column(i)) for i in leaves]
        total = 0
        for group in map(meta.row_group, range(meta.num_row_groups)):
            for leaf, width in zip(leaves, widths, strict=True):
                chunk = group.column(leaf)
                total += chunk.num_values * width
                if schema.column(leaf).max_repetition_level:
                    total += group.num_rows * _OFFSET
                if chunk.physical_type == "BYTE_ARRAY":
                    total += chunk.total_uncompressed_size
    return total


def _is_of(path: str, names: tuple[str, ...], prefixes: tuple[str, ...]) -> bool:
    return path in names or path.startswith(prefixes)


def _width(column: Any) -> int:
    """Bytes of a value in memory."""
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return int(column.length)
    bits = json.loads(column.logical_type.to_json()).get("bitWidth")
    return int(bits) // 8 if bits else _WIDTHS[column.physical_type]

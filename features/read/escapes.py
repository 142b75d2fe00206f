r"""Escape characters of CSV files: a character behind one is taken as it is, wherever it stands.

Programs disagree about an escape before any other character than a quote, a separator, a line end or itself:
`\n` is a line end to one, `n` to another and `\n` to a third. Such a file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

_ENDS = (10, 13)  # LF, CR
NULL = "N"  # escaped and alone in a field it stands for missing, in MySQL and Hive


def behind_escapes(codes: np.ndarray, escape: str) -> np.ndarray:
    r"""Positions of the bytes that an escape makes literal: of `\\\"` the second and the fourth.

    Args:
        codes: uint8 (bytes,), from the begin of a record on.
        escape: one ASCII character.

    Returns:
        int64, ascending; len(codes) for an escape at the very end.

    Example:
        >>> behind_escapes(np.frombuffer(rb"a\\\,b", dtype=np.uint8), "\\").tolist()
        [2, 4]
    """
    at = np.flatnonzero(codes == ord(escape))
    index = np.arange(len(at))
    begins = np.diff(at, prepend=-2) > 1  # of a run of escapes
    place = index - np.maximum.accumulate(np.where(begins, index, 0))
    return at[place % 2 == 0] + 1


def unsure(codes: np.ndarray, literal: np.ndarray, allowed: Collection[str]) -> np.ndarray:
    """Which of the literal bytes have no sure meaning: neither a line end nor one of the allowed."""
    known = np.array([*_ENDS, *(ord(c) for c in allowed)], dtype=np.uint8)
    found: np.ndarray = literal[~np.isin(codes[literal], known)]
    return found


def alone(codes: np.ndarray, literal: np.ndarray, separator: str) -> np.ndarray:
    r"""Which of the literal bytes are all that a field holds, as in `,\N,`: bool."""
    stops = np.array([ord(separator), *_ENDS], dtype=np.uint8)
    before, after = literal - 2, literal + 1
    begins = (before < 0) | np.isin(codes[np.maximum(before, 0)], stops)
    ends = (after >= len(codes)) | np.isin(codes[np.minimum(after, len(codes) - 1)], stops)
    found: np.ndarray = begins & ends
    return found


def without_nulls(data: bytes, separator: str, escape: str) -> bytes:
    r"""Records with `\N` alone in a field replaced by an empty field, which is missing.

    Example:
        >>> without_nulls(b"\\N,a,\\N\n", ",", "\\")
        b',a,\n'
    """
    stop = re.escape(separator.encode())
    null = re.escape(f"{escape}{NULL}".encode())
    return re.sub(
        rb"(?:(?<=^)|(?<=[\r\n])|(?<=" + stop + rb"))" + null + rb"(?=[\r\n]|" + stop + rb"|$)", b"", data
    )

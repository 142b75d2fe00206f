"""Which rows are resampled together: users, as clusters of a bounded number.

One function names the cluster of a user for evaluations and for comparisons, so that both draw alike.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from ctr.metrics.records import Ints

CLUSTERS = 65_536  # users beyond this number share clusters
Codes: TypeAlias = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd


def mix64(codes: Codes) -> Codes:
    """Spread 64-bit integers evenly: every bit of the input turns each bit of the output in half the cases.

    `features.past.keys.mixed` has these four lines too, for the rows of hashed values: there they are part of
    what a data set on disk means, here of which users are drawn together and which IDs are dropped. Neither
    may change with the other.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators (OOPSLA 2014), SplitMix64.

    Example:
        >>> [hex(code) for code in mix64(np.array([0, 1], dtype=np.uint64)).tolist()]
        ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1']
    """
    bits = codes + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def codes_of(ids: NDArray[np.integer] | pa.ChunkedArray | pa.Array) -> Codes:
    """IDs as 64-bit codes: integers as they are, text by a hash that is the same in all files."""
    if isinstance(ids, np.ndarray):
        return ids.astype(np.int64, copy=False).view(np.uint64)
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.int64()).to_numpy().view(np.uint64)
    return pl.Series(pl.from_arrow(ids.cast(pa.large_string()))).hash(seed=0).to_numpy()


def clusters_of(codes: Codes) -> Ints:
    """The cluster of each user, 0 to 65,535.

    Users that are numbered below 65,536 are clusters of their own; all others are spread by `mix64`, whatever
    their IDs have in common.

    Example:
        >>> clusters_of(np.array([7, 65_535], dtype=np.uint64)).tolist()
        [7, 65535]
    """
    small = codes < CLUSTERS
    return np.where(small, codes, mix64(codes) % np.uint64(CLUSTERS)).astype(np.int64)


def pair_codes(first: Codes, second: Codes) -> Codes:
    """One code for each pair, such as a request and its user: different for all pairs of small numbers."""
    return first * _GOLDEN + second

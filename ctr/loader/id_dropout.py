"""ID dropout: in training, some known IDs of a request become unknown, as new ones will be later.

Every use of an ID in a request draws alike, candidate and events: an item that is unknown as a candidate and
known in the history beside it would tell the model which one it is.
Source: dropout of the preference inputs (DropoutNet, NeurIPS 2017), here with the row of unknown values.

V IDs of one column.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctr.metrics.clusters import mix64
from features.dataset import Manifest
from features.errors import ConfigError

_TO_UNIT = 2.0**-53


@dataclass(frozen=True)
class IdDropout:
    """Draws that are a function of (seed, epoch, request, table, ID) alone.

    So batches, ranks, micro-batches and a resumed run agree, and another epoch draws anew.

    Attributes:
        rates: table → probability in [0, 1) that an ID becomes unknown.
        oov_rows: table → number of its rows of unknown values, which follow row 0 (missing).
        seed: of the run.
    """

    rates: dict[str, float]
    oov_rows: dict[str, int]
    seed: int

    def __call__(self, table: str, ids: np.ndarray, requests: np.ndarray, *, epoch: int) -> np.ndarray:
        """The IDs (V,) of a column with some of them unknown; missing and unknown ones stay as they are.

        An unknown value is hashed into one of several rows, and so is an ID here.

        Args:
            table: that the column is looked up in.
            ids: (V,) row indices.
            requests: int64 (V,) request_id of each.
            epoch: counted from 0.
        """
        rate = self.rates.get(table, 0.0)
        if not rate:
            return ids
        rows, key = ids.astype(np.uint64), draw_key(self.seed, epoch, table)
        dropped = draws(mix64(requests.astype(np.uint64) ^ key) ^ rows) < rate
        dropped &= ids > self.oov_rows[table]
        unknown = 1 + mix64(rows) % np.uint64(self.oov_rows[table])
        return np.where(dropped, unknown.astype(ids.dtype), ids)


def make_id_dropout(rates: Mapping[str, float], manifest: Manifest, *, seed: int) -> IdDropout | None:
    """The dropout of `loader.id_dropout`, table → probability; None without any.

    Raises:
        ConfigError: a name that is no ID table, or a table without rows for unknown values.
    """
    known = {name: t.oov_rows for name, t in manifest.tables.items() if t.encode == "vocabulary"}
    for name in rates:
        if name not in known:
            raise ConfigError(
                f"loader.id_dropout must name ID tables with rows for unknown values, {sorted(known)}, "
                f"got {name!r}{_reason(name, manifest)}"
            )
    chosen = {name: rate for name, rate in rates.items() if rate > 0}
    return IdDropout(chosen, {name: known[name] for name in chosen}, seed) if chosen else None


def draw_key(seed: int, epoch: int, name: str) -> np.uint64:
    """The start of the draws of a name in an epoch."""
    entropy = [seed % 2**64, epoch, zlib.crc32(name.encode())]
    return np.uint64(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def draws(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64 (V,), each a function of a uint64 alone."""
    return (mix64(values) >> np.uint64(11)) * _TO_UNIT


def _reason(name: str, manifest: Manifest) -> str:
    """What is known of a name that is refused."""
    if name in manifest.tables:
        return f"; its values are encoded by {manifest.tables[name].encode}, so that none is ever unknown"
    columns = [c for c in manifest.features if c.name == name]
    return f"; the feature of that name is in table {columns[0].table!r}" if columns else ""

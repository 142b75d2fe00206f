"""Negative down-sampling in training: of the rows whose first label is 0 a share is kept, anew each epoch.

B rows, R requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ctr.loader.columns import Columns, WindowData
from ctr.loader.id_dropout import draw_key, draws
from ctr.loader.targets import OFFSET


@dataclass(frozen=True)
class NegativeSampling:
    """Draws that are a function of (seed, epoch, row) alone.

    So batches, ranks, micro-batches and a resumed run agree, and another epoch draws anew. A model learns the
    odds of the kept rows, which are 1 / rate times those of all rows; its logits are those of all rows, since
    its loss adds −ln(rate) to them.

    Attributes:
        rate: share of the negatives that is kept, in (0, 1].
        seed: of the run.

    Source: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook (2014), section 6.3.
    """

    rate: float
    seed: int

    def kept(self, row_id: np.ndarray, label: np.ndarray, *, epoch: int) -> np.ndarray:
        """Which rows (B,) an epoch has: all positives, and a share of the negatives."""
        drawn = draws(row_id.astype(np.uint64) ^ draw_key(self.seed, epoch, "negatives"))
        return (label > 0) | (drawn < self.rate)

    def thin(self, data: WindowData, *, epoch: int) -> WindowData:
        """A window with the kept rows alone; requests may have none left."""
        shown = data.impressions
        kept = self.kept(shown.plain["row_id"], shown.plain["label"], epoch=epoch)
        counts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        rows = shown.take(np.flatnonzero(kept))
        offset = rows.plain.get(OFFSET, np.float32(0)) - np.float32(math.log(self.rate))
        plain = {**rows.plain, OFFSET: np.broadcast_to(offset, len(rows.plain["row_id"]))}
        return WindowData(data.requests, Columns(plain, rows.ids, rows.dense), counts[data.row_offsets])

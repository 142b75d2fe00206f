"""Accidental clicks: views that nobody wanted, which the click model does not read.

They are drawn after everything else, with random numbers of their own: all other rows are those of the log
without them. What a model loses by them, and wins back by a filter, is measured on the same labels.
"""

from __future__ import annotations

import numpy as np

from features.errors import ConfigError
from features.synthetic.catalogue import Catalogue, draw_categories, draw_items
from features.synthetic.events import CLICKED, VIEW, Events

MOST = 0.9  # share of accidents among clicked views
_WITHIN = 600  # seconds after the view that they slip into
_DWELL = 0.3, 3.0  # seconds until the user has left again


def accidental_clicks(rng: np.random.Generator, catalogue: Catalogue, events: Events, share: float) -> Events:
    """Draw the accidental clicks of a block.

    Each follows one of the block's clicked views, chosen at random, by 1 to 600 s, and is on an item of any
    category by popularity, with a dwell of 0.3 to 3 s.

    Args:
        rng: random numbers for this and nothing else.
        catalogue: of the simulation.
        events: of the block.
        share: of the clicked views that are accidents afterwards, in [0, 0.9].
    """
    views = np.flatnonzero((events.domain == VIEW) & (events.outcome == CLICKED))
    count = round(len(views) * share / (1 - share))
    source = rng.choice(views, size=count) if count else views[:0]
    time = events.time[source] + rng.integers(1, _WITHIN + 1, size=count)
    category, any_brand = draw_categories(rng, catalogue, count), np.full(count, -1)
    return Events(
        user=events.user[source],
        time=time,
        item=draw_items(rng, catalogue, category=category, local_brand=any_brand, time=time),
        domain=np.full(count, VIEW, dtype=np.int8),
        outcome=np.full(count, CLICKED, dtype=np.int8),
        dwell=rng.uniform(*_DWELL, size=count).astype(np.float32),
        query=np.zeros(count, dtype=np.int64),
    )


def check_share(share: float) -> float:
    """Refuse what is no share of accidents."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= MOST:
        raise ConfigError(
            f"accidental must be a share in [0, {MOST}], got {share!r}; choose a value in this range"
        )
    return float(share)

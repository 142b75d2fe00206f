"""The click model: p = sigmoid(sum of the terms), every term a function of logged columns.

`docs/simulator.md` writes the formulas down; `ClickModel` holds their numbers, and nothing else does.

Dimension letters: U users of a block, n impressions, K categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.synthetic.catalogue import Catalogue
from features.synthetic.events import History, Trace
from features.synthetic.people import People
from features.synthetic.settings import DAY, HOUR

PAGES = ("home", "search", "detail")
STATIC_TERMS = ("bias", "item", "affinity", "price", "fresh", "position", "context")
HISTORY_TERMS = ("short", "long", "search", "brand", "repeat", "fatigue")


@dataclass(frozen=True, kw_only=True)
class ClickModel:
    """The coefficients; a tuple has one value per level, in the order of the level names."""

    bias: float = -2.7
    position: float = -0.4  # times ln(position)
    price: tuple[float, ...] = (0.5, 0.4, 0.3, 0.2, 0.1, 0.0)  # by age band
    price_missing_age: float = 0.25
    price_centre: float = 30.0
    price_scale: float = 0.8
    fresh: float = 0.6
    fresh_days: float = 3.0
    hour: float = 0.2
    hour_peak: float = 20.0
    device: tuple[float, ...] = (0.0, 0.15, -0.15, -0.4)
    page: tuple[float, ...] = (0.0, 0.3, -0.2)
    short: tuple[float, ...] = (-0.6, 0.3, 0.8, 1.2, 1.6)  # by segment
    short_days: float = 1.0
    recent_days: float = 3.0
    long: tuple[float, ...] = (0.5, 1.0, 1.5, 2.5, 3.5, 4.5)  # by age band
    long_missing_age: float = 2.0
    long_prior: float = 5.0
    search: float = 0.8
    search_days: float = 1.0
    brand: float = 0.6
    brand_days: float = 14.0
    repeat: float = 0.6
    repeat_days: float = 7.0
    fatigue: float = -0.8
    fatigue_days: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Impressions of one round, parallel arrays (n,): who saw what, when, where."""

    user: np.ndarray
    time: np.ndarray
    item: np.ndarray
    position: np.ndarray  # from 1
    device: np.ndarray
    page: np.ndarray


def static_terms(
    model: ClickModel, catalogue: Catalogue, people: People, shown: Shown
) -> dict[str, np.ndarray]:
    """The terms that need no history.

    Returns:
        One float64 array (n,) per name in `STATIC_TERMS`; their sum is the score of a user without history.
    """
    item, age_band = shown.item, people.age_band[shown.user]
    z = np.log(catalogue.price[item] / model.price_centre) / model.price_scale
    hour = shown.time % DAY / HOUR
    age = (shown.time - catalogue.created[item]) / DAY
    return {
        "bias": np.full(len(item), model.bias),
        "item": catalogue.quality[item] + catalogue.tag_mean[item],
        "affinity": catalogue.affinity[people.segment[shown.user], catalogue.category[item]],
        "price": -_by_level(model.price, model.price_missing_age, age_band)
        * np.nan_to_num(z).clip(-2.0, 2.0),
        "fresh": model.fresh * np.exp(-age / model.fresh_days),
        "position": model.position * np.log(shown.position),
        "context": np.array(model.device)[shown.device]
        + np.array(model.page)[shown.page]
        + model.hour * np.cos(2 * np.pi * (hour - model.hour_peak) / 24),
    }


def history_terms(
    model: ClickModel, catalogue: Catalogue, people: People, history: History, shown: Shown, now: np.ndarray
) -> dict[str, np.ndarray]:
    """The terms that read the behaviour strictly before the request.

    Args:
        model: coefficients.
        catalogue: of the simulation.
        people: the block.
        history: events of the block, in any order; those not before `now` are ignored.
        shown: the impressions, all of the users' current requests.
        now: (U,) time of the current request of each user, seconds; `NO_REQUEST` where there is none.

    Returns:
        One float64 array (n,) per name in `HISTORY_TERMS`, all 0 for a user without events.
    """
    at = shown.user, catalogue.category[shown.item]
    recent = int(model.recent_days * DAY)

    def by_category(events: Trace, newest: int, oldest: int, tau: float) -> np.ndarray:
        """(U, K) sums of exp(-age / tau days) over the events of each category."""
        return _window_sum(
            events, now, catalogue.category[events.item], catalogue.categories, newest, oldest, tau
        )

    def met(events: Trace, of_item: np.ndarray, days: float) -> np.ndarray:
        """(n,) 1 where an event of the last days shares what `of_item` (items,) says of an item."""
        return _was_met(
            events, now, of_item[events.item], int(days * DAY), shown=shown, shown_key=of_item[shown.item]
        )

    recent_clicks = by_category(history.clicked, 1, recent, model.short_days)[at]
    old_clicks = by_category(history.clicked, recent + 1, _EVER, np.inf)
    share = old_clicks[at] / (old_clicks.sum(axis=1)[shown.user] + model.long_prior)
    searches = by_category(history.searches, 1, recent, model.search_days)[at]
    skips = by_category(history.skipped, 1, recent, model.fatigue_days)[at]
    return {
        "short": np.array(model.short)[people.segment[shown.user]] * np.log1p(recent_clicks),
        "long": _by_level(model.long, model.long_missing_age, people.age_band[shown.user]) * share,
        "search": model.search * np.minimum(searches, 1.0),
        "brand": model.brand * met(history.carts, catalogue.brand, model.brand_days),
        "repeat": model.repeat * met(history.clicked, catalogue.index, model.repeat_days),
        "fatigue": model.fatigue * np.log1p(skips),
    }


def probability(score: np.ndarray) -> np.ndarray:
    """sigmoid(score), float64; the scores are far too small to overflow."""
    return 1.0 / (1.0 + np.exp(-score))


_EVER = 10_000 * DAY


def _by_level(values: tuple[float, ...], missing: float, level: np.ndarray) -> np.ndarray:
    """The value of each level; `missing` for level -1."""
    return np.array([*values, missing])[level]


def _window_sum(
    events: Trace, now: np.ndarray, key: np.ndarray, width: int, newest: int, oldest: int, tau: float
) -> np.ndarray:
    """(U, width) sums of exp(-age / tau days) by user and key over ages in [newest, oldest] seconds."""
    age = now[events.user] - events.time
    kept = np.flatnonzero((age >= newest) & (age <= oldest) & (key >= 0))
    weight = np.exp(-age[kept] / (tau * DAY))
    cell = events.user[kept] * width + key[kept]
    return np.bincount(cell, weights=weight, minlength=len(now) * width).reshape(len(now), width)


def _was_met(
    events: Trace, now: np.ndarray, key: np.ndarray, oldest: int, *, shown: Shown, shown_key: np.ndarray
) -> np.ndarray:
    """(n,) 1 where the user has an event with the impression's key at an age in [1, oldest] seconds, else 0.

    A negative key stands for "none" and matches nothing.
    """
    age = now[events.user] - events.time
    kept = np.flatnonzero((age >= 1) & (age <= oldest) & (key >= 0))
    met = np.sort(events.user[kept] << 32 | key[kept])
    if len(met) == 0:
        return np.zeros(len(shown_key))
    wanted = shown.user << 32 | np.maximum(shown_key, 0)
    found = met[np.minimum(np.searchsorted(met, wanted), len(met) - 1)] == wanted
    return (found & (shown_key >= 0)).astype(np.float64)

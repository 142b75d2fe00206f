"""Purchases: what becomes of a click hours or days later, with its probability known for every impression.

They are drawn after everything else, with random numbers of their own: all other rows are those of the log
without them. What is bought after the log ends is in the truth alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.synthetic.catalogue import Catalogue
from features.synthetic.clicks import ClickModel, Shown, probability
from features.synthetic.people import People
from features.synthetic.settings import HOUR


@dataclass(frozen=True, kw_only=True)
class PurchaseModel:
    """The coefficients; a tuple has one value per segment."""

    bias: float = -1.4
    quality: float = 1.2  # times the item's quality
    affinity: float = 0.8  # times the segment's affinity to the category
    price: float = -0.5  # times z, the logarithm of the price in units of the click model's
    segment: tuple[float, ...] = (-0.6, 0.5, -0.3, 0.4, 0.0)
    delay_hours: float = 36.0  # mean time to a purchase at price z = 0 …
    delay_price: float = 0.5  # … times exp(delay_price · z): what is dear is thought over


@dataclass(frozen=True, kw_only=True)
class Purchases:
    """What becomes of the impressions of one round, parallel arrays (n,).

    Attributes:
        p: probability that an impression is bought once it is clicked.
        bought: bool, after a click alone.
        time: seconds, of those that are bought.
        log_end: the second at which the log ends, which knows of purchases before it alone.
    """

    p: np.ndarray
    bought: np.ndarray
    time: np.ndarray
    log_end: int


def draw_purchases(
    rng: np.random.Generator,
    model: PurchaseModel,
    clicks: ClickModel,
    catalogue: Catalogue,
    people: People,
    shown: Shown,
    clicked: np.ndarray,
    *,
    log_end: int,
) -> Purchases:
    """Draw the purchases of a round.

    p = sigmoid(bias + quality(i) + affinity(segment, c) + price · z + segment), and the time from a click to
    its purchase is exponential, of mean delay_hours · exp(delay_price · z) hours, at least one second.

    Args:
        rng: random numbers for this and nothing else.
        model: of purchases.
        clicks: the click model, whose z the price's is.
        catalogue: of the simulation.
        people: the block.
        shown: the impressions.
        clicked: bool (n,).
        log_end: seconds.
    """
    item, segment = shown.item, people.segment[shown.user]
    z = np.log(catalogue.price[item] / clicks.price_centre) / clicks.price_scale
    z = np.nan_to_num(z).clip(-2.0, 2.0)
    score = (
        model.bias
        + model.quality * catalogue.quality[item]
        + model.affinity * catalogue.affinity[segment, catalogue.category[item]]
        + model.price * z
        + np.array(model.segment)[segment]
    )
    p = probability(score)
    drawn, delay = rng.random(len(p)), rng.exponential(size=len(p))
    seconds = np.ceil(delay * model.delay_hours * HOUR * np.exp(model.delay_price * z)).astype(np.int64)
    return Purchases(
        p=p, bought=clicked & (drawn < p), time=shown.time + np.maximum(seconds, 1), log_end=log_end
    )

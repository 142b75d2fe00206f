"""The catalogue of the simulated shop, and the hidden tables of its click model.

Items are indexed in the order of (category, brand), so that a category, and a brand inside a category, is a
range of indices; the logged `item_id` is a random relabelling and tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from features.synthetic.settings import DAY, START, WARMUP_DAYS, Sizes

TAG_COUNT = 30
SEGMENTS = ("explorer", "bargain", "casual", "loyal", "collector")
BRANDS_PER_CATEGORY = 6
QUALITY_SD = 0.35  # of the items' hidden effects on the logit
_CATALOGUE_DAYS = 180
_NEW_EVERY = 8  # every eighth item of a category is created inside the request period


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All items, and what the click model knows about them; arrays (items,) unless said otherwise.

    Attributes:
        item_id: logged ID, a permutation of 1..items.
        category: index of the category, from 0.
        brand: index of the brand, from 0, over all categories; -1 = no brand.
        price: currency units; NaN = not known.
        tags: (items, 3) tag indices; -1 = none.
        created: time of creation, seconds.
        noise: a number that influences nothing.
        quality: hidden effect of the item on the logit.
        tag_effect: hidden effect of each tag, (TAG_COUNT,).
        affinity: hidden effect of each (segment, category), (segments, categories).
        popularity_sum: (items + 1,) running sum of the popularity weights.
        category_start: (categories + 1,) first item of each category.
        category_sum: (categories,) running popularity of the categories, last value 1.
        shelf_start: (brands + 1,) first item of each brand's shelf.
    """

    item_id: np.ndarray
    category: np.ndarray
    brand: np.ndarray
    price: np.ndarray
    tags: np.ndarray
    created: np.ndarray
    noise: np.ndarray
    quality: np.ndarray
    tag_effect: np.ndarray
    affinity: np.ndarray
    popularity_sum: np.ndarray
    category_start: np.ndarray
    category_sum: np.ndarray
    shelf_start: np.ndarray

    @property
    def categories(self) -> int:
        """The number of categories."""
        return len(self.category_sum)

    @property
    def brands(self) -> int:
        """The number of brands over all categories."""
        return self.categories * BRANDS_PER_CATEGORY

    @cached_property
    def index(self) -> np.ndarray:
        """0..items-1: the key of an item as itself."""
        return np.arange(len(self.item_id))

    @cached_property
    def log_popularity(self) -> np.ndarray:
        """Logarithm of the popularity weights, (items,)."""
        return np.log(np.diff(self.popularity_sum))

    @cached_property
    def always_there(self) -> np.ndarray:
        """Indices of the items that existed before the log began."""
        return np.flatnonzero(self.created < START - WARMUP_DAYS * DAY)

    @cached_property
    def tag_mean(self) -> np.ndarray:
        """The mean effect of an item's tags, 0 without tags; (items,)."""
        present = self.tags >= 0
        total = np.where(present, self.tag_effect[self.tags], 0.0).sum(axis=1)
        return total / np.maximum(present.sum(axis=1), 1)


def make_catalogue(rng: np.random.Generator, sizes: Sizes) -> Catalogue:
    """Draw the catalogue and the hidden tables.

    Args:
        rng: the random numbers of the catalogue; nothing else may use them.
        sizes: `items`, `categories` and `days` matter here.

    Returns:
        The catalogue; the same for the same generator state and sizes.
    """
    n, k = sizes.items, sizes.categories
    category_weight = _shuffled_zipf(rng, k, exponent=0.7)
    spread = rng.choice(k, size=n - 8 * k, p=category_weight)
    # Eight items each first: no category is empty, and each has an item from before the log begins.
    category = np.sort(np.concatenate([np.repeat(np.arange(k), 8), spread]))
    local_brand = rng.integers(BRANDS_PER_CATEGORY, size=n)
    shelf = np.sort(category * BRANDS_PER_CATEGORY + local_brand)
    category_start = np.searchsorted(category, np.arange(k + 1))
    popularity = _shuffled_zipf(rng, n, exponent=0.6)
    return Catalogue(
        item_id=rng.permutation(n) + 1,
        category=category,
        brand=np.where(rng.random(n) < 0.03, -1, shelf),
        price=_prices(rng, category, k),
        tags=_tags(rng, category),
        created=_creation_times(rng, np.arange(n) - category_start[category], sizes),
        noise=rng.integers(100, size=n),
        quality=rng.normal(0.0, QUALITY_SD, size=n),
        tag_effect=rng.normal(0.0, 0.5, size=TAG_COUNT),
        affinity=rng.normal(0.0, 0.45, size=(len(SEGMENTS), k)),
        popularity_sum=np.concatenate([[0.0], np.cumsum(popularity)]),
        category_start=category_start,
        category_sum=np.cumsum(category_weight),
        shelf_start=np.searchsorted(shelf, np.arange(k * BRANDS_PER_CATEGORY + 1)),
    )


def draw_categories(
    rng: np.random.Generator, catalogue: Catalogue, shape: int | tuple[int, ...]
) -> np.ndarray:
    """Draw categories by their overall popularity."""
    drawn = np.searchsorted(catalogue.category_sum, rng.random(shape), side="right")
    return np.minimum(drawn, catalogue.categories - 1)


def draw_items(
    rng: np.random.Generator,
    catalogue: Catalogue,
    *,
    category: np.ndarray,
    local_brand: np.ndarray,
    time: np.ndarray,
) -> np.ndarray:
    """Draw one existing item per row, by popularity, from a category or from one brand's shelf in it.

    Args:
        rng: random numbers.
        catalogue: of the simulation.
        category: (n,) category indices.
        local_brand: (n,) brand inside the category, from 0; -1, or an empty shelf, means any.
        time: (n,) seconds; an item that is created at this time or later is replaced by its older neighbour.

    Returns:
        (n,) item indices.
    """
    shelf = category * BRANDS_PER_CATEGORY + np.maximum(local_brand, 0)
    low, high = catalogue.shelf_start[shelf], catalogue.shelf_start[shelf + 1]
    whole = (local_brand < 0) | (low == high)
    low = np.where(whole, catalogue.category_start[category], low)
    high = np.where(whole, catalogue.category_start[category + 1], high)
    floor, ceiling = catalogue.popularity_sum[low], catalogue.popularity_sum[high]
    level = floor + rng.random(len(category)) * (ceiling - floor)
    item = np.clip(np.searchsorted(catalogue.popularity_sum, level, side="right") - 1, low, high - 1)
    return np.where(catalogue.created[item] < time, item, item - 1)


def _shuffled_zipf(rng: np.random.Generator, n: int, *, exponent: float) -> np.ndarray:
    """Popularity weights rank^-exponent in random order, with sum 1."""
    weight = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return rng.permutation(weight / weight.sum())


def _prices(rng: np.random.Generator, category: np.ndarray, categories: int) -> np.ndarray:
    """Log-normal prices around a level per category, in cents exactly; one in twenty is not known."""
    level = rng.normal(np.log(30.0), 0.5, size=categories)
    price = np.exp(level[category] + rng.normal(0.0, 0.6, size=len(category))).round(2)
    return np.where(rng.random(len(category)) < 0.05, np.nan, price)


def _tags(rng: np.random.Generator, category: np.ndarray) -> np.ndarray:
    """Up to three distinct tags per item: one typical of the category, others at random, or none at all."""
    typical = category % TAG_COUNT
    step = rng.integers(1, TAG_COUNT // 2, size=(len(category), 2)).cumsum(axis=1)
    tags = np.stack([typical, *((typical[:, None] + step) % TAG_COUNT).T], axis=1)
    return np.where(rng.random(tags.shape) < 0.35, -1, tags)


def _creation_times(rng: np.random.Generator, rank: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Most items are older than the log; every eighth of a category appears while requests are running.

    The item before a new one is therefore always an old one of the same category.
    """
    before = START - WARMUP_DAYS * DAY - rng.integers(1, _CATALOGUE_DAYS * DAY, size=len(rank))
    within = START + rng.integers(0, sizes.days * DAY, size=len(rank))
    return np.where(rank % _NEW_EVERY == _NEW_EVERY - 1, within, before)

"""Which candidates a request shows, and in which order.

Dimension letters: U users, R requests of a round, B candidates (R * C rows), C candidates of a request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.synthetic.catalogue import Catalogue, draw_categories, draw_items
from features.synthetic.clicks import PAGES, Shown
from features.synthetic.events import Events
from features.synthetic.people import DEVICES, People, draw_interests
from features.synthetic.settings import Sizes

_RETARGETED, _WANTED = 0.15, 0.35  # shares of the candidates: seen before, of interest; the rest is anything


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What stays the same through all rounds of a block."""

    rng: np.random.Generator
    catalogue: Catalogue
    sizes: Sizes
    people: People
    organic: Events  # sorted by (user, time)


def show(scene: Scene, now: np.ndarray) -> Shown:
    """Choose distinct candidates for each user with a request at `now` (U,), and put them in order."""
    rng, people, candidates = scene.rng, scene.people, scene.sizes.candidates
    active = np.flatnonzero(now >= 0)
    user = np.repeat(active, candidates)
    item = _retrieve(scene, user, now[user]).reshape(len(active), candidates)
    item = _order(scene, _make_distinct(scene, item))
    usual = rng.random(len(active)) < 0.8
    device = np.where(usual, people.device[active], rng.integers(len(DEVICES), size=len(active)))
    page = rng.choice(len(PAGES), size=len(active), p=[0.5, 0.3, 0.2])
    return Shown(
        user=user,
        time=now[user],
        item=item.ravel(),
        position=np.tile(np.arange(1, candidates + 1), len(active)),
        device=np.repeat(device, candidates),
        page=np.repeat(page, candidates),
    )


def _retrieve(scene: Scene, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(B,) candidates: an item of the user's past, one of a category of interest, or any; some may repeat."""
    rng, catalogue, people = scene.rng, scene.catalogue, scene.people
    source = rng.random(len(user))
    wanted = draw_interests(rng, catalogue, people, scene.sizes, user=user, time=time)
    category = np.where(source < _RETARGETED + _WANTED, wanted, draw_categories(rng, catalogue, len(user)))
    brand = np.where(rng.random(len(user)) < 0.3, people.favourites[user, category], -1)
    fresh = draw_items(rng, catalogue, category=category, local_brand=brand, time=time)
    past, found = _draw_past(scene, user, time)
    return np.where((source < _RETARGETED) & found, past, fresh)


def _draw_past(scene: Scene, user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One item (B,) of each row's user from before `time`, and whether there was one (B,)."""
    organic = scene.organic
    if len(organic) == 0:
        return np.zeros(len(user), dtype=np.int64), np.zeros(len(user), dtype=bool)
    key = organic.user << 32 | organic.time  # one rising key, because the events are sorted by (user, time)
    begin, end = np.searchsorted(key, user << 32), np.searchsorted(key, user << 32 | time)
    pick = begin + (scene.rng.random(len(user)) * (end - begin)).astype(np.int64)
    return organic.item[np.minimum(pick, len(organic) - 1)], end > begin


def _make_distinct(scene: Scene, item: np.ndarray) -> np.ndarray:
    """Replace items that repeat inside a request (R, C) by others that existed from the start."""
    item = item.copy()
    while True:
        order = np.argsort(item, axis=1, kind="stable")
        ordered = np.take_along_axis(item, order, axis=1)
        repeated = np.zeros(item.shape, dtype=bool)
        np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        if not repeated.any():
            return item
        item[repeated] = scene.rng.choice(scene.catalogue.always_there, size=int(repeated.sum()))


def _order(scene: Scene, item: np.ndarray) -> np.ndarray:
    """Each request's candidates (R, C) from first to last position: popular ones tend to stand first."""
    rank = 0.3 * scene.catalogue.log_popularity[item] + scene.rng.gumbel(size=item.shape)
    return np.take_along_axis(item, np.argsort(-rank, axis=1, kind="stable"), axis=1)

"""A block of users: profiles, interests that drift, and when they are there.

Dimension letters: U users of the block, R most requests of one user, K categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.synthetic.catalogue import BRANDS_PER_CATEGORY, SEGMENTS, Catalogue, draw_categories
from features.synthetic.settings import DAY, HOUR, REQUEST_GAP, START, Sizes

AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
COUNTRIES = ("de", "fr", "it", "es", "pl", "nl", "se", "at", "dk", "fi", "ie", "mt")
DEVICES = ("desktop", "mobile", "tablet", "tv")
NO_REQUEST = -1  # request time in the cells behind a user's last request

_TOPIC_DAYS = 2
_MAIN_SHARE = np.array([0.5, 0.3, 0.2])
_HOUR_WEIGHT = 1.2 + np.cos(2 * np.pi * (np.arange(24) - 19) / 24)


@dataclass(frozen=True, kw_only=True)
class People:
    """The users of one block; arrays (U,) unless said otherwise.

    Attributes:
        user_id: logged ID, from 1.
        segment: index into `SEGMENTS`.
        age_band: index into `AGE_BANDS`; -1 = missing.
        country: index into `COUNTRIES`; -1 = missing.
        device: index into `DEVICES`: the one used most.
        noise: a number that influences nothing.
        joined: seconds; nothing happens earlier.
        requests: (U, R) request times, seconds, rising; `NO_REQUEST` behind the last.
        mains: (U, 2, 3) long-term categories before and after the change of mind.
        change: seconds; when the long-term interests change.
        topics: (U, periods) short-term category of each period of two days.
        favourites: (U, K) favourite brand inside each category.
    """

    user_id: np.ndarray
    segment: np.ndarray
    age_band: np.ndarray
    country: np.ndarray
    device: np.ndarray
    noise: np.ndarray
    joined: np.ndarray
    requests: np.ndarray
    mains: np.ndarray
    change: np.ndarray
    topics: np.ndarray
    favourites: np.ndarray

    def __len__(self) -> int:
        return len(self.user_id)


def make_people(
    rng: np.random.Generator, catalogue: Catalogue, sizes: Sizes, *, first: int, count: int
) -> People:
    """Draw `count` users, the first of whom has the ID `first + 1`."""
    joined = _join_times(rng, sizes, count)
    mains = draw_categories(rng, catalogue, (count, 2, 3))
    mains[:, 1, 0] = mains[:, 0, 0]  # the strongest interest stays, the two others are replaced
    return People(
        user_id=first + 1 + np.arange(count),
        segment=rng.integers(len(SEGMENTS), size=count),
        age_band=np.where(rng.random(count) < 0.08, -1, rng.integers(len(AGE_BANDS), size=count)),
        country=np.where(rng.random(count) < 0.05, -1, _countries(rng, count)),
        device=rng.choice(len(DEVICES), size=count, p=[0.3, 0.5, 0.15, 0.05]),
        noise=rng.integers(100, size=count),
        joined=joined,
        requests=_request_times(rng, sizes, joined),
        mains=mains,
        change=rng.integers(sizes.first_second, sizes.end, size=count),
        topics=_topics(rng, catalogue, sizes, mains),
        favourites=rng.integers(BRANDS_PER_CATEGORY, size=(count, catalogue.categories)),
    )


def draw_interests(
    rng: np.random.Generator,
    catalogue: Catalogue,
    people: People,
    sizes: Sizes,
    *,
    user: np.ndarray,
    time: np.ndarray,
) -> np.ndarray:
    """Draw what a user is after at a time: the topic of these days, a long-term category, or anything.

    Args:
        rng: random numbers.
        catalogue: of the simulation.
        people: the block.
        sizes: the log's clock.
        user: (n,) index inside the block.
        time: (n,) seconds.

    Returns:
        (n,) category indices.
    """
    which = rng.random(len(user))
    topic = people.topics[user, (time - sizes.first_second) // (_TOPIC_DAYS * DAY)]
    slot = np.searchsorted(np.cumsum(_MAIN_SHARE)[:-1], rng.random(len(user)), side="right")
    main = people.mains[user, (time >= people.change[user]).astype(np.int64), slot]
    anything = draw_categories(rng, catalogue, len(user))
    return np.select([which < 0.45, which < 0.85], [topic, main], anything)


def draw_times(rng: np.random.Generator, low: np.ndarray, high: int) -> np.ndarray:
    """Draw times in [low, high), seconds, that follow the hours of the day, few at night."""
    day = low // DAY + (rng.random(len(low)) * (high // DAY - low // DAY)).astype(np.int64)
    hour = np.searchsorted(np.cumsum(_HOUR_WEIGHT)[:-1], rng.random(len(low)) * _HOUR_WEIGHT.sum())
    return np.maximum(day * DAY + hour * HOUR + rng.integers(HOUR, size=len(low)), low)


def _join_times(rng: np.random.Generator, sizes: Sizes, count: int) -> np.ndarray:
    """Four of five users are there from the start; the others join later, before the last tenth."""
    late = START + (rng.random(count) * 0.9 * sizes.days * DAY).astype(np.int64)
    return np.where(rng.random(count) < 0.2, late, sizes.first_second)


def _countries(rng: np.random.Generator, count: int) -> np.ndarray:
    """Countries by a steep popularity, so that a vocabulary may never have seen the last ones."""
    weight = 0.5 ** np.arange(len(COUNTRIES))
    return rng.choice(len(COUNTRIES), size=count, p=weight / weight.sum())


def _topics(rng: np.random.Generator, catalogue: Catalogue, sizes: Sizes, mains: np.ndarray) -> np.ndarray:
    """The short-term category of each period: half the time anything, else one of the main interests."""
    count = len(mains)
    periods = (sizes.end - sizes.first_second) // (_TOPIC_DAYS * DAY) + 2  # sessions run on after the end
    own = mains[np.arange(count)[:, None], 0, rng.integers(3, size=(count, periods))]
    return np.where(
        rng.random((count, periods)) < 0.5, draw_categories(rng, catalogue, (count, periods)), own
    )


def _request_times(rng: np.random.Generator, sizes: Sizes, joined: np.ndarray) -> np.ndarray:
    """Each user's request times (U, R) in rising order, at least `REQUEST_GAP` apart."""
    mean = sizes.requests_per_user - 1
    count = 1 + np.minimum(rng.poisson(mean * rng.gamma(2.0, 0.5, size=len(joined))), 8 * mean)
    width = int(count.max())
    low = np.repeat(np.maximum(joined, START), width)
    time = draw_times(rng, low, sizes.end).reshape(len(joined), width)
    kept = np.arange(width) < count[:, None]
    gaps = np.arange(width) * REQUEST_GAP
    time = np.sort(np.where(kept, time, np.iinfo(np.int64).max // 2), axis=1)
    return np.where(kept, np.maximum.accumulate(time - gaps, axis=1) + gaps, NO_REQUEST)

"""One block of users, simulated round by round: show, click, remember.

Clicks depend on the history and the history on earlier clicks, so round r simulates the r-th request of every
user of the block at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.synthetic.catalogue import Catalogue
from features.synthetic.clicks import (
    STATIC_TERMS,
    ClickModel,
    Shown,
    history_terms,
    probability,
    static_terms,
)
from features.synthetic.events import Events, History, caused_events, concat, organic_events
from features.synthetic.people import People, make_people
from features.synthetic.purchases import Purchases
from features.synthetic.settings import BLOCK_USERS, REQUEST_ID_STRIDE, Sizes
from features.synthetic.show import Scene, show


@dataclass(frozen=True, kw_only=True)
class Round:
    """Impressions, parallel arrays (n,), with the truth about their clicks.

    Attributes:
        shown: who saw what, when, where.
        request_id: the request of each impression.
        noise: a number that influences nothing.
        clicked: bool.
        p: the probability that `clicked` was drawn with.
        score: the logit of `p`.
        terms: the summands of `score` by name.
    """

    shown: Shown
    request_id: np.ndarray
    noise: np.ndarray
    clicked: np.ndarray
    p: np.ndarray
    score: np.ndarray
    terms: dict[str, np.ndarray]

    @property
    def p_static(self) -> np.ndarray:
        """The click probability of a user without history, (n,)."""
        return probability(np.sum([self.terms[name] for name in STATIC_TERMS], axis=0))


@dataclass(frozen=True, kw_only=True)
class UserBlock:
    """A block of users with all their events and the rounds of their impressions.

    `accidents` are further views, which no click depends on, and `purchases` what became of the clicks of
    each round; None: the log does not speak of them.
    """

    people: People
    events: Events
    rounds: list[Round]
    accidents: Events | None = None
    purchases: list[Purchases] | None = None


def simulate_block(
    rng: np.random.Generator, catalogue: Catalogue, sizes: Sizes, model: ClickModel, number: int
) -> UserBlock:
    """Simulate block `number`: the users from `number * BLOCK_USERS` on.

    Args:
        rng: the random numbers of this block; nothing else may use them.
        catalogue: of the simulation.
        sizes: the sizes of the log.
        model: the click model.
        number: the block's number, from 0.
    """
    first = number * BLOCK_USERS
    people = make_people(rng, catalogue, sizes, first=first, count=min(BLOCK_USERS, sizes.users - first))
    organic = organic_events(rng, catalogue, people, sizes)
    scene = Scene(rng=rng, catalogue=catalogue, sizes=sizes, people=people, organic=organic)
    history, rounds, events = History.of(organic), [], [organic]
    for turn in range(people.requests.shape[1]):
        history = history.of_users(people.requests[:, turn] >= 0)  # the others have no request left
        rounds.append(_simulate_round(scene, model, history, turn))
        events.append(_consequences(rng, rounds[-1]))
        history = history.then(events[-1])
    return UserBlock(people=people, events=concat(events), rounds=rounds)


def _simulate_round(scene: Scene, model: ClickModel, history: History, turn: int) -> Round:
    """Show and click the requests number `turn` of all users of the block that have one."""
    people, now = scene.people, scene.people.requests[:, turn]
    shown = show(scene, now)
    terms = static_terms(model, scene.catalogue, people, shown)
    terms |= history_terms(model, scene.catalogue, people, history, shown, now)
    score = np.sum(list(terms.values()), axis=0)
    p = probability(score)
    return Round(
        shown=shown,
        request_id=people.user_id[shown.user] * REQUEST_ID_STRIDE + turn + 1,
        noise=scene.rng.integers(100, size=len(p)),
        clicked=scene.rng.random(len(p)) < p,
        p=p,
        score=score,
        terms=terms,
    )


def _consequences(rng: np.random.Generator, done: Round) -> Events:
    """The views that a round's impressions cause."""
    shown = done.shown
    return caused_events(rng, user=shown.user, time=shown.time, item=shown.item, clicked=done.clicked)

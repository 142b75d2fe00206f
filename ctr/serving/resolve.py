"""From a question to the columns of its request and candidates, out of the data set's own files.

What the directory can tell: requests and impressions as they were prepared, the event stores, and the raw
keys of users and items. What it cannot: features that are computed for a pair of request and candidate
(counters, matches, pages), where nobody has computed them for this pair. They must be given, or are refused.

C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.given import GivenFeatures, fingerprint
from ctr.serving.keys import RawKeys, items_own_features
from ctr.serving.question import Key, Question
from ctr.serving.source import Request, read_candidates, read_requests
from ctr.serving.values import Parts, laid_over
from features.dataset import Dataset, EventStore, Manifest
from features.errors import DataError


class Resolver:
    """Looks up questions in a data set; its indexes are made when they are first used."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.manifest = dataset.manifest
        self.given = GivenFeatures(dataset)

    def request(self, question: Question) -> Request:
        """The request that a question names, or the one that its user would make at its time.

        Raises:
            DataError: there is no such request or user, or no earlier request to take features from.
        """
        given = self.given.of_request(question)
        if question.request_id is not None:
            (place,) = self._requests.find([question.request_id], what="request_id")
            request = Request.of(self._requests.take(np.array([place])))
        else:
            request = self._asked(question, given)
        if not (given.ids or given.dense):
            return request
        return Request((*request.name, fingerprint(given)), laid_over(request.columns, given))

    def candidates(self, question: Question) -> Columns:
        """The features of its C candidates.

        Raises:
            DataError: an unknown row, item, feature or column, a value that does not fit, or a feature that
                is neither given nor the item's own.
        """
        given = self.given.of_candidates(question)
        missing = _missing(self.manifest, "candidate", given)
        if question.row_ids is not None:
            shown = self._shown.take(self._shown.find(question.row_ids, what="row_ids"))
            return laid_over(shown, given)
        places = Columns({"row_id": np.arange(question.candidates)}, {}, {})
        if question.items is None:
            _refuse(missing, "there are no row_ids or items to take them from")
            return laid_over(places, given)
        _refuse([n for n in missing if n not in self._items_own], "they are not the item's own")
        shown = self._shown.take(self._impressions_of(question.items))
        return laid_over(laid_over(shown, places), given)

    def _asked(self, question: Question, given: Columns) -> Request:
        """A user at a time: features of the newest request, unless all are given."""
        assert question.user is not None and question.time is not None
        if _missing(self.manifest, "request", given):
            place = self._request_before(question.user, question.time)
            request = Request.of(self._requests.take(np.array([place])))
        else:
            user = self._keys.codes("users", [question.user], unknown=-1)
            request = Request.of(Columns({"request_id": np.array([-1]), "user_id": user}, {}, {}))
        return request.with_plain(time=question.time, **self._history(request.user, question.time))

    def _request_before(self, user: Key, time: int) -> int:
        """The newest request of the user not after the time, of all splits."""
        code = self._keys.codes("users", [user], unknown=-1)[0]
        of_user = np.flatnonzero(self._requests.plain("user_id") == code)
        times = self._requests.plain("time")[of_user]
        of_user, times = of_user[times <= time], times[times <= time]
        if not len(of_user):
            raise DataError(
                f"user {user!r} must have a request in the data set at or before time {time}, from which its "
                "features are taken; there is none: name a request_id, or give all columns of the request"
            )
        return int(of_user[times.argsort(kind="stable")[-1]])

    def _history(self, user: int, time: int) -> dict[str, int]:
        """Pointers to the events of a user strictly before a time."""
        found: dict[str, int] = {}
        for domain, store in self._stores.items():
            first, last = np.searchsorted(store.user_id, [user, user + 1]).tolist()
            end = first + int(np.searchsorted(store.time[first:last], time))
            found |= {f"start.{domain}": max(first, end - store.info.max_len), f"end.{domain}": end}
        return found

    def _impressions_of(self, items: Sequence[Key]) -> np.ndarray:
        """An impression of each item; what is the item's own is the same in all of them."""
        places = self._impression_of_item[self._keys.codes("items", items)]
        if (places < 0).any():
            raise DataError(
                f"items must have been shown in the data set, {items[int(places.argmin())]!r} was not"
            )
        return places

    @cached_property
    def _impression_of_item(self) -> np.ndarray:
        items = self._shown.plain("item_id")
        places = np.full(self.manifest.items, -1)
        places[items] = np.arange(len(items))
        return places

    @cached_property
    def _items_own(self) -> frozenset[str]:
        return items_own_features(self.dataset)

    @cached_property
    def _keys(self) -> RawKeys:
        return RawKeys(self.dataset)

    @cached_property
    def _stores(self) -> dict[str, EventStore]:
        return {domain: self.dataset.events(domain) for domain in self.manifest.domains}

    @cached_property
    def _requests(self) -> Parts:
        splits = self.manifest.splits
        return Parts([read_requests(self.dataset, split)[0] for split in splits], "request_id")

    @cached_property
    def _shown(self) -> Parts:
        splits = self.manifest.splits
        return Parts([read_candidates(self.dataset, split) for split in splits], "row_id")


def _missing(manifest: Manifest, level: str, given: Columns) -> list[str]:
    """The features of a level that are not given."""
    there = given.ids.keys() | given.dense.keys()
    return [c.name for c in manifest.features if c.level == level and c.name not in there]


def _refuse(missing: Sequence[str], why: str) -> None:
    if missing:
        raise DataError(
            f"columns or features must give the candidate features {missing} ({why}); give them, name "
            "row_ids, or use a run that drops them"
        )

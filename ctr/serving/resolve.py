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
from ctr.serving.keys import RawKeys, items_own_features
from ctr.serving.question import Key, Question
from ctr.serving.source import Request, read_candidates, read_requests
from ctr.serving.values import Parts, given_columns, laid_over
from features.dataset import Dataset, EventStore
from features.errors import DataError


class Resolver:
    """Looks up questions in a data set; its indexes are made when they are first used."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.manifest = dataset.manifest

    def request(self, question: Question) -> Request:
        """The request that a question names, or the one that its user would make at its time.

        Raises:
            DataError: there is no such request or user, or no earlier request to take features from.
        """
        if question.request_id is not None:
            (place,) = self._requests.find([question.request_id], what="request_id")
        else:
            place = self._request_before(question)
        request = Request.of(self._requests.take(np.array([place])))
        if question.time is not None:
            request = request.with_plain(time=question.time, **self._history(request.user, question.time))
        if not question.request_features:
            return request
        given = {name: [value] for name, value in question.request_features.items()}
        columns = given_columns(self.manifest, "request", given, what="request_features")
        return Request((*request.name, repr(sorted(given.items()))), laid_over(request.columns, columns))

    def candidates(self, question: Question) -> Columns:
        """The features of its C candidates.

        Raises:
            DataError: an unknown row, item or feature, a value that does not fit, or a feature that is
                neither given nor the item's own.
        """
        given = given_columns(self.manifest, "candidate", question.features, what="features")
        names = [c.name for c in self.manifest.features if c.level == "candidate"]
        if question.row_ids is not None:
            shown = self._shown.take(self._shown.find(question.row_ids, what="row_ids"))
            return laid_over(shown, given)
        places = Columns({"row_id": np.arange(question.candidates)}, {}, {})
        if question.items is None:
            _refuse_missing(names, question, "there are no row_ids or items to take them from")
            return laid_over(places, given)
        own = [name for name in names if name in self._items_own]
        _refuse_missing([n for n in names if n not in own], question, "they are not the item's own")
        shown = self._shown.take(self._impressions_of(question.items))
        return laid_over(laid_over(shown, places), given)

    def _request_before(self, question: Question) -> int:
        """The newest request of the user not after the time, of all splits."""
        assert question.user is not None and question.time is not None
        user = self._keys.codes("users", [question.user])[0]
        of_user = np.flatnonzero(self._requests.plain("user_id") == user)
        times = self._requests.plain("time")[of_user]
        of_user, times = of_user[times <= question.time], times[times <= question.time]
        if not len(of_user):
            raise DataError(
                f"user {question.user!r} must have a request in the data set at or before time "
                f"{question.time}, from which its features are taken; there is none: name a request_id"
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


def _refuse_missing(needed: Sequence[str], question: Question, why: str) -> None:
    if missing := [name for name in needed if name not in question.features]:
        raise DataError(
            f"features must give the candidate features {missing} ({why}); give them, name row_ids, or use a "
            "run that drops them"
        )

"""From a score request to the columns of its request and candidates, out of the data set's own files.

The data set directory holds requests and impressions as they were prepared, the event stores, and the raw
keys of users and items. It does not hold features of a pair of request and candidate (counters, matches,
pages) that was never logged: the score request must bring them, or it is refused.

C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.inline_features import InlineFeatures, fingerprint
from ctr.serving.keys import RawKeys, items_own_features
from ctr.serving.requests import Request, read_candidates, read_requests
from ctr.serving.score_request import Key, ScoreRequest
from ctr.serving.split_columns import SplitColumns, overlay
from features.dataset import Dataset, EventStore, Manifest
from features.errors import DataError


class FeatureLookup:
    """Looks up the features of score requests in a data set; indexes are made when they are first used."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.manifest = dataset.manifest
        self.inline = InlineFeatures(dataset)

    def request(self, score_request: ScoreRequest) -> Request:
        """The request that a score request names, or the one that its user would make at its time.

        Raises:
            DataError: there is no such request or user, or no earlier request to take features from.
        """
        inline = self.inline.of_request(score_request)
        if score_request.request_id is not None:
            (row,) = self._requests.find([score_request.request_id], what="request_id")
            request = Request.of(self._requests.take(np.array([row])))
        else:
            request = self._of_user(score_request, inline)
        if not (inline.ids or inline.dense):
            return request
        return Request((*request.name, fingerprint(inline)), overlay(request.columns, inline))

    def candidates(self, score_request: ScoreRequest) -> Columns:
        """The features of its C candidates.

        Raises:
            DataError: an unknown row, item, feature or column, a value that does not fit, or a feature that
                is neither in the score request nor the item's own.
        """
        inline = self.inline.of_candidates(score_request)
        missing = _missing(self.manifest, "candidate", inline)
        if score_request.row_ids is not None:
            shown = self._shown.take(self._shown.find(score_request.row_ids, what="row_ids"))
            return overlay(shown, inline)
        positions = Columns({"row_id": np.arange(score_request.candidates)}, {}, {})
        if score_request.items is None:
            _refuse(missing, "there are no row_ids or items to take them from")
            return overlay(positions, inline)
        _refuse([n for n in missing if n not in self._items_own], "they are not the item's own")
        shown = self._shown.take(self._impressions_of(score_request.items))
        return overlay(overlay(shown, positions), inline)

    def _of_user(self, score_request: ScoreRequest, inline: Columns) -> Request:
        """A user at a time: features of the newest request, unless the score request holds them all."""
        assert score_request.user is not None and score_request.time is not None
        if _missing(self.manifest, "request", inline):
            row = self._request_before(score_request.user, score_request.time)
            request = Request.of(self._requests.take(np.array([row])))
        else:
            user = self._keys.codes("users", [score_request.user], unknown=-1)
            request = Request.of(Columns({"request_id": np.array([-1]), "user_id": user}, {}, {}))
        return request.with_plain(time=score_request.time, **self._history(request.user, score_request.time))

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
            if not store.info.timed:
                raise DataError(
                    f"domain {domain!r} holds lists without times, so that a time does not tell what lies "
                    "before it; name a request_id"
                )
            first, last = np.searchsorted(store.user_id, [user, user + 1]).tolist()
            # An event is past when its tick is over; without a length the request's and its are the same.
            tick = max(math.ceil(store.info.tick or 1), 1)
            end = first + int(np.searchsorted(store.time[first:last], time - tick + 1))
            found |= {f"start.{domain}": max(first, end - store.info.max_len), f"end.{domain}": end}
        return found

    def _impressions_of(self, items: Sequence[Key]) -> np.ndarray:
        """The row of one impression of each item; the item's own features are the same in all of them."""
        rows = self._impression_of_item[self._keys.codes("items", items)]
        if (rows < 0).any():
            raise DataError(
                f"items must have been shown in the data set, {items[int(rows.argmin())]!r} was not"
            )
        return rows

    @cached_property
    def _impression_of_item(self) -> np.ndarray:
        items = self._shown.plain("item_id")
        row_of = np.full(self.manifest.items, -1)
        row_of[items] = np.arange(len(items))
        return row_of

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
    def _requests(self) -> SplitColumns:
        splits = self.manifest.splits
        return SplitColumns([read_requests(self.dataset, split)[0] for split in splits], "request_id")

    @cached_property
    def _shown(self) -> SplitColumns:
        splits = self.manifest.splits
        return SplitColumns([read_candidates(self.dataset, split) for split in splits], "row_id")


def _missing(manifest: Manifest, level: str, inline: Columns) -> list[str]:
    """The features of a level that are not in the score request."""
    there = inline.ids.keys() | inline.dense.keys()
    return [c.name for c in manifest.features if c.level == level and c.name not in there]


def _refuse(missing: Sequence[str], why: str) -> None:
    if missing:
        raise DataError(
            f"columns or features must give the candidate features {missing} ({why}); give them, name "
            "row_ids, or use a run that drops them"
        )

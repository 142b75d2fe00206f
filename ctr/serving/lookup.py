"""From a score request to the columns of its request and candidates, out of the data set's own files.

The data set directory holds requests and impressions as they were prepared, the event stores, and the raw
keys of users and items. It does not hold features of a pair of request and candidate (counters, matches,
pairs, ages, crosses, pages) that was never logged: the score request must bring them, or it is refused.

C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ctr.loader.columns import Columns
from ctr.serving.counters import Asker
from ctr.serving.inline_features import InlineFeatures, fingerprint
from ctr.serving.keys import RawKeys, items_own_features
from ctr.serving.requests import Request, read_candidates, read_requests
from ctr.serving.score_request import Key, ScoreRequest
from ctr.serving.split_columns import SplitColumns, concat_columns, overlay
from features.dataset import Dataset, EventStore, Manifest
from features.errors import DataError
from features.past.counter_files import CounterFile
from features.read.dataset_times import DatasetTimes, Moment


class FeatureLookup:
    """Looks up the features of score requests in a data set; indexes are made when they are first used."""

    def __init__(self, dataset: Dataset, counters: CounterFile | None = None) -> None:
        self.dataset = dataset
        self.manifest = dataset.manifest
        self.counters = counters
        self.inline = InlineFeatures(dataset, counters)

    def request(self, score_request: ScoreRequest) -> Request:
        """The request that a score request names, or the one that its user would make at its time.

        Raises:
            DataError: there is no such request, a value does not fit, or the time lies far from the data.
        """
        if score_request.request_id is not None:
            inline = self.inline.of_request(score_request, None)
            request = Request.of(self._requests.take(self._row_of(score_request.request_id)))
            self.inline.refuse_outdated("request", score_request, inline)
        else:
            moment = self._moment(score_request)
            inline = self.inline.of_request(score_request, Asker(score_request.user, moment.nanoseconds))
            request = self._of_user(score_request, moment, inline)
        if not (inline.ids or inline.dense):
            return request
        name = (*request.name, fingerprint(inline))
        return replace(request, name=name, columns=overlay(request.columns, inline))

    def candidates(self, score_request: ScoreRequest) -> Columns:
        """The features of its C candidates.

        Raises:
            DataError: an unknown row, feature or column, a value that does not fit, or a feature that is
                neither in the score request nor the item's own.
        """
        prepared = self.counters is None or score_request.row_ids is not None
        inline = self.inline.of_candidates(score_request, None if prepared else self._asker(score_request))
        missing = _missing(self.manifest, "candidate", inline)
        if score_request.row_ids is not None:
            shown = self._shown.take(self._shown.find(score_request.row_ids, what="row_ids"))
            self.inline.refuse_outdated("candidate", score_request, inline)
            return overlay(shown, inline)
        positions = Columns({"row_id": np.arange(score_request.candidates)}, {}, {})
        if score_request.items is None:
            _refuse(missing, "there are no row_ids or items to take them from")
            return overlay(positions, inline)
        _refuse([n for n in missing if n not in self._items_own], "they are not the item's own")
        return overlay(overlay(self._items(score_request.items), positions), inline)

    def _moment(self, score_request: ScoreRequest) -> Moment:
        assert score_request.time is not None
        return self.times.read(score_request.time)

    def _row_of(self, request_id: int) -> np.ndarray:
        return self._requests.find([request_id], what="request_id")

    def _asker(self, score_request: ScoreRequest) -> Asker:
        """Who asks when; of a prepared request, its user and its time."""
        if score_request.request_id is None:
            return Asker(score_request.user, self._moment(score_request).nanoseconds)
        row = self._row_of(score_request.request_id)
        user = int(self._requests.plain("user_id")[row][0])
        return Asker(self._keys.key("users", user), self.times.of_request(int(row[0])))

    def _of_user(self, score_request: ScoreRequest, moment: Moment, inline: Columns) -> Request:
        """A user at a time: features of the newest request, unless the score request holds them all.

        Of a user without one, what is not in the score request is missing.
        """
        assert score_request.user is not None
        (user,) = self._keys.codes("users", [score_request.user])
        missing = _missing(self.manifest, "request", inline)
        row = self._request_before(user, moment) if missing else None
        if row is None:
            new = self.inline.of_new_user(score_request, missing) if missing else Columns({}, {}, {})
            plain = {"request_id": np.array([-1]), "user_id": np.array([user])}
            names = [*(["user_key"] if user < 0 else []), *missing]
            request = Request((-1, fingerprint(new)), Columns(plain, new.ids, new.dense), tuple(names))
        else:
            request = Request.of(self._requests.take(np.array([row])))
            self.inline.refuse_outdated("request", score_request, inline)
        return request.with_plain(time=moment.seconds, **self._history(user, moment))

    def _request_before(self, user: int, moment: Moment) -> int | None:
        """The newest request of the user not after the time, of all splits."""
        of_user = np.flatnonzero(self._requests.plain("user_id") == user)
        if moment.clock is None:
            times, asked = self._requests.plain("time")[of_user], moment.seconds
        else:
            times, asked = self.times.clocks[of_user], moment.clock
        of_user, times = of_user[times <= asked], times[times <= asked]
        return int(of_user[times.argsort(kind="stable")[-1]]) if len(of_user) else None

    def _history(self, user: int, moment: Moment) -> dict[str, int]:
        """Pointers to the events of a user strictly before a time."""
        found: dict[str, int] = {}
        for domain, store in self._stores.items():
            if not store.info.timed:
                raise DataError(
                    f"domain {domain!r} holds lists without times, so that a time does not tell what lies "
                    "before it; name a request_id"
                )
            first, last = np.searchsorted(store.user_id, [user, user + 1]).tolist()
            if moment.clock is not None:
                end = first + int(np.searchsorted(store.clock[first:last], moment.clock))
            else:  # clocks are ranks: an event is past when its tick is over
                tick = max(math.ceil(store.info.tick or 1), 1)
                end = first + int(np.searchsorted(store.time[first:last], moment.seconds - tick + 1))
            found |= {f"start.{domain}": max(first, end - store.info.max_len), f"end.{domain}": end}
        return found

    def _items(self, keys: Sequence[Key]) -> Columns:
        """The items' own features: of one impression of each, or of the key alone where there is none."""
        codes = self._keys.codes("items", keys)
        rows = np.where(codes < 0, -1, self._impression_of_item[codes])
        new = np.flatnonzero(rows < 0)
        if not len(new):
            return self._shown.take(rows)
        own = [c.name for c in self.manifest.features if c.name in self._items_own]
        found = self.inline.of_new_items([keys[i] for i in new.tolist()], own)
        found = replace(found, plain={"item_id": np.full(len(new), -1)})
        if len(new) == len(rows):
            return found
        both = [_only(self._shown.take(rows[rows >= 0]), own), _only(found, own)]
        order = np.concatenate([np.flatnonzero(rows >= 0), new]).argsort()
        return concat_columns(both).take(order)

    @cached_property
    def _impression_of_item(self) -> np.ndarray:
        items = self._shown.plain("item_id")
        row_of = np.full(self.manifest.items, -1)
        row_of[items] = np.arange(len(items))
        return row_of

    @cached_property
    def times(self) -> DatasetTimes:
        """Reads the times of score requests."""
        return DatasetTimes(self.dataset)

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


def _only(columns: Columns, features: Sequence[str]) -> Columns:
    """The codes of items, and these features."""
    plain = {name: values for name, values in columns.plain.items() if name == "item_id"}
    ids = {name: values for name, values in columns.ids.items() if name in features}
    return Columns(plain, ids, {n: v for n, v in columns.dense.items() if n in features})


def _refuse(missing: Sequence[str], why: str) -> None:
    if missing:
        raise DataError(
            f"columns or features must give the candidate features {missing} ({why}); give them, name "
            "row_ids, or use a run that drops them"
        )

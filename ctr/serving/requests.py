"""Requests of a data set, and batches of one request: the request's side and the candidates' side apart.

R = 1 request, C candidates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ctr.batch import Batch
from ctr.loader import history_lengths
from ctr.loader.collate import Collator
from ctr.loader.columns import Columns, WindowData, read_columns
from ctr.serving.cache import Span
from ctr.tokens.ngram import NgramField
from features.dataset import Dataset, Manifest
from features.errors import DataError


@dataclass(frozen=True)
class Request:
    """One impression request: a user at a moment, with the features and the history of then.

    Args:
        name: identifies its features: the prepared request that they come from, and a fingerprint of those
            that came inside the score request instead.
        columns: of one owner: request_id, user_id, time, start and end of every history, features.
        unknown: names of what the data set does not know of it.
    """

    name: tuple[Hashable, ...]
    columns: Columns
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, columns: Columns) -> Request:
        """A prepared request."""
        return cls((int(columns.plain["request_id"][0]),), columns)

    @property
    def user(self) -> int:
        """Dense code."""
        return int(self.columns.plain["user_id"][0])

    @property
    def time(self) -> int:
        """Seconds."""
        return int(self.columns.plain["time"][0])

    def with_plain(self, **values: int) -> Request:
        """The request with other keys, time or pointers into the event stores."""
        changed = {name: np.array([value]) for name, value in values.items()}
        return replace(self, columns=replace(self.columns, plain={**self.columns.plain, **changed}))


class RequestCollator:
    """Makes the two batches of one request: its own side, and that of its candidates.

    Args:
        dataset: as the run sees it.
        max_len: at most so many of the newest events of a domain; as the run's loader has it.
        ngrams: the run's.
    """

    def __init__(
        self, dataset: Dataset, *, max_len: Mapping[str, int], ngrams: Sequence[NgramField] = ()
    ) -> None:
        self.manifest = dataset.manifest
        _refuse_late_fields(self.manifest)
        self.max_len = history_lengths(self.manifest, max_len)
        stores = {domain: dataset.events(domain) for domain in self.manifest.domains}
        maps = dataset.row_maps
        self._of_request = Collator(
            _view(self.manifest, "request"), stores, self.max_len, ngrams, row_maps=maps
        )
        self._of_candidates = Collator(_view(self.manifest, "candidate"), {}, {}, row_maps=maps)

    def spans(self, request: Request) -> tuple[Span, ...]:
        """Where the history of each domain begins and ends in its store."""
        found = []
        for domain, longest in self.max_len.items():
            stop = int(request.columns.plain[f"end.{domain}"][0])
            found.append((max(int(request.columns.plain[f"start.{domain}"][0]), stop - longest), stop))
        return tuple(found)

    def request_batch(self, request: Request, *, after: Sequence[Span] | None = None) -> Batch:
        """The request without candidates; `after`: only with the events behind these histories."""
        if after is not None:
            starts = {f"start.{d}": stop for d, (_, stop) in zip(self.max_len, after, strict=True)}
            request = request.with_plain(**starts)
        rows = Columns({"row_id": np.empty(0, np.int64), "label": np.empty(0, np.float32)}, {}, {})
        return self._of_request(WindowData(request.columns, rows, np.array([0, 0])), np.array([0]))

    def candidate_batch(self, request: Request, candidates: Columns) -> Batch:
        """C candidates on the request, without its features and histories."""
        keys = {name: request.columns.plain[name] for name in ("request_id", "user_id", "time")}
        count = len(candidates.plain["row_id"])
        plain = {"row_id": candidates.plain["row_id"], "label": np.zeros(count, np.float32)}
        window = WindowData(Columns(keys, {}, {}), replace(candidates, plain=plain), np.array([0, count]))
        return self._of_candidates(window, np.array([0]))

    def appended_later(self, before: Sequence[Span], after: Sequence[Span]) -> bool:
        """Whether `after` is `before` and later events behind it, in the order of all domains together."""
        if any(a[0] != b[0] or a[1] > b[1] for a, b in zip(before, after, strict=True)):
            return False
        clocks = [self._of_request.events[domain].plain["clock"] for domain in self.max_len]
        spans = list(zip(clocks, before, after, strict=True))
        old = [int(clock[b[1] - 1]) for clock, b, _ in spans if b[1] > b[0]]
        new = [int(clock[b[1]]) for clock, b, a in spans if a[1] > b[1]]
        return len(clocks) == 1 or not old or not new or min(new) > max(old)


def _refuse_late_fields(manifest: Manifest) -> None:
    """Keys and values of a history are kept for later requests, which may know more of the same events."""
    late = [f"{d}.{c.name}" for d, info in manifest.domains.items() for c in info.side if c.known_later]
    if late:
        raise DataError(
            f"a run that is served must not read fields that are known later than their events, got {late}; "
            "train one with drop naming them, or score the data set with ctr predict"
        )


def read_requests(dataset: Dataset, split: str) -> tuple[Columns, np.ndarray]:
    """The request columns of a split, and the rows of each request, int64 (requests + 1,)."""
    data, manifest = dataset.split(split), dataset.manifest
    pointers = [f"{side}.{domain}" for domain in manifest.domains for side in ("start", "end")]
    features = [c for c in manifest.features if c.level == "request"]
    return read_columns(
        data.requests, features, ["request_id", "user_id", "time", *pointers]
    ), data.row_offsets


def read_candidates(dataset: Dataset, split: str) -> Columns:
    """The candidate columns of a split, a row per impression."""
    features = [c for c in dataset.manifest.features if c.level == "candidate"]
    return read_columns(dataset.split(split).impressions, features, ["row_id", "item_id"])


def _view(manifest: Manifest, level: Any) -> Manifest:
    """What one side reads: features of one level; domains with the request."""
    features = [c for c in manifest.features if c.level == level]
    domains = manifest.domains if level == "request" else {}
    return manifest.model_copy(update={"features": features, "domains": domains})


def split_requests(dataset: Dataset, split: str) -> Iterator[tuple[Request, Columns]]:
    """Every request of a prepared split with its own candidates, in file order."""
    requests, offsets = read_requests(dataset, split)
    shown = read_candidates(dataset, split)
    for request in range(len(offsets) - 1):
        rows = np.arange(offsets[request], offsets[request + 1])
        yield Request.of(requests.take(np.array([request]))), shown.take(rows)

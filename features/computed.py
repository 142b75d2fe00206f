"""The computed features of a spec: counters, match features and page features (parts of `features.spec`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    """Plain, immutable data; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Counter(Strict):
    """Point-in-time counts and smoothed rates over impressions, strictly before the request.

    rate = (positives + prior · running rate of all impressions) / (count + prior). residual = Σ (label −
    against) / (count + prior): how much better than expected the earlier rows did, `against` being what was
    expected of each (such as count.item.rate). With `value`, a numeric column stands in the label's place.
    For a list column the sums of the row's values are added. `since_*` are seconds, missing without an
    earlier row.
    """

    by: list[str]
    outputs: list[Literal["count", "positives", "rate", "residual", "since_last", "since_first"]] = [
        "count",
        "rate",
    ]
    value: str | None = None  # a numeric column known after the impression, as the label is
    against: str | None = None  # a column of the same scale, such as the rate of an earlier counter
    prior: float = Field(default=20.0, gt=0)
    separator: str | None = None  # for a string column of several values among `by`
    window: Seconds | None = None  # only rows at most this many seconds old

    @model_validator(mode="after")
    def residual_has_expectation(self) -> Counter:
        if ("residual" in self.outputs) != (self.against is not None):
            raise ValueError("output residual and `against` need each other; give both or none")
        return self


class Match(Strict):
    """How a field of the candidate occurs in the user's events of one domain, strictly before the request.

    count, decayed = Σ 2^(−age/half_life), recency (seconds since the last match), last (the newest event
    matches: 0/1), share (of all earlier events), share_old (of events older than `old`), share_recent (of
    events younger than `recent`), count_recent (of the matches younger than `recent`), positive_share
    (matching events with outcome 1, smoothed by one prior event).
    """

    domain: str
    candidate: str
    event: str
    outputs: list[
        Literal[
            "count",
            "decayed",
            "recency",
            "last",
            "share",
            "share_old",
            "share_recent",
            "count_recent",
            "positive_share",
        ]
    ] = ["count", "decayed", "recency", "share_old", "share_recent"]
    half_life: Seconds = 86400.0
    old: Seconds = 30 * 86400.0
    recent: Seconds = 3 * 86400.0
    separator: str | None = None


class Page(Strict):
    """A column compared with the other rows of the same request.

    rank (0 = smallest, ties share the mean), ratio_mean, ratio_min, above (sum over rows at smaller
    position), size.
    """

    column: str
    outputs: list[Literal["value", "rank", "ratio_mean", "ratio_min", "above", "size"]] = [
        "rank",
        "ratio_mean",
    ]

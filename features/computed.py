"""The computed features of a spec (parts of `features.spec`): from counters to crosses and pages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _seconds_of(value: object) -> object:
    """`7d` as seconds; numbers, and what is no duration, as they are."""
    if not isinstance(value, str):
        return value
    number, unit = value.strip()[:-1], value.strip()[-1:]
    try:
        return float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise ValueError(
            "a duration must be a number of seconds, or read like 90s, 30m, 12h, 7d or 2w"
        ) from None


Seconds = Annotated[float, BeforeValidator(_seconds_of), Field(gt=0, allow_inf_nan=False)]


def _of_entity(column: str) -> str:
    """A column of the user or item table, which is one moment for all requests."""
    if column.partition(".")[0] not in ("user", "item"):
        raise ValueError(
            "an age must name a column of the user or item table, such as item.created; from one of the "
            "impressions themselves derive the difference to their time"
        )
    return column


AgeOf = Annotated[str, AfterValidator(_of_entity)]  # a column of moments: seconds from then to the request


COMPUTED = ("count", "match", "pair", "age", "cross", "page")  # prefixes of computed columns


def _several(columns: list[str]) -> list[str]:
    """Columns of a row whose values are crossed."""
    if len(columns) < 2 or len(set(columns)) < len(columns):
        raise ValueError(f"a cross must name two columns or more, each once, got {columns}")
    if computed := [c for c in columns if "." in c and c.partition(".")[0] in COMPUTED]:
        raise ValueError(f"a cross must name columns of the tables, got {computed}, which are computed")
    return columns


CrossOf = Annotated[list[str], AfterValidator(_several)]  # columns: one category for each combination


def kind_of_feature(feature: Any) -> str:
    """Of a feature, or of a field of events, the key that no other kind has, in brackets."""
    there = type(feature).model_fields if isinstance(feature, BaseModel) else feature
    own = ("calendar", "since_previous", "columns") if isinstance(there, dict) else ()
    return next((f"[{key}]" for key in own if key in there), "[column]")


def is_none(value: object) -> bool:
    """For keys that are not written where they say nothing: what is written without them keeps its bits."""
    return value is None


def is_false(value: object) -> bool:
    """The same for flags."""
    return value is False


class Strict(BaseModel):
    """Plain, immutable data; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Counter(Strict):
    """Point-in-time counts and smoothed rates over impressions or events, strictly before the request.

    rate = (positives + prior · running rate of all impressions) / (count + prior). residual = Σ (label −
    against) / (count + prior): how much better than expected the earlier rows did, `against` being what was
    expected of each (such as count.item.rate). With `value`, a numeric column stands in the label's place.
    For a list column the sums of the row's values are added. `since_*` are seconds, missing without an
    earlier row. A label or value that is not known yet is missing: its row counts in `count` and `since_*`
    alone, and `count` in the formulas above is the number of rows with a known one.

    With `over`, the earlier events of a domain are counted, of all users unless `by` names the user: the
    domain's outcome takes the label's place.
    """

    by: list[str]
    outputs: list[Literal["count", "positives", "rate", "residual", "since_last", "since_first"]] = [
        "count",
        "rate",
    ]
    value: str | None = None  # a numeric column known after the impression, as the label is
    against: str | None = None  # a column of the same scale, such as the rate of an earlier counter
    prior: float = Field(default=20.0, gt=0)
    separator: Annotated[str, Field(min_length=1)] | None = None  # of a text column among `by`
    window: Seconds | None = None  # only rows at most this many seconds old
    over: str | None = Field(default=None, exclude_if=is_none)  # a domain; without it the impressions
    event: list[str] | None = Field(default=None, exclude_if=is_none)  # over: the events' columns for `by`

    @property
    def event_by(self) -> list[str]:
        """The key's columns among the events."""
        return self.by if self.event is None else self.event

    @model_validator(mode="after")
    def over_events(self) -> Counter:
        if self.over is None and self.event is not None:
            raise ValueError("event names columns of a domain's events: give `over`, or drop it")
        if len(self.event_by) != len(self.by):
            raise ValueError(f"event must name a column for each of by, got {self.event} for {self.by}")
        if self.over is not None and self.against is not None:
            raise ValueError("against and residual are of impressions; drop them, or `over`")
        return self

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

    With `outcome`, only the events of that outcome are there at all, each from when its outcome is known.
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
    outcome: Literal["positive", "negative"] | None = Field(default=None, exclude_if=is_none)
    separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def share_of_both_outcomes(self) -> Match:
        if self.outcome is not None and "positive_share" in self.outputs:
            raise ValueError(
                f"positive_share compares both outcomes, got outcome {self.outcome!r}; drop one of them"
            )
        return self


class Pair(Strict):
    """What a candidate's value and the values of the user's earlier events told together, strictly before.

    Each value c of the candidate and each value v of the history make a pair (c, v), whatever the two ID
    spaces are. An earlier impression of c whose history then held v in k events counted the pair k times.

    rate = (positives of the pair + prior · rate of c) / (count + prior). lift = rate / rate of c. count.
    ppmi = max(0, log((count + prior) / (count expected by chance + prior))), the positive pointwise mutual
    information. Each is aggregated over the events of the history: mean, max, sum, and decayed = Σ
    2^(−age / half_life) · value.
    """

    candidate: str
    domain: str | None = Field(default=None, exclude_if=is_none)  # whose events are the history
    event: str | None = Field(default=None, exclude_if=is_none)  # their field
    column: str | None = Field(default=None, exclude_if=is_none)  # or: a column of the row, such as a list
    outputs: list[
        Literal[
            "rate_mean",
            "rate_max",
            "rate_sum",
            "rate_decayed",
            "lift_mean",
            "lift_max",
            "lift_sum",
            "lift_decayed",
            "count_mean",
            "count_max",
            "count_sum",
            "count_decayed",
            "ppmi_mean",
            "ppmi_max",
            "ppmi_sum",
            "ppmi_decayed",
        ]
    ] = ["rate_mean", "lift_max", "count_mean", "ppmi_mean"]
    last: Annotated[int, Field(gt=0)] | None = None  # only the newest events, this many
    within: Seconds | None = None  # only events at most this many seconds old
    older: Seconds | None = None  # only events older than this many seconds
    half_life: Seconds = 86400.0
    prior: float = Field(default=20.0, gt=0)
    max_pairs: Annotated[int, Field(gt=0)] = 2**22  # where more are possible, pairs share this many counts
    separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def one_history(self) -> Pair:
        if (self.domain is None) != (self.event is None) or (self.domain is None) == (self.column is None):
            raise ValueError(
                "a pair's history is either `domain` and `event`, or `column`; give one of the two"
            )
        timed = [name for name in ("last", "within", "older") if getattr(self, name) is not None]
        timed += [o for o in self.outputs if o.endswith("_decayed")]
        if self.column is not None and timed:
            raise ValueError(f"a column has no events and times, so {timed} mean nothing; drop them")
        return self


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

"""The one description of a data set: raw tables, features, sequences, label, split, token groups.

A spec is a YAML file; `load_spec` turns it into these classes and refuses unknown keys. `docs/own-data.md`
explains one line by line. Column names in a spec are written

    column            a column of the impression (or, inside a domain, of the event) itself
    user.column       a column of the user entity       item.column     of the item entity
    count.N.M         output M of the counter N         match.N.M       output M of the match feature N
    page.N.M          output M of the page feature N    pair.N.M    output M of the pair statistics N
    age.N             how long ago the moment of age N was, in seconds
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from features.computed import (
    AgeOf,
    Counter,
    CrossOf,
    Match,
    Page,
    Pair,
    Seconds,
    Strict,
    is_none,
    kind_of_feature,
)
from features.errors import ConfigError, explain
from features.known import HasLabels, KnownLater, Label, Sampling, TaskLabel, TaskLabels, is_empty
from features.names import check_name
from features.safe_yaml import dump_yaml, load_yaml
from features.source import Explode, FromList, Source, option

Tick = Annotated[Seconds | None, Field(exclude_if=is_none)]
Where = Annotated[dict[str, list[Any]], Field(default={}, exclude_if=is_empty)]
Names = Annotated[list[str], Field(default=[], exclude_if=is_empty)]
Positive = Annotated[int, Field(gt=0)]
SplitParts = Annotated[
    str, Field(pattern=r"^(train|valid|test)(\+(train|valid|test))*$")
]  # as in train+valid
Needed = dict[str, dict[str, str]]  # table → column → who reads it


class Entity(Strict):
    """A table with one row per user or item."""

    table: str
    key: str


class Impressions(HasLabels):
    """The shown items: one row each."""

    table: str
    user: str
    item: str
    time: str
    label: TaskLabel  # with `labels`, the first of them
    request: str | None = None  # request-ID column; without it a request is one (user, clock)
    context: list[str] = []  # own columns that are the same for all rows of a request (checked)
    position: str | None = None  # the order of the rows inside a request, if logged
    dedup: Literal["error", "keep_first", "allow"] = "error"
    tick: Tick = None  # what the times are rounded down to, where the table does not show it
    where: Where  # keep rows whose column holds one of the values
    outcomes: KnownLater  # columns that are known only after the impression: history, never features
    explode: Explode | None = option(None)  # one line of the table holds all items of a request
    known: Names  # columns known at the request, although a counter or a domain of this table reads them
    labels: TaskLabels  # by task, in order; the first is the label of the log
    sampling: Sampling | None = option(None)  # which rows the log leaves out


class IdTable(Strict):
    """An ID space, hence one embedding table: row 0 = missing, then `oov_rows` unknown rows, then values."""

    encode: Literal["vocabulary", "hash", "quantile", "log"] = "vocabulary"
    min_count: Positive = 1  # vocabulary: rarer values are unknown
    max_size: Positive | None = None  # vocabulary: keep the most frequent
    retire: bool = option(False)  # vocabulary at max_size, `--after`: new values take the rows of unseen ones
    oov_rows: Positive = 1  # vocabulary: unknown values are hashed into this many rows
    rows: Positive | None = None  # hash: number of rows; quantile and log: number of buckets
    log_base: float = Field(default=2.0, gt=1.0)  # log: bucket = floor(log_base(1 + x))

    @model_validator(mode="after")
    def rows_where_needed(self) -> IdTable:
        if (self.rows is None) != (self.encode == "vocabulary"):
            raise ValueError(
                f"rows must be given for hash, quantile and log and only there; encode is {self.encode!r}"
            )
        return self


class IdFeature(Strict):
    """A categorical feature: a column looked up in an ID table."""

    column: str
    table: str
    separator: Annotated[str, Field(min_length=1)] | None = None  # a text column holding several values
    format: Literal["json"] | None = option(None)  # a text column holding a JSON list
    max_values: Positive | None = None  # of a list: keep the first
    weights: str | None = None  # a list column of the same lengths


class CalendarFeature(Strict):
    """Hour of the day or day of the week (UTC plus `offset_hours`) of the request or the event."""

    calendar: Literal["hour", "weekday"]
    offset_hours: float = 0.0


class DenseFeature(Strict):
    """Numeric columns, scaled with values fitted on the training period."""

    columns: list[str]  # names or patterns such as count.user.*
    scale: Literal["none", "standard", "log", "quantile"] = "standard"
    clip: float = Field(default=5.0, gt=0)  # of the scaled value
    # null, NaN and infinite values: 0 with an indicator beside it, or refused
    missing: Literal["indicator", "error"] = option("indicator")


class PlainDense(DenseFeature):
    """A dense feature whose patterns were replaced: its columns are names, whatever characters they hold."""


Feature = Annotated[
    Annotated[IdFeature, Tag("[column]")]
    | Annotated[CalendarFeature, Tag("[calendar]")]
    | Annotated[DenseFeature, Tag("[columns]")],
    Discriminator(kind_of_feature, "kind", "since_previous is of events, as side info of a domain"),
]


class SincePrevious(Strict):
    """Seconds since the user's previous event of the domain, in log buckets."""

    since_previous: Literal[True]
    rows: Positive = 32


SideInfo = Annotated[
    Annotated[IdFeature, Tag("[column]")]
    | Annotated[CalendarFeature, Tag("[calendar]")]
    | Annotated[SincePrevious, Tag("[since_previous]")]
    | Annotated[DenseFeature, Tag("[columns]")],
    Discriminator(kind_of_feature),
]


class Domain(Strict):
    """One kind of behaviour: its events become one sequence."""

    table: str
    user: str
    time: str
    item: str | None = None  # joins the item entity
    where: dict[str, list[Any]] = {}  # keep events whose column holds one of the values
    outcome: Label | None = None  # what makes an event a success; may be missing in an event
    max_len: Positive = 200
    from_list: FromList | None = option(None)  # its events come as lists of the impressions, without times
    tick: Tick = None  # as of the impressions
    known_later: KnownLater  # columns that are known only some time after the event
    side: dict[str, SideInfo]


class Split(Strict):
    """Train, then valid, then test in time; requests stay whole."""

    valid: float | int | str = 0.1  # a share of the rows, or the first time of the part
    test: float | int | str = 0.1
    # edition → a part, or several as in train+valid → how many rows (with explode: lines) its owner publishes
    published: dict[str, dict[SplitParts, Positive]] = option({})


class Spec(Strict):
    """A whole data set."""

    name: str
    source: Source
    time_unit: Literal["s", "ms", "us", "ns", "datetime", "auto"] = "auto"
    # the first and the last time that a log may hold; without it 1990 to the end of next year
    time_range: Literal["any"] | tuple[float | int | str, float | int | str] | None = option(None)
    order: list[str] = []  # tie-breaking columns: strictly before means smaller (time, *order)
    impressions: Impressions
    user: Entity | None = None
    item: Entity | None = None
    tables: dict[str, IdTable] = {}
    features: dict[str, Feature]
    domains: dict[str, Domain] = {}
    counters: dict[str, Counter] = {}
    matches: dict[str, Match] = {}
    pairs: Annotated[dict[str, Pair], Field(default={}, exclude_if=is_empty)]
    ages: Annotated[dict[str, AgeOf], Field(default={}, exclude_if=is_empty)]
    crosses: Annotated[dict[str, CrossOf], Field(default={}, exclude_if=is_empty)]
    pages: dict[str, Page] = {}
    tokens: dict[str, list[str]]  # semantic groups: token name → feature names
    slices: dict[str, str] = {}  # evaluation slices: name → column
    split: Split = Split()

    @model_validator(mode="before")
    @classmethod
    def lists_of_impressions(cls, data: Any) -> Any:
        """Lists without times are those of the impressions: table, user and time need not be said again."""
        try:
            shown = {key: data["impressions"][key] for key in ("table", "user", "time")}
            domains = {n: {**shown, **d} if d.get("from_list") else d for n, d in data["domains"].items()}
        except (KeyError, TypeError, AttributeError):
            return data  # for the checks of the fields
        return {**data, "domains": domains}

    @model_validator(mode="after")
    def consistent(self) -> Spec:
        self._check_names()
        if used := [f.table for f in self._id_features() if f.table not in self.tables]:
            raise ValueError(
                f"every table of a feature must be declared under tables; {sorted(set(used))} are not"
            )
        for token, members in self.tokens.items():
            if unknown := sorted(set(members) - set(self.features)):
                raise ValueError(f"token {token!r} must list features; {unknown} are not features")
        if missing := sorted(set(self.features).difference(*self.tokens.values())):
            raise ValueError(f"features without a token group: {missing}; add each to one, or delete it")
        if self.order and (late := [n for n, t in self.impressions.tasks.items() if t.late]):
            raise ValueError(f"labels with late need times, which an order replaces by ranks; got {late}")
        reads = [(f"match {name!r}", m.domain) for name, m in self.matches.items()]
        reads += [(f"counter {name!r}", c.over) for name, c in self.counters.items() if c.over is not None]
        reads += [(f"pair {name!r}", p.domain) for name, p in self.pairs.items() if p.domain is not None]
        reads += [(f"label {name!r}", rule.domain) for name, rule in self.impressions.from_events.items()]
        for what, domain in reads:
            if domain not in self.domains:
                raise ValueError(f"{what} reads domain {domain!r}; the domains are {sorted(self.domains)}")
        return self

    def _check_names(self) -> None:
        check_name(self.name, "spec name")
        computed = ("counters", "matches", "pairs", "ages", "crosses", "pages")
        for what in ("tables", "features", "domains", *computed, "tokens", "slices"):
            for key in getattr(self, what):
                check_name(key, f"name in {what}")

    def _id_features(self) -> list[IdFeature]:
        every = [*self.features.values(), *(s for d in self.domains.values() for s in d.side.values())]
        return [f for f in every if isinstance(f, IdFeature)]

    def digest(self) -> str:
        """sha256 of the resolved spec; two specs with the same digest describe the same data set."""
        return hashlib.sha256(dump_yaml(self.model_dump(mode="json")).encode()).hexdigest()


def parse_spec(data: dict[str, Any], *, what: str = "spec") -> Spec:
    """Build a Spec from plain data.

    Raises:
        ConfigError: naming every wrong key with the value that came.
    """
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{what} is not valid:\n{explain(error)}") from None


def load_spec(path: Path | str) -> Spec:
    """Read a spec from a YAML file; `extends: NAME` takes what it does not say from NAME.yaml beside it.

    Raises:
        ConfigError: wrong keys, or specs that extend each other in a circle.
    """
    return parse_spec(_extended(Path(path), ()), what=str(path))


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A spec's plain data over that of the spec it extends, which may extend another one."""
    if path in above:
        circle = " → ".join(p.name for p in (*above, path))
        raise ConfigError(f"specs must not extend each other in a circle, got {circle}; delete one extends")
    data = load_yaml(path)
    if "extends" not in data:
        return data
    base = path.with_name(f"{check_name(data.pop('extends'), 'extended spec')}.yaml")
    return _merged(_extended(base, (*above, path)), data)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `base`, mappings key by key; a key of null is deleted.

    Example:
        >>> _merged({"a": {"x": 1, "y": 2}, "b": [3]}, {"a": {"x": None, "z": 4}, "b": [5]})
        {'a': {'y': 2, 'z': 4}, 'b': [5]}
    """
    both = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], dict) and isinstance(own[key], dict):
            both[key] = _merged(base[key], own[key])
    return {key: value for key, value in both.items() if value is not None}

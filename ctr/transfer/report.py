"""What a run took over from the one that it started from, for the terminal, the journal and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

KIND = "init"  # of the journal's row
_MOST = 12  # names in a line


@dataclass(frozen=True)
class TableRows:
    """Rows of a table: taken over, drawn anew, and those of the other run that have no place here."""

    kept: int
    new: int
    dropped: int


@dataclass(frozen=True)
class TakenOver:
    """What became of everything that the other run had learned.

    Args:
        run: the other run's directory.
        from_step: of its checkpoint.
        same_data: whether both were trained on one data set.
        optimizer: `keep` or `drop`, of optimizer state.
        tables: each table here.
        weights: how many dense weights (tensors) were taken over.
        new_weights: those that are drawn anew.
        gone_weights: those that only the other run has.
        gone_tables: tables that only the other run has.
        scales: dense features whose numbers, or tables whose buckets, were fitted otherwise: the same value
            reaches the model as another number or row.
        definitions: features that the spec defines otherwise.
        allowed: what differs and was allowed to, with how.
    """

    run: str
    from_step: int
    same_data: bool
    optimizer: str
    tables: Mapping[str, TableRows]
    weights: int
    new_weights: Sequence[str] = ()
    gone_weights: Sequence[str] = ()
    gone_tables: Sequence[str] = ()
    scales: Sequence[str] = ()
    definitions: Sequence[str] = ()
    allowed: Mapping[str, str] | None = None

    @property
    def kind(self) -> str:
        """Of the journal's row."""
        return KIND

    def to_json(self) -> dict[str, Any]:
        """Plain data: the values of the journal's row."""
        return {**asdict(self), "allowed": dict(self.allowed or {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TakenOver:
        """The inverse of `to_json`; keys of the journal beside it are left out."""
        plain = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**plain, "tables": {t: TableRows(**rows) for t, rows in data["tables"].items()}})

    def lines(self) -> Iterator[str]:
        """Sentences for a person, the most important first."""
        data = "the same data set" if self.same_data else "another data set, rows matched by value"
        state = "kept" if self.optimizer == "keep" else "dropped"
        yield f"started from {self.run}, step {self.from_step} ({data}); optimizer state {state}"
        for table, rows in self.tables.items():
            yield f"table {table}: {rows.kept:,} rows kept, {rows.new:,} new, {rows.dropped:,} dropped"
        others = _and("new", self.new_weights) + _and("gone", self.gone_weights)
        yield f"dense weights: {self.weights} kept{others}"
        if self.gone_tables:
            yield f"tables that are gone: {_names(self.gone_tables)}"
        if self.scales:
            names = _names(self.scales)
            yield f"fitted otherwise, so that a value reaches the model as another number: {names}"
        if self.definitions:
            yield f"defined otherwise by the spec: {_names(self.definitions)}"
        for name, how in (self.allowed or {}).items():
            yield f"allowed: {name} ({how})"


def _and(what: str, names: Sequence[str]) -> str:
    return f", {what}: {_names(names)}" if names else ""


def _names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{', '.join(names[:_MOST])}{rest}"

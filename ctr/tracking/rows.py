"""What a journal row is to MLflow: metrics and parameters. Pure functions that need no mlflow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ctr.runs.journal import RESERVED, Row
from ctr.tracking.address import without_password

MAX_KEY, MAX_PARAM, MAX_DIGEST = 250, 6000, 36
SPECIAL_KINDS = frozenset({"run", "session", "artifact", "model"})  # rows that hold no metrics
MAX_PART = 80
_OUTSIDE = re.compile(r"[^A-Za-z0-9_.:/ -]")


PointIdentity = tuple[int, float | None]


class Point(NamedTuple):
    """One value of a metric: `time_ms` is when the journal got it, `wall` whether it depends on the clock."""

    key: str
    value: float
    time_ms: int
    step: int
    wall: bool

    @property
    def identity(self) -> PointIdentity:
        """What makes it the same point when a resumed run computes it again."""
        return self.step, None if self.wall else self.value


def metric_key(name: str) -> str:
    """The name in the alphabet of metric keys: other characters become their code, empty parts ``_``.

    Example:
        >>> metric_key("test/auc/genre=Film-Noir")
        'test/auc/genre:3d:Film-Noir'
    """
    return shortened("/".join(_safe(part) for part in name.split("/")), MAX_KEY)


def key_part(text: str) -> str:
    """Any text as one part of a metric key: different texts stay different, however long they are.

    Example:
        >>> key_part("a/b:c"), key_part(""), len(key_part("x" * 300))
        ('a:2f:b:3a:c', '_', 80)
    """
    if text in ("_", ".", ".."):  # what an empty part and steps of a path would become
        return "".join(f":{ord(character):x}:" for character in text)
    return shortened(_safe(text.replace(":", ":3a:").replace("/", ":2f:")), MAX_PART)


def _safe(part: str) -> str:
    safe = _OUTSIDE.sub(lambda match: f":{ord(match[0]):x}:", part)
    return "_" if safe in ("", ".", "..") else safe


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and a fingerprint of the whole.

    Example:
        >>> shortened("abcdefghijklmnop", 12)
        'abc-f39dac6c'
    """
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def points(row: Row) -> Iterator[Point]:
    """The numbers of a row as ``kind/name``, those under ``wall`` too; the rest stays in the journal.

    A row that holds figures of parts of a split, such as its slices (`ctr.report.figures`), gives
    ``<split>_<kind>/<name>/<figure>``; the parts of a name may be any text.

    Example:
        >>> row = {"kind": "best", "step": 3, "auc": 0.75, "note": "x", "wall": {"time": 1.5, "seconds": 9}}
        >>> [(p.key, p.value, p.time_ms) for p in points(row)]
        [('best/auc', 0.75, 1500), ('best/seconds', 9.0, 1500)]
        >>> part = {"name": ["brand", "A/B"], "figures": {"auc": 0.7}}
        >>> row = {"kind": "slices", "step": 3, "split": "test", "parts": [part], "wall": {"time": 1.5}}
        >>> [p.key for p in points(row)]
        ['test_slices/brand/A:2f:B/auc']
    """
    if row["kind"] in SPECIAL_KINDS:
        return
    time_ms = int(row["wall"]["time"] * 1000)
    if "parts" in row:
        for part in row["parts"]:
            head = "/".join(key_part(name) for name in (f"{row['split']}_{row['kind']}", *part["name"]))
            for name, value in part["figures"].items():
                if isinstance(value, int | float):
                    yield Point(metric_key(f"{head}/{name}"), float(value), time_ms, row["step"], False)
        return
    values = {key: value for key, value in row.items() if key not in RESERVED}
    clock = {key: value for key, value in row["wall"].items() if key != "time"}
    for part, wall in ((values, False), (clock, True)):
        for name, value in flatten(part, separator="/"):
            if isinstance(value, int | float):
                yield Point(metric_key(f"{row['kind']}/{name}"), float(value), time_ms, row["step"], wall)


def params(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested config as flat text parameters, cut to MLflow's limits, without passwords in addresses.

    Example:
        >>> params({"model": {"width": 64, "tables": [1, 2]}, "uri": "http://me:pass@host/x"})
        {'model.width': '64', 'model.tables': '[1, 2]', 'uri': 'http://host/x'}
    """
    return {
        metric_key(name): cut(without_password(str(value)), MAX_PARAM)
        for name, value in flatten(config, separator=".")
    }


def cut(text: str, limit: int) -> str:
    """The text, or its beginning with an ellipsis if it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def flatten(value: Mapping[str, Any], *, separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with their joined names; lists and empty mappings are leaves."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flatten(item, separator=separator, prefix=f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", item

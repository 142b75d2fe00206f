"""Whether the windows of counters and matches fit into the time that the log covers.

A spec's defaults are made for months of behaviour: in three weeks no event is ever older than 30 days, so
that the share among the old ones is 0 for every row, and the model never hears of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from features.doctor.opened import CheckResult, Opened
from features.names import under
from features.safe_yaml import load_yaml
from features.spec import Counter, Match, parse_spec

_DAY = 86_400.0


def windows_fit(opened: Opened) -> CheckResult:
    """No window or border in time lies beyond all that training has seen."""
    path = under(opened.data.root, "spec.yaml")
    if not path.is_file():
        return "pass", "no spec is kept with the data set"
    spec = parse_spec(load_yaml(path), what=str(path))
    found = [problem for name, m in spec.matches.items() for problem in _of_match(opened, name, m)]
    found += [problem for name, c in spec.counters.items() for problem in _of_counter(opened, name, c)]
    return ("warn", "; ".join(found)) if found else ("pass", "")


def _of_match(opened: Opened, name: str, match: Match) -> Iterator[str]:
    span = _span(opened, match.domain)
    if span is None:
        return
    recent = [o for o in match.outputs if o in ("share_recent", "count_recent")]
    for outputs, option, seconds, what in (
        ([o for o in match.outputs if o == "share_old"], "old", match.old, "always 0"),
        (recent, "recent", match.recent, "of all events"),
    ):
        if outputs and seconds >= span:
            told = f"{option} is {_days(seconds)}, and training sees {_days(span)} of {match.domain}"
            yield f"match {name}: {', '.join(outputs)} is {what}, since {told}"


def _of_counter(opened: Opened, name: str, counter: Counter) -> Iterator[str]:
    span = _span(opened, counter.over)
    if counter.window is not None and span is not None and counter.window >= span:
        window, seen = _days(counter.window), _days(span)
        yield f"counter {name}: a window of {window} holds everything, since training sees {seen}"


def _span(opened: Opened, domain: str | None) -> float | None:
    """Seconds from the first event of a domain, or impression, to the last training request, if known."""
    period = opened.splits["train"].info.time_range
    if period is None:
        return None
    if domain is None:
        return float(period[1] - period[0])
    store = opened.events.get(domain)
    if store is None or not store.info.timed or not len(store.time):
        return None
    return float(period[1] - store.time.min())


def _days(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> _days(30 * 86_400), _days(5_400)
        ('30 days', '1.5 hours')
    """
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.3g} days"
    return f"{seconds / 3600:.3g} hours"

"""What cannot be asked of histories without times."""

from __future__ import annotations

from collections.abc import Iterator

from features.errors import ConfigError
from features.read.columns import feature_columns, origin
from features.read.problems import Problems
from features.spec import CalendarFeature, Domain, SincePrevious, Spec

UNTIMED_OUTPUTS = ("count", "last", "share")  # of matches


def refuse_times(spec: Spec) -> None:
    """Refuse what needs the times of events of domains whose events come as lists.

    Raises:
        ConfigError: naming all that needs them.
    """
    problems = Problems()
    for name, domain in spec.domains.items():
        if domain.from_list is not None:
            for reason in _reasons(spec, name, domain):
                with problems.collect():
                    raise ConfigError(f"domain {name!r} holds lists without times: {reason}")
    problems.raise_all()


def _reasons(spec: Spec, name: str, domain: Domain) -> Iterator[str]:
    shown = spec.impressions
    for key in ("table", "user", "time"):
        if getattr(domain, key) != getattr(shown, key):
            yield f"its {key} must be that of the impressions, {getattr(shown, key)!r}; leave it out"
    if domain.item is None:
        yield "item must name the column that the lists' values become; give it"
    for key in ("where", "outcome", "known_later", "tick"):
        if getattr(domain, key):
            yield f"{key} cannot be said of their events; delete it"
    for side, feature in domain.side.items():
        if isinstance(feature, CalendarFeature | SincePrevious):
            yield f"side {side!r} needs the times of events; delete it"
        own = [c for c in feature_columns(feature) if origin(c)[0] == "own" and c != domain.item]
        if own:
            yield f"side {side!r} reads {own}, but an event has its item alone, {domain.item!r} and item.*"
    for match_name, match in spec.matches.items():
        timed = [o for o in match.outputs if o not in UNTIMED_OUTPUTS]
        if match.domain == name and timed:
            yield f"match {match_name!r} can have outputs {list(UNTIMED_OUTPUTS)}, not {timed}"
        if match.domain == name and match.outcome is not None:
            yield f"match {match_name!r} would be of one outcome, which they have not; delete it"
    for pair_name, pair in spec.pairs.items():
        asked = [k for k in ("within", "older") if getattr(pair, k) is not None]
        if pair.domain == name and (asked := [*asked, *(o for o in pair.outputs if o.endswith("_decayed"))]):
            yield f"pair {pair_name!r} cannot have {asked}; delete them"
    for counter_name, counter in spec.counters.items():
        if counter.over == name:
            yield f"counter {counter_name!r} would count over them from a time on; count over impressions"

"""The shape of a data set: domains, columns, vocabularies, requests.

The default is the competition's: four behaviour domains of 7, 12, 7 and 9 fields of side information, 40
features of the user, 14 of the item, two dense vectors, requests of five rows, and 2.5 M embedding rows
(158 M parameters at width 64). Vocabulary sizes are those of its schema, without fields of over a million
values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class DomainShape:
    """One behaviour domain."""

    length: int  # the most events of a request
    tables: tuple[int, ...]  # rows of the table of each field of side information


def _competition() -> dict[str, DomainShape]:
    return {
        "a": DomainShape(256, (19, 12, 1018, 3450, 15147, 9213, 18)),
        "b": DomainShape(256, (28, 734, 2691, 10490, 7239, 638924, 30, 164032, 168, 4320, 11781, 288959)),
        "c": DomainShape(512, (75, 858, 7086, 7, 4, 3004, 9975)),
        "d": DomainShape(512, (5, 975, 3420, 11298, 5106, 510191, 674034, 603, 15)),
    }


@dataclass(frozen=True)
class Shape:
    """Sizes of a synthetic data set.

    `fill` is the mean history over the longest: lengths are uniform between 2 fill − 1 and 1 of the domain's.
    IDs are skewed: ⌊rows · u^skew⌋ with u uniform; 4 makes about a quarter of a batch's IDs unique.
    """

    domains: dict[str, DomainShape] = field(default_factory=_competition)
    fill: float = 0.7
    requests: int = 200
    rows_per_request: int = 5
    request_ids: tuple[int, ...] = (1840, 987, 1172, 2844, 1435, 558, 443, 251) + (16,) * 32
    candidate_ids: tuple[int, ...] = (326, 978, 2807, 2432, 38, 310, 32506, 2778, 9, 35260, 3, 32, 227, 1002)
    request_dense: tuple[int, ...] = (256, 320)
    tokens: int = 8  # token groups (M), two of them of the candidate
    skew: float = 4.0
    shared: dict[str, str] = field(
        default_factory=dict
    )  # feature of the item → an event's field whose IDs it has

    def longer(self, factor: int) -> Shape:
        """The same with histories `factor` times as long."""
        domains = {n: replace(d, length=d.length * factor) for n, d in self.domains.items()}
        return replace(self, domains=domains)

    def single(self, length: int, *, side: int = 7) -> Shape:
        """One domain of the given length, full histories, a few features, one row a request."""
        tables = (19, 12, 1018, 3450, 15147, 9213, 18, 10490, 4320)[:side]
        return replace(
            self,
            domains={"a": DomainShape(length, tables)},
            fill=1.0,
            request_ids=(1840, 16, 16, 16, 16),
            candidate_ids=(326, 978, 38),
            request_dense=(8,),
            rows_per_request=1,
        )

    def small(self) -> Shape:
        """A few rows in small tables and short histories: for tests and loss curves."""
        domains = {
            n: DomainShape(d.length // 16, tuple(min(t, 500) for t in d.tables[:3]))
            for n, d in self.domains.items()
        }
        return replace(
            self,
            domains=domains,
            request_ids=(184, 98, 16, 16, 16),
            candidate_ids=(326, 97, 38),
            request_dense=(4,),
        )

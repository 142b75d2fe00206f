"""What events and candidates have in common: rows of one embedding table, side by side for both.

    s(event) = [e_1 … e_P]     s(candidate) = [c_1 … c_P]      e_p and c_p come from one table

Their tokens are images by maps that know nothing of each other, and a hash of tokens trains none of them to
meet. So what is hashed is this: where the candidate's IDs are the event's, both vectors are equal from the
first step on. A list of IDs is its (weighted) mean, as everywhere; an ID that the table does not know is the
row of unknown IDs; a field with n-grams is its own row. No gradient flows back.

B candidates, ΣL events of all requests, P pairs of fields, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctr.batch import Batch, IdColumn
from ctr.tokens.features import UniqueRows, look_up
from features.dataset import Column, Manifest
from features.errors import ConfigError


def shared_fields(manifest: Manifest, domain: str) -> list[tuple[Column, Column]]:
    """Each field of a domain's events with the candidates' feature of its table, in the order of the fields.

    Of several such features it is the one of the same name, or else of the same kind, or else the first.
    """
    own = [c for c in manifest.features if c.level == "candidate" and c.kind != "dense"]
    pairs = []
    for field in manifest.domains[domain].side:
        of_table = [c for c in own if field.kind != "dense" and c.table == field.table]
        if of_table:
            pairs.append((field, min(of_table, key=lambda c: (c.name != field.name, c.kind != field.kind))))
    return pairs


@dataclass(frozen=True)
class SharedRows:
    """The vectors s of one domain's events and of candidates.

    Args:
        domain: of the events.
        pairs: fields of events and features of candidates, see `shared_fields`.
    """

    domain: str
    pairs: list[tuple[Column, Column]]

    @classmethod
    def of(cls, manifest: Manifest, domain: str) -> SharedRows:
        """Those of a domain of a data set.

        Raises:
            ConfigError: no field of its events shares its table with a feature of candidates.
        """
        if pairs := shared_fields(manifest, domain):
            return cls(domain, pairs)
        own = [c for c in manifest.features if c.level == "candidate"]
        raise ConfigError(
            "model.sequence hashes rows of the tables that events and candidates share, and the events of "
            f"{domain!r} share none: theirs are {_tables(manifest.domains[domain].side)}, the candidates' "
            f"{_tables(own)}; leave the domain out (drop: [{domain}]), give both one table in the spec, or "
            "choose another model.sequence.kind"
        )

    def width(self, dim: int) -> int:
        """P · E, with E = `dim`."""
        return len(self.pairs) * dim

    def of_events(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """(ΣL, P · E)."""
        return _side_by_side([field for field, _ in self.pairs], batch.sequences[self.domain].ids, rows)

    def of_candidates(self, batch: Batch, rows: UniqueRows) -> Tensor:
        """(B, P · E)."""
        return _side_by_side([feature for _, feature in self.pairs], batch.candidate_ids, rows)


def _side_by_side(columns: list[Column], ids: Mapping[str, IdColumn], rows: UniqueRows) -> Tensor:
    return torch.cat([look_up(rows[str(c.table)].detach(), ids[c.name]) for c in columns], dim=-1)


def _tables(columns: list[Column]) -> list[str]:
    return sorted({str(c.table) for c in columns if c.kind != "dense"})

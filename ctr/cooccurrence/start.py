"""Give fresh tables their start from co-occurrence: nothing but initial values changes.

1. Every feature of the candidate is held against every field of the histories; a field is linked to the
   tables of the features that tell more of it than `min_gain`, as one half of the users tells of the other.
2. Linked tables get vectors in one space (`vectors`): a candidate's value lies near the histories' values
   that it meets more often than by chance, whatever their numbers. Little evidence leaves a row random.
3. The maps of these tables into tokens, and queries and keys, start equal (`ctr.models.aligned`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ctr.config import PmiStart, RunConfig
from ctr.cooccurrence.links import Link, link_of
from ctr.cooccurrence.meetings import candidates_and_fields
from ctr.cooccurrence.vectors import Weighted, linked_vectors
from ctr.distributed.shards import as_sharded
from ctr.embedding import EmbeddingTables
from ctr.models.aligned import align
from ctr.training.state import TrainingState
from features.dataset import Dataset
from features.errors import ConfigError

_SPACE = "co-occurrence"


@dataclass(frozen=True)
class Placed:
    """What was linked: field → (table of the candidate, nats a meeting), the most first, and the tables."""

    links: Mapping[str, tuple[str, float]]
    tables: list[str]

    @property
    def kind(self) -> str:
        """Of the journal's row."""
        return "pmi_start"

    def to_json(self) -> dict[str, Any]:
        """The values of the journal's row."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        yield f"start from co-occurrence: {len(self.tables)} tables in one space"
        for field, (table, gain) in self.links.items():
            yield f"  {field} tells {gain:.4f} nats of {table}"


def start_from_cooccurrence(state: TrainingState, config: RunConfig, dataset: Dataset) -> Placed | None:
    """Give a fresh state the start of `embedding.pmi_start`; every rank does the same to what it holds.

    Args:
        state: fresh.
        config: of the run.
        dataset: of the run, as it sees it.

    Returns:
        What was linked; None where the configuration asks for no such start.

    Raises:
        ConfigError: nothing is linked, or a linked table is one of `embedding.restart`.
    """
    start = config.embedding.pmi_start
    if start is None:
        return None
    links = _links(start, config, dataset)
    vectors = linked_vectors(
        links, dim=config.embedding.dim, prior=start.prior, shift=start.shift, seed=config.seed
    )
    if again := sorted(set(vectors) & set(config.embedding.restart)):
        raise ConfigError(
            f"embedding.restart draws {again} anew, which would lose their start from co-occurrence; take "
            "them out of restart, or drop pmi_start"
        )
    place(state.tables, vectors, random=start.random)
    if start.align:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            align(state.model, dict.fromkeys(vectors, _SPACE))
        if state.averaged is not None:
            state.averaged.load(dict(state.model.named_parameters()))
    best = sorted(links, key=lambda link: -link.gain)
    told = {link.field: (link.candidate, link.gain) for link in reversed(best)}
    return Placed(dict(sorted(told.items(), key=lambda item: -item[1][1])), sorted(vectors))


def _links(start: PmiStart, config: RunConfig, dataset: Dataset) -> list[Link]:
    """All links that gain enough."""
    tables = dataset.manifest.tables
    sizes, first = {n: t.rows for n, t in tables.items()}, {n: 1 + t.oov_rows for n, t in tables.items()}
    splits = config.train.data.split("+")
    candidates, fields = candidates_and_fields(dataset, splits, rows=start.rows, last=start.last)
    of_candidates = set(candidates.tables.values())
    links = [
        link
        for field in fields
        if field.table not in of_candidates  # one table is one space already
        for feature in candidates.tables
        if (link := link_of(candidates, feature, field, sizes, first, prior=start.prior)).gain
        >= start.min_gain
    ]
    if not links:
        raise ConfigError(
            f"embedding.pmi_start found no field of histories that tells {start.min_gain:g} nats of a "
            "candidate's feature in another table; lower min_gain, or drop pmi_start"
        )
    return links


@torch.no_grad()
def place(tables: EmbeddingTables, vectors: Mapping[str, Weighted], *, random: float) -> None:
    """Turn rows towards their vectors: row ← a · v / |v| + b · row, of the length that rows start with.

    a² + b² = 1 in units of that length; a² = (1 − random) · min(1, |v| / typical |v|)², so that a value with
    little evidence keeps its random row.
    """
    state, length = tables.state(), tables.config.init_std * tables.dim**0.5
    for table, (vector, weight) in vectors.items():
        norm = np.sqrt((vector**2).sum(1))
        typical = np.average(norm, weights=weight) if weight.any() else 1.0
        trust = np.minimum(norm / max(typical, 1e-12), 1.0) ** 2 * (1 - random)
        pointed = vector / np.maximum(norm, 1e-12)[:, None] * (length * np.sqrt(trust))[:, None]
        turned = np.zeros((len(vector), tables.dim))
        turned[:, : vector.shape[1]] = pointed
        for (row, column), part in as_sharded(state[f"{table}.weight"]).parts:
            rows, wide = slice(row, row + part.shape[0]), slice(column, column + part.shape[1])
            part.mul_(torch.from_numpy(np.sqrt(1 - trust[rows])).to(part)[:, None])
            part.add_(torch.from_numpy(turned[rows, wide]).to(part))

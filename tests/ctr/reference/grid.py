"""The grid for one row: its sides and its interaction put together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from features.dataset import Manifest
from tests.ctr.reference.formulas import linear, norm
from tests.ctr.reference.interactions import INTERACTIONS
from tests.ctr.reference.sides import SIDES, Row
from tests.ctr.reference.tokens import embedding, ns_tokens, sequences


def shared_rows(
    manifest: Manifest, domain: str, batch: Batch, rows: dict[str, Tensor], part: slice, row: int
) -> tuple[list[Tensor], Tensor]:
    """Of the events at `part` and of the candidate: their embeddings of the tables that both have."""
    own = {c.table: c for c in manifest.features if c.level == "candidate" and c.table}
    both = [(c, own[c.table]) for c in manifest.domains[domain].side if c.table in own]
    of_events = [
        torch.cat(
            [embedding(batch.sequences[domain].ids[c.name], rows[str(c.table)], event) for c, _ in both]
        )
        for event in range(part.start, part.stop)
    ]
    return of_events, torch.cat(
        [embedding(batch.candidate_ids[c.name], rows[str(c.table)], row) for _, c in both]
    )


def grid(model: nn.Module, manifest: Manifest, batch: Batch, rows: dict[str, Tensor], row: int) -> Tensor:
    """ctr.models.grid, one row."""
    from tests.ctr.reference.models import head

    request = int(batch.request_index[row])
    features = ns_tokens(model.ns_tokenizer, manifest, batch, rows, row)
    query = norm(model.ask_norm, linear(model.ask, features[model.asking].flatten()))
    read = []
    found = sequences(model.sequence_tokenizers, manifest, batch, rows, request)
    for domain, events, side in zip(manifest.domains, found, model.sides, strict=True):
        sequence = batch.sequences[domain]
        part = slice(int(sequence.offsets[request]), int(sequence.offsets[request + 1]))
        same = torch.zeros(len(events), dtype=torch.bool)
        if (field := model.config.sequence.field) is not None:
            same = (
                sequence.ids[field].inverse_indices[part] == batch.candidate_ids["item"].inverse_indices[row]
            )
        gaps = sequence.time_gap[part] * model.config.time_gaps
        hashed = (
            shared_rows(manifest, domain, batch, rows, part, row) if model.config.sequence.hashes else None
        )
        given = Row(events, gaps, query, features, same, hashed)
        given.config = model.config.sequence
        made = SIDES[model.config.sequence.kind](side, given)
        read.append(made.view(-1, len(query)))
    crossed = model.config.interaction
    tokens = INTERACTIONS[crossed.kind](model.interaction, torch.cat([*read, features]), crossed)
    return head(model.head, tokens, manifest, batch, rows, row)

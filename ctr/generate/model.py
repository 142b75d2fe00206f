"""A language model over the semantic IDs of a user's events, trained to continue them.

    batch of the loader ─► prompt: BOS, tokens of the history's items, oldest first ─► logits of what follows
                           (padded in front)                                           its target comes last

R requests, ΣL events of all, C tokens of one item, T tokens of a padded prompt, V vocabulary, n predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctr.batch import Batch, IdColumn
from ctr.generate.config import GenerateConfig, GeneratorConfig
from ctr.generate.semantic_ids import BOS, PAD, SemanticIds
from ctr.library.architectures import GENERATOR_KEYS, BodySizes
from ctr.library.transformers import build_language_model
from ctr.tokens.filter import column_scores, mask_loss
from features.dataset import Manifest
from features.errors import ConfigError


@dataclass(frozen=True)
class Prompt:
    """The histories of a batch as tokens."""

    tokens: Tensor  # int64 (R, T), padded in front
    filtered: Tensor  # bool (R, T): of events that are not to be learned


@dataclass(frozen=True)
class Predictions:
    """What was predicted, token by token."""

    losses: Tensor  # (n,) −log p
    filtered: Tensor  # bool (n,)
    of_target: Tensor  # bool (n,): of the request's target, not of its history


class NextBehaviour(nn.Module):
    """Called by the training as `model(batch, rows)`: the loss of one event, in nats.

    Args:
        manifest: of the data set.
        config: `generator` and the lengths of histories.
        ids: the items' tokens, which become part of the saved state.

    Raises:
        ConfigError: names that the data set does not have, or tables that differ.
    """

    codes: Tensor

    def __init__(self, manifest: Manifest, config: GenerateConfig, ids: SemanticIds) -> None:
        super().__init__()
        self.config = config.generator
        self.table = _item_table(manifest, self.config, config.ids.table)
        self.length = ids.length
        stored = manifest.domains[self.config.domain].max_len
        events = config.loader.max_len.get(self.config.domain, stored)
        self.register_buffer("codes", ids.tokens.clone())
        self.longest = 1 + (events + 1) * ids.length  # tokens that there are positions for
        self.lm = _language_model(self.config, ids, longest=self.longest)
        self.both_sides = bool(self.lm.config.is_encoder_decoder)

    def forward(self, batch: Batch, rows: dict[str, Tensor]) -> Tensor:
        """The mean loss of what may be learned, per event: −log p of an item given the events before it."""
        found = self.predictions(batch)
        return mask_loss(found.losses, found.filtered) * self.length

    def predictions(self, batch: Batch) -> Predictions:
        """The loss of every token that follows something; a history's first item follows BOS."""
        prompt, target = self.prompt(batch), self.codes[self.target_items(batch)]
        # Whether a filter would let the target through is not known: it stands among no events yet.
        dropped = torch.full_like(target, self.config.token_filter.mode == "mask_loss", dtype=torch.bool)
        own = torch.ones_like(dropped)
        if self.both_sides:
            begin = target.new_full((len(target), 1), BOS)
            given = torch.cat([begin, target[:, :-1]], 1).masked_fill(target == PAD, PAD)
            mask = (prompt.tokens != PAD).long()
            logits = self.lm(input_ids=prompt.tokens, attention_mask=mask, decoder_input_ids=given).logits
            return _predictions(logits, target, dropped, own)
        tokens = torch.cat([prompt.tokens, target], 1)
        filtered = torch.cat([prompt.filtered, dropped], 1)
        of_target = torch.cat([torch.zeros_like(prompt.filtered), own], 1)
        # Padding is moved behind the tokens: no mask is needed, and positions count from the oldest event.
        begins = (tokens != PAD).long().argmax(1, keepdim=True)
        source = (torch.arange(tokens.shape[1], device=tokens.device) + begins) % tokens.shape[1]
        tokens, filtered, of_target = (part.gather(1, source) for part in (tokens, filtered, of_target))
        logits = self.lm(input_ids=tokens[:, :-1], use_cache=False).logits
        return _predictions(logits, tokens[:, 1:], filtered[:, 1:], of_target[:, 1:])

    def prompt(self, batch: Batch) -> Prompt:
        """The histories' tokens; events whose item has no semantic ID are left out."""
        events = batch.sequences[self.config.domain]
        codes = self.codes[self._rows(batch, events.ids[self.config.event])]
        known = codes[:, 0] != PAD
        lengths = events.offsets.diff()
        requests = torch.arange(len(lengths), device=lengths.device)
        request = torch.repeat_interleave(requests, lengths)[known]
        count = torch.bincount(request, minlength=len(lengths))
        longest = int(count.max()) if len(count) else 0
        # The newest event comes to lie at the end.
        column = torch.arange(len(request), device=request.device) - (count.cumsum(0) - longest)[request]
        tokens = codes.new_full((len(lengths), longest, self.length), PAD)
        tokens[request, column] = codes[known]
        filtered = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
        filtered[request, column] = self._filtered(batch)[known]
        begin = codes.new_full((len(lengths), 1 + longest * self.length), PAD)
        begin[:, 1:] = tokens.flatten(1)
        begin[requests, (longest - count) * self.length] = BOS
        spread = F.pad(filtered.repeat_interleave(self.length, 1), (1, 0))
        return Prompt(begin, spread)

    def candidate_items(self, batch: Batch) -> Tensor:
        """(B,): the item of each candidate that counts as a next behaviour, 0 for the others."""
        rows = self._rows(batch, batch.candidate_ids[self.config.candidate])
        return rows if self.config.targets == "shown" else torch.where(batch.label > 0, rows, 0)

    def target_items(self, batch: Batch) -> Tensor:
        """(R,): each request's first target that has a semantic ID, 0 where there is none."""
        items = self.candidate_items(batch)
        good = (self.codes[items, 0] != PAD).nonzero()[:, 0]
        first = batch.request_index.new_full((batch.num_requests,), batch.num_rows)
        first.scatter_reduce_(0, batch.request_index[good], good, "amin")
        return F.pad(items, (0, 1))[first]

    def _filtered(self, batch: Batch) -> Tensor:
        events, config = batch.sequences[self.config.domain], self.config.token_filter
        if config.mode == "off":
            return torch.zeros_like(events.time_gap, dtype=torch.bool)
        return column_scores(events, config.by) > config.threshold

    def _rows(self, batch: Batch, column: IdColumn) -> Tensor:
        return batch.unique_ids[self.table][column.inverse_indices]


def _predictions(logits: Tensor, wanted: Tensor, filtered: Tensor, of_target: Tensor) -> Predictions:
    there = wanted != PAD
    losses = F.cross_entropy(logits[there].float(), wanted[there], reduction="none")
    return Predictions(losses, filtered[there], of_target[there])


def _language_model(config: GeneratorConfig, ids: SemanticIds, *, longest: int) -> Any:
    hidden = max(1, round(config.d_model * config.expansion))
    sizes = BodySizes(config.d_model, config.heads, hidden, longest, config.dropout, GENERATOR_KEYS)
    options = {"num_hidden_layers": config.layers, **config.options}
    return build_language_model(
        config.architecture, sizes, options, vocabulary=ids.vocabulary, pad=PAD, start=BOS
    )


def _item_table(manifest: Manifest, config: GeneratorConfig, table: str) -> str:
    """The ID space that events and candidates share with the semantic IDs."""
    domain = manifest.domains.get(config.domain)
    events = {c.name: c.table for c in domain.side if c.kind == "id"} if domain else {}
    shown = {c.name: c.table for c in manifest.features if c.level == "candidate" and c.kind == "id"}
    if events.get(config.event) != table or shown.get(config.candidate) != table:
        raise ConfigError(
            f"generator.domain, event and candidate must name a field of events and a feature of candidates "
            f"in ids.table {table!r}, got {config.domain!r}, {config.event!r}, {config.candidate!r}; domains "
            f"are {sorted(manifest.domains)}, its fields {events}, features {shown}"
        )
    return table

"""Whole models in plain torch: a batch and the tables' weights to logits (B,).

B candidates, M ns tokens, N query tokens, L events, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.bench.plain.attending import ATTENDING, click_loss
from ctr.bench.plain.data import PlainBatch
from ctr.bench.plain.interactions import INTERACTIONS, rank_mixer_layer
from ctr.bench.plain.layers import (
    after,
    at,
    attention,
    before,
    behind_padding,
    ffn,
    heads_attention,
    lengths,
    linear,
    mix,
    per_token,
    per_token_ffn,
    stack,
    swiglu,
    transformer_layer,
)  # fmt: skip
from ctr.bench.plain.pooled import POOLED, Seen, next_event_loss
from ctr.bench.plain.tokens import Tables, event_contents, event_tokens, hashed_rows, merged, ns_tokens
from ctr.bench.plain.tower import hstu_layers, tower

SIDES = {**POOLED, **ATTENDING}
LogitsAndLoss = tuple[Tensor, Tensor | None]  # logits (B,), and a loss of the model's own (B,)


def grid(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """A side for each domain, then the interaction."""
    manifest, config = model.manifest, model.config
    features = ns_tokens(model.ns_tokenizer, manifest, batch, tables)
    query = model.ask_norm(linear(model.ask, features[:, model.asking].flatten(1)))
    read, losses = [], []
    tokenizers = model.sequence_tokenizers.tokenizers
    named = zip(manifest.domains, tokenizers, model.sides, model.compared, model.shared, strict=True)
    for domain, tokenizer, side, compared, shared in named:
        own = batch.events[domain]
        same = None
        if compared is not None:
            same = own.ids[compared[0].name].rows == batch.ids[compared[1].name].rows[:, None]
        gaps = own.gap * config.time_gaps
        learns = model.training and config.sequence.contents
        contents = event_contents(tokenizer, own, tables) if learns else None
        hashed = None if shared is None else hashed_rows(shared.pairs, own, batch, tables)
        tokens = event_tokens(tokenizer, own, tables)
        seen = Seen(tokens, own.mask, gaps, query, features, same, contents, hashed)
        made = SIDES[config.sequence.kind](side, seen)
        read.append(made if made.dim() == 3 else made[:, None])
        if model.training:
            losses += _own_losses(config.sequence, side, seen, batch.label)
    tokens = INTERACTIONS[config.interaction.kind](model.interaction, torch.cat([*read, features], dim=1))
    return head(model.head, tokens), torch.stack(losses).mean(dim=0) if losses else None


def _own_losses(config: Any, side: Any, seen: Seen, label: Tensor) -> list[Tensor]:
    if config.kind == "dien" and config.auxiliary:
        return [next_event_loss(side, seen)]
    if config.kind == "search" and side.search_query is not None and config.loss:
        return [click_loss(side, seen, label)]
    return []


def hyformer(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """Queries read their sequences and mix with the features, layer by layer."""
    config, block = model.config, model.sequence_tokenizers
    if config.merge_sequences:
        tokens, mask, _ = merged(block, batch, tables)
        sequences, masks = [tokens], [mask]
    else:
        own = [batch.events[name] for name in block.domains]
        sequences = [event_tokens(t, e, tables) for t, e in zip(block.tokenizers, own, strict=True)]
        masks = [e.mask for e in own]
    start = features = ns_tokens(model.ns_tokenizer, model.manifest, batch, tables)
    queries = _generated(model.generation, features, sequences, masks)
    for layer in model.layers:
        encoded, seen = [], []
        for encoder, events, mask in zip(layer.encoders, sequences, masks, strict=True):
            made, there = _encoded(encoder, events, mask)
            encoded.append(made)
            seen.append(there)
        parts = zip(
            layer.decoding.layers, queries.split(layer.decoding.queries, 1), encoded, seen, strict=True
        )
        both = torch.cat([*(_decoded(*part) for part in parts), features], dim=1)
        around = layer.boosting.around
        boosted = after(around, both, per_token_ffn(layer.boosting.ffn, mix(before(around, both))))
        queries, top = boosted.tensor_split([queries.shape[1]], dim=1)
        features = top if config.update_ns_tokens else start
        if config.encoder_input == "previous":
            sequences, masks = encoded, seen
    return head(model.head, queries if config.head_reads == "queries" else boosted), None


def _generated(block: Any, features: Tensor, sequences: list[Tensor], masks: list[Tensor]) -> Tensor:
    """The queries (B, N, D): a network of its own each, over features and pools."""
    if block.pools != "all" or block.target is not None:
        raise NotImplementedError("only pools: all and query_inputs: all have a plain counterpart")
    pools = [
        (e * m[..., None]).sum(dim=1) / lengths(m).clamp(min=1)[:, None]
        for e, m in zip(sequences, masks, strict=True)
    ]
    known = torch.cat([features.flatten(1), *pools], dim=-1)
    weight = torch.cat([block.tokens_up.weight, block.pools_up.weight], dim=1)
    inner = torch.einsum("bi,nio->bno", known, weight) + block.tokens_up.bias[:, 0]
    return per_token(block.down, F.gelu(inner))


def _encoded(encoder: Any, events: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    if hasattr(encoder, "swiglu"):
        if encoder.around is None:
            return swiglu(encoder.swiglu, events), mask
        return after(encoder.around, events, swiglu(encoder.swiglu, before(encoder.around, events))), mask
    if not hasattr(encoder, "recent"):
        raise NotImplementedError("encoders of the Transformer library have no plain counterpart")
    if encoder.recent is None or encoder.recent >= mask.shape[1]:
        return transformer_layer(encoder, events, events, mask[:, None]), mask
    place = behind_padding(mask, encoder.recent)
    return transformer_layer(encoder, at(events, place), events, mask[:, None]), place >= 0


def _decoded(block: Any, queries: Tensor, events: Tensor, mask: Tensor) -> Tensor:
    if block.attention.sink is not None:
        raise NotImplementedError("attention_sink has no plain counterpart")
    asked, keys = before(block.around, queries), block.event_norm(events)
    read = attention(block.attention, asked, keys, mask[:, None])
    return after(block.around, queries, read) if block.residual else read


def longer(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """The candidate's tokens and CLS read the merged sequence."""
    events, mask, _ = merged(model.sequence_tokenizers, batch, tables)
    globals_ = linear(model.widen, ns_tokens(model.ns_tokenizer, model.manifest, batch, tables))
    cls = model.cls.expand(len(globals_), -1, -1)
    if model.config.longer.events_see_request_globals:
        return head(model.head, tower(model.tower, globals_, cls, events, mask)), None
    return head(model.head, tower(model.tower, torch.cat([globals_, cls], dim=1), None, events, mask)), None


def two_stage(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """LONGER's CLS tokens, mixed with the features."""
    if model.encoder is not None:
        raise NotImplementedError("encoders of the Transformer library have no plain counterpart")
    events, mask, _ = merged(model.sequence_tokenizers, batch, tables)
    features = ns_tokens(model.ns_tokenizer, model.manifest, batch, tables)
    globals_ = model.cls.expand(len(features), -1, -1)
    if model.config.two_stage.global_tokens:
        globals_ = torch.cat([globals_, linear(model.widen, features)], dim=1)
    read = tower(model.tower, globals_, None, events, mask)[:, : len(model.cls)]
    tokens = torch.cat([linear(model.narrow, read), features], dim=1)
    for mixer in model.mixers:
        tokens = rank_mixer_layer(mixer, tokens)
    return head(model.head, tokens), None


def one_trans(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """[S; N] under one causal mask, fewer events from layer to layer."""
    events, mask, _ = merged(model.sequence_tokenizers, batch, tables)
    features = ns_tokens(model.ns_tokenizer, model.manifest, batch, tables)
    place = behind_padding(mask)
    count, tokens = features.shape[1], torch.cat([at(events, place), features], dim=1)
    there = F.pad(place >= 0, (0, count), value=True)
    for layer, kept in zip(model.layers, model.asking, strict=True):
        left = tokens.shape[1] - count if kept is None else min(kept, tokens.shape[1] - count)
        tokens = _one_trans_layer(layer, tokens, there, left)
        there = there[:, there.shape[1] - tokens.shape[1] :]
    return head(model.head, tokens[:, -count:]), None


def _one_trans_layer(layer: Any, tokens: Tensor, there: Tensor, left: int) -> Tensor:
    """The newest `left` events and all ns tokens one layer further."""
    if layer.ns_qkv is None:
        raise NotImplementedError("ns_parameters: shared has no plain counterpart")
    count, total, block = len(layer.ns_qkv.weight), tokens.shape[1], layer.attention
    asks = left + count
    normed = before(layer.around_attention, tokens)
    events, features = normed.tensor_split([total - count], dim=1)
    own = per_token(layer.ns_qkv, features).chunk(3, dim=-1)
    key, value = linear(block.key_value, events).chunk(2, dim=-1)
    key, value = torch.cat([key, own[1]], dim=1), torch.cat([value, own[2]], dim=1)
    query = own[0]
    if left:
        query = torch.cat([linear(block.query, events[:, events.shape[1] - left :]), query], dim=1)
    place = torch.arange(total)
    seen = place <= place[total - asks :, None]
    if not layer.causal:
        seen = seen | (place[total - asks :, None] >= total - count)
    mixed = heads_attention(query, key, value, block.heads, there[:, None] & seen)
    hidden = after(layer.around_attention, tokens[:, total - asks :], linear(block.output, mixed))
    inner = before(layer.around_ffn, hidden)
    parts = [per_token_ffn(layer.ns_ffn, inner[:, left:])]
    if left:
        parts.insert(0, ffn(layer.ffn, inner[:, :left]))
    return after(layer.around_ffn, hidden, torch.cat(parts, dim=1))


def hstu(model: Any, batch: PlainBatch, tables: Tables) -> LogitsAndLoss:
    """Features of the request, events (content and action in turn, or one token) and the candidate."""
    features = ns_tokens(model.ns_tokenizer, model.manifest, batch, tables)
    asking = model.asking
    candidate = model.ask_norm(linear(model.ask, features[:, asking].flatten(1)))
    front = features[:, [t for t in range(features.shape[1]) if t not in asking]]
    events, mask, gaps = merged(model.sequence_tokenizers, batch, tables)
    if model.action_tokenizers is not None:
        actions, _, _ = merged(model.action_tokenizers, batch, tables)
        events = torch.stack([events, actions], dim=2).flatten(1, 2)
        mask, gaps = (x.repeat_interleave(2, dim=1) for x in (mask, gaps))
    # The front stands before the oldest event, so that all of it is put behind the padding.
    tokens = torch.cat([front, events], dim=1)
    group = torch.full((len(mask), tokens.shape[1] + 1), 1)
    group[:, : front.shape[1]], group[:, -1] = 0, 2
    mask, gaps = F.pad(mask, (front.shape[1], 0), value=True), F.pad(gaps, (front.shape[1], 0))
    place = behind_padding(mask)
    tokens = torch.cat([at(tokens, place), candidate[:, None]], dim=1)
    gaps, there = F.pad(at(gaps, place), (0, 1)), F.pad(place >= 0, (0, 1), value=True)
    group = torch.cat([at(group[:, :-1], place), group[:, -1:]], dim=1)
    grouped = group if model.config.group_norm else None
    static = (group == 0) | (gaps > model.config.real_time_seconds)
    shown = static if model.config.mask == "dynamic" else None
    return head(model.head, hstu_layers(model.layers, tokens, gaps, there, grouped, shown)[:, -1:]), None


def head(block: Any, tokens: Tensor) -> Tensor:
    """MLP(norm(tokens)); logits (B,)."""
    if block.shortcut is not None:
        raise NotImplementedError("linear_shortcut has no plain counterpart")
    normed = block.norm(tokens if block.norm_of == "token" else tokens.flatten(1))
    return stack(block.mlp, normed.mean(dim=1) if block.mean else normed.flatten(1)).squeeze(-1)


STACKS: dict[str, Callable[[Any, PlainBatch, Tables], LogitsAndLoss]] = {
    "grid": grid, "hyformer": hyformer, "longer": longer, "two_stage": two_stage, "one_trans": one_trans,
    "hstu": hstu,
}  # fmt: skip

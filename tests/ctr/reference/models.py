"""The models of the papers for one row at a time: loops over rows, nothing shared, nothing packed.

Each function reads the weights of the model under test, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from features.dataset import Manifest
from tests.ctr.reference import formulas
from tests.ctr.reference.grid import grid
from tests.ctr.reference.longer import Token, chosen
from tests.ctr.reference.longer import layer as causal_layer
from tests.ctr.reference.tokens import ns_tokens, sequences, side_by_side
from tests.ctr.reference.unified import hstu as hstu_tokens
from tests.ctr.reference.unified import one_trans as one_trans_tokens

UniqueRows = dict[str, Tensor]


def logits(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows) -> Tensor:
    """(B,): the rows one after another."""
    score = REFERENCES[model.config.kind]
    return torch.stack([score(model, manifest, batch, rows, row) for row in range(batch.num_rows)])


def hyformer(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """HyFormer §3.3-3.6."""
    config = model.config
    events = sequences(model.sequence_tokenizers, manifest, batch, rows, int(batch.request_index[row]))
    start = tokens = ns_tokens(model.ns_tokenizer, manifest, batch, rows, row)
    counts = [config.queries.get(name, config.default_queries) for name in model.sequence_tokenizers.names]
    owners = [s for s, count in enumerate(counts) for _ in range(count)]
    queries = formulas.query_generation(model.generation, tokens, [formulas.pool(s) for s in events], owners)
    encode = formulas.swiglu_encoder if config.encoder.kind == "swiglu" else formulas.encoder
    for layer in model.layers:
        encoded = [encode(block, s) for block, s in zip(layer.encoders, events, strict=True)]
        parts = zip(layer.decoding.layers, queries.split(counts), encoded, strict=True)
        decoded = torch.cat([formulas.query_decoding(block, asked, s) for block, asked, s in parts])
        boosted = formulas.query_boosting(layer.boosting, torch.cat([decoded, tokens]))
        queries, boosted_ns = boosted[: len(owners)], boosted[len(owners) :]
        tokens = boosted_ns if config.update_ns_tokens else start
        events = encoded if config.encoder_input == "previous" else events
    top = queries if config.head_reads == "queries" else torch.cat([queries, boosted_ns])
    return head(model.head, top, manifest, batch, rows, row)


def longer(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """LONGER: the candidate's tokens and CLS in front of the merged sequence."""
    (events,) = sequences(model.sequence_tokenizers, manifest, batch, rows, int(batch.request_index[row]))
    globals_ = widened(model.widen, ns_tokens(model.ns_tokenizer, manifest, batch, rows, row))
    none = model.cls[:0]
    if model.config.longer.events_see_request_globals:
        top = tower(model.tower, globals_, model.cls, events)
    else:
        top = tower(model.tower, torch.cat([globals_, model.cls]), none, events)
    return head(model.head, top, manifest, batch, rows, row)


def two_stage(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """The sequence as the CLS tokens saw it, mixed with the NS tokens."""
    (events,) = sequences(model.sequence_tokenizers, manifest, batch, rows, int(batch.request_index[row]))
    features = ns_tokens(model.ns_tokenizer, manifest, batch, rows, row)
    globals_ = model.cls
    if model.config.two_stage.global_tokens:
        globals_ = torch.cat([globals_, widened(model.widen, features)])
    read = tower(model.tower, globals_, model.cls[:0], events)[: len(model.cls)]
    tokens = torch.cat([widened(model.narrow, read), features])
    for mixer in model.mixers:
        tokens = formulas.rank_mixer(mixer, tokens)
    return head(model.head, tokens, manifest, batch, rows, row)


def one_trans(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """OneTrans: the ns tokens of the top layer."""
    tokens = one_trans_tokens(model, manifest, batch, rows, row)
    return head(model.head, tokens, manifest, batch, rows, row)


def hstu(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """HSTU: the candidate's last representation."""
    token = hstu_tokens(model, manifest, batch, rows, row)
    return head(model.head, token, manifest, batch, rows, row)


def tower(block: Any, globals_: Tensor, prefix: Tensor, events: Tensor) -> Tensor:
    """The global tokens (m, W) after all layers; prefix (P, W): request-level tokens that events may see."""
    events = formulas.token_merge(block.merge, events)
    front = [Token("candidate")] * len(globals_) + [Token("request")] * len(prefix)
    happened = [Token("event", place) for place in range(len(events))]
    if block.select.learned is not None:
        short, who = block.select.learned, [Token("learned", p) for p in range(block.select.count)]
    else:
        kept = chosen(block.select.select, len(events), block.select.count)
        short, who = events[kept], [happened[place] for place in kept]
    keys, whose = torch.cat([globals_, prefix, events]), front + happened
    tokens = torch.cat([globals_, prefix, short])
    for layer in block.layers:
        tokens = causal_layer(layer, tokens, front + who, keys, whose)
        keys, whose = tokens, front + who
    return tokens[: len(globals_)]


def widened(layer: nn.Module, tokens: Tensor) -> Tensor:
    return formulas.linear(layer, tokens) if isinstance(layer, nn.Linear) else tokens


def head(block: Any, tokens: Tensor, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """MLP(norm(tokens)), plus a linear map of the dense features."""
    normed = formulas.norm(block.norm, tokens if block.norm_of == "token" else tokens.flatten())
    hidden = normed.mean(0) if block.mean else normed.flatten()
    maps = [layer for layer in block.mlp if isinstance(layer, nn.Linear)]
    for layer in maps[:-1]:
        hidden = formulas.gelu(formulas.linear(layer, hidden))
    logit = formulas.linear(maps[-1], hidden)[0]
    if block.shortcut is None:
        return logit
    dense = [c for c in manifest.features if c.kind == "dense"]
    return logit + side_by_side(dense, batch, rows, row) @ block.shortcut.weight[:, 0]


REFERENCES: dict[str, Callable[..., Tensor]] = {
    "hyformer": hyformer,
    "longer": longer,
    "two_stage": two_stage,
    "grid": grid,
    "one_trans": one_trans,
    "hstu": hstu,
}

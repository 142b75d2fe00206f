"""The unified models for one row at a time: events and features are one list of tokens, masks are loops."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from features.dataset import Manifest
from tests.ctr.reference.formulas import after, before, ffn, gelu, linear, norm, silu
from tests.ctr.reference.tokens import merged_order, ns_tokens, sequences

UniqueRows = dict[str, Tensor]


def one_trans_asking(config: Any, longest: int, layer: int) -> int | None:
    """How many events ask in a layer, 0 the first: linear from all to none, rounded up; None for all."""
    last = config.layers - 1
    if layer == last:
        return 0
    if layer == 0 or not config.pyramid:
        return None
    share = (config.pyramid_events or longest) * (1 - Fraction(layer, last))
    return math.ceil(share / config.pyramid_step) * config.pyramid_step


def one_trans(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """OneTrans: (M, D), the ns tokens of the top layer."""
    config = model.config
    (events,) = sequences(model.sequence_tokenizers, manifest, batch, rows, int(batch.request_index[row]))
    features = ns_tokens(model.ns_tokenizer, manifest, batch, rows, row)
    longest = sum(info.max_len for info in manifest.domains.values())
    for number, layer in enumerate(model.layers):
        count = one_trans_asking(config, longest, number)
        dropped = 0 if count is None else max(0, len(events) - count)
        tokens = one_trans_layer(layer, config, torch.cat([events, features]), len(events), dropped)
        events, features = tokens[: len(events) - dropped], tokens[len(events) - dropped :]
    return features


def one_trans_layer(layer: Any, config: Any, tokens: Tensor, events: int, dropped: int) -> Tensor:
    """The tokens [S; N] without the oldest `dropped` events, one layer further."""
    width, own = tokens.shape[1], config.ns_parameters == "own"
    normed = before(layer.around_attention, tokens)

    def project(place: int, part: int) -> Tensor:
        """Query, key or value (part 0, 1, 2) of a token."""
        cut = slice(part * width, (part + 1) * width)
        if own and place >= events:
            t = place - events
            return normed[place] @ layer.ns_qkv.weight[t][:, cut] + layer.ns_qkv.bias[t, 0, cut]
        if part == 0:
            return linear(layer.attention.query, normed[place])
        return linear(layer.attention.key_value, normed[place])[cut.start - width : cut.stop - width]

    keys = [project(place, 1) for place in range(len(tokens))]
    values = [project(place, 2) for place in range(len(tokens))]
    out = []
    for place in range(dropped, len(tokens)):
        seen = range(place + 1)
        if config.ns_attention == "full" and place >= events:
            seen = range(len(tokens))
        query, heads = project(place, 0), []
        size = width // layer.attention.heads
        for head in range(layer.attention.heads):
            cut = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[cut] @ keys[j][cut] / math.sqrt(size) for j in seen]).exp()
            mixed = sum(score * values[j][cut] for score, j in zip(scores, seen, strict=True))
            heads.append(mixed / scores.sum())
        hidden = after(
            layer.around_attention, tokens[place], linear(layer.attention.output, torch.cat(heads))
        )
        inner = before(layer.around_ffn, hidden)
        if own and place >= events:
            up, down, t = layer.ns_ffn.up, layer.ns_ffn.down, place - events
            update = gelu(inner @ up.weight[t] + up.bias[t, 0]) @ down.weight[t] + down.bias[t, 0]
        else:
            update = ffn(layer.ffn, inner)
        out.append(after(layer.around_ffn, hidden, update))
    return torch.stack(out)


def hstu(model: Any, manifest: Manifest, batch: Batch, rows: UniqueRows, row: int) -> Tensor:
    """HSTU: (1, D), the candidate as the last token of the top layer."""
    config, request = model.config, int(batch.request_index[row])
    features = ns_tokens(model.ns_tokenizer, manifest, batch, rows, row)
    asking = model.ns_tokenizer.candidate_tokens()
    candidate = norm(model.ask_norm, linear(model.ask, torch.cat([features[t] for t in asking])))
    front = [features[t] for t in range(len(features)) if t not in asking]
    seconds = [
        float(batch.sequences[d].time_gap[int(batch.sequences[d].offsets[request]) + e]) * config.time_gaps
        for d, e in [(list(manifest.domains)[d], e) for d, e in merged_order(batch, manifest, request)]
    ]
    if config.action_tokens == "interleaved":
        (content,), (action,) = (
            sequences(block, only(manifest, config.actions, among), batch, rows, request)
            for block, among in ((model.sequence_tokenizers, False), (model.action_tokenizers, True))
        )
        events = [token for both in zip(content, action, strict=True) for token in both]
        seconds = [gap for gap in seconds for _ in range(2)]
    else:
        (whole,) = sequences(model.sequence_tokenizers, manifest, batch, rows, request)
        events = list(whole)
    gaps = [0.0] * len(front) + seconds + [0.0]
    groups = [0] * len(front) + [1] * len(events) + [2]
    static = [j < len(front) or gap > config.real_time_seconds for j, gap in enumerate(gaps)]
    shown = static if config.mask == "dynamic" else [False] * len(gaps)
    return hstu_layers(model.layers, torch.stack([*front, *events, candidate]), gaps, groups, shown)[-1:]


def only(manifest: Manifest, fields: list[str], among: bool) -> Manifest:
    """The manifest with the fields of events that are, or are not, among these."""
    domains = {}
    for domain, info in manifest.domains.items():
        side = [c for c in info.side if (f"{domain}.{c.name}" in fields) is among]
        domains[domain] = info.model_copy(update={"side": side})
    return manifest.model_copy(update={"domains": domains})


def hstu_layers(
    layers: Any, x: Tensor, gaps: list[float], groups: list[int], shown: list[bool] | None = None
) -> Tensor:
    """(T, D): all tokens through all layers.

    gaps: seconds of each to the request; groups: of its norms; shown: whether earlier tokens see it, too.
    """
    shown = shown or [False] * len(x)
    for layer in layers:
        u, v, q, k = silu(linear(layer.mapped, group_norm(layer.norm, x, groups))).chunk(4, dim=1)
        width, rows = q.shape[1] // layer.heads, []
        for i in range(len(x)):
            read = []
            for head in range(layer.heads):
                part = slice(head * width, (head + 1) * width)
                total = torch.zeros(width, dtype=x.dtype)
                for j in range(len(x)):
                    if j > i and not shown[j]:
                        continue
                    bucket = int(math.log(max(1.0, abs(gaps[i] - gaps[j]))) / 0.301)
                    score = q[i, part] @ k[j, part] / math.sqrt(width)
                    score = score + layer.by_place[abs(i - j)] + layer.by_time[bucket]
                    total = total + silu(score) * v[j, part]
                read.append(total)
            rows.append(torch.cat(read))
        x = x + linear(layer.output, group_norm(layer.norm_read, torch.stack(rows), groups) * u)
    return x


def group_norm(block: Any, x: Tensor, groups: list[int]) -> Tensor:
    """The norm of each token, with the scale and the shift of its group where the norm has groups."""
    if isinstance(block, nn.LayerNorm | nn.RMSNorm):
        return norm(block, x)
    if isinstance(block.norm, nn.RMSNorm):
        scaled = x / torch.sqrt((x * x).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)
    else:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + block.norm.eps)
    return torch.stack([s * block.weight[g] + block.bias[g] for s, g in zip(scaled, groups, strict=True)])

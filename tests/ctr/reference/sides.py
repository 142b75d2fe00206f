"""The sequence sides of the grid for one row: one request's events (L, D), one candidate's question (D,).

Each function reads the weights and the options of the part under test, and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.ctr.reference import formulas
from tests.ctr.reference.formulas import heads_attention, linear, norm, sigmoid, softmax
from tests.ctr.reference.unified import hstu_layers


class Row:
    """What a side is given for one row."""

    config: Any = None  # its options

    def __init__(
        self,
        events: Tensor,
        gaps: Tensor,
        query: Tensor,
        features: Tensor,
        same: Tensor,
        hashed: tuple[list[Tensor], Tensor] | None = None,
    ) -> None:
        self.events, self.gaps, self.query, self.features, self.same = events, gaps, query, features, same
        # The embeddings that each event, and the candidate, have of the tables that both have.
        self.shared_of_events, self.shared = hashed or ([], query[:0])

    @property
    def empty(self) -> bool:
        return not len(self.events)


def pooling(side: nn.Module, row: Row) -> Tensor:
    total = torch.zeros_like(row.query)
    for event in row.events:
        total = total + event
    return total if side.config.how == "sum" else total / max(1, len(row.events))


def weighted_pooling(side: nn.Module, row: Row) -> Tensor:
    if row.empty:
        return torch.zeros_like(row.query)
    scores = []
    for event in row.events:
        if side.score == "bilinear":
            scores.append(row.query @ (side.of_event.weight @ event))
        else:
            hidden = linear(side.of_event, event)
            hidden = hidden + linear(side.of_query, row.query) if side.score == "additive" else hidden
            scores.append(side.to_score @ torch.tanh(hidden))
    return softmax(torch.stack(scores)) @ row.events


def target_attention(side: Any, row: Row) -> Tensor:
    events = row.events
    if isinstance(side.encoder, nn.Sequential):
        for layer in side.encoder:
            events = formulas.encoder(layer, events) if len(events) else events
    if not len(events):
        return side.attention.output.bias
    return formulas.attention(side.attention, row.query[None], events)[0]


def din(side: nn.Module, row: Row) -> Tensor:
    kept = row.events[-side.config.recent :] if side.config.recent else row.events
    weights = []
    for event in kept:
        q = row.query
        x = linear(side.of_all, torch.cat([q, event, q - event, q * event]))
        for layer in side.network:
            x = linear(layer, x) if isinstance(layer, nn.Linear) else activation(layer, x)
        weights.append(x[0])
    if not weights:
        return torch.zeros_like(row.query)
    a = torch.stack(weights)
    return (softmax(a / math.sqrt(len(row.query))) if side.config.softmax else a) @ kept


def activation(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Sigmoid):
        return sigmoid(x)
    if isinstance(layer, nn.PReLU):
        return torch.where(x > 0, x, layer.weight * x)
    running = layer.normalise  # Dice, not training
    p = sigmoid((x - running.running_mean) / torch.sqrt(running.running_var + 1e-9))
    return p * x + (1 - p) * layer.alpha * x


def gru(cell: nn.GRU, events: Tensor, layer: int = 0) -> list[Tensor]:
    """All hidden states; torch's order of gates is reset, update, new."""
    w, u = getattr(cell, f"weight_ih_l{layer}"), getattr(cell, f"weight_hh_l{layer}")
    b, c = getattr(cell, f"bias_ih_l{layer}"), getattr(cell, f"bias_hh_l{layer}")
    state, states = torch.zeros_like(events[0]), []
    for event in events:
        (xr, xz, xn), (hr, hz, hn) = (w @ event + b).chunk(3), (u @ state + c).chunk(3)
        reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
        state = (1 - update) * torch.tanh(xn + reset * hn) + update * state
        states.append(state)
    return states


def lstm(cell: nn.LSTM, events: Tensor, layer: int = 0) -> list[Tensor]:
    w, u = getattr(cell, f"weight_ih_l{layer}"), getattr(cell, f"weight_hh_l{layer}")
    b, c = getattr(cell, f"bias_ih_l{layer}"), getattr(cell, f"bias_hh_l{layer}")
    state, memory, states = torch.zeros_like(events[0]), torch.zeros_like(events[0]), []
    for event in events:
        i, f, g, o = (w @ event + b + u @ state + c).chunk(4)
        memory = sigmoid(f) * memory + sigmoid(i) * torch.tanh(g)
        state = sigmoid(o) * torch.tanh(memory)
        states.append(state)
    return states


def recurrent(side: nn.Module, row: Row) -> Tensor:
    if row.empty:
        return torch.zeros_like(row.query)
    step = gru if isinstance(side.cell, nn.GRU) else lstm
    states = list(row.events)
    for layer in range(side.cell.num_layers):
        states = step(side.cell, torch.stack(states), layer)
    return states[-1]


def dien(side: nn.Module, row: Row) -> Tensor:
    kept = row.events[-side.config.recent :]
    if not len(kept):
        return torch.zeros_like(row.query)
    interests = torch.stack(gru(side.extractor, kept))
    attention = softmax(interests @ (side.ask.weight @ row.query))
    width, state = len(row.query), torch.zeros_like(row.query)
    for weight, interest in zip(attention, interests, strict=True):
        xu, xr, xn = linear(side.gates_of_interest, interest).split(width)
        hu, hr = (side.gates_of_state.weight @ state).split(width)
        update, reset = weight * sigmoid(xu + hu), sigmoid(xr + hr)
        new = torch.tanh(xn + side.candidate_of_state.weight @ (reset * state))
        state = (1 - update) * state + update * new
    return state


def convolution(side: nn.Module, row: Row) -> Tensor:
    if row.empty:
        return torch.zeros_like(row.query)
    x = list(row.events)
    for depth, layer in enumerate(side.layers):
        pieces = layer.weight.chunk(side.taps, dim=1)
        new = []
        for t in range(len(x)):
            total = layer.bias
            for tap in range(side.taps):
                if t - tap * 2**depth >= 0:
                    total = total + pieces[tap] @ x[t - tap * 2**depth]
            new.append(x[t] + torch.clamp(total, min=0))
        x = new
    return x[-1]


def bst(side: nn.Module, row: Row) -> Tensor:
    x = torch.cat([row.events[-side.recent :], row.query[None]])
    for layer in side.layers:
        a = norm(layer.around_attention.norm, x + formulas.attention(layer.attention, x, x))
        x = norm(layer.around_ffn.norm, a + formulas.ffn(layer.ffn, a))
    newest_first = list(x.flip(0)) + [torch.zeros_like(row.query)] * (side.recent + 1 - len(x))
    return linear(side.narrow, torch.cat(newest_first))


def linear_attention(side: nn.Module, row: Row) -> Tensor:
    query = linear(side.query, row.query)
    width, out = len(query) // side.heads, []

    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.exp(torch.clamp(x, max=0)))

    for head in range(side.heads):
        part = slice(head * width, (head + 1) * width)
        top, bottom = torch.zeros_like(query[part]), torch.zeros((), dtype=query.dtype)
        for event, gap in zip(row.events, row.gaps, strict=True):
            key, value = linear(side.key_value, event).chunk(2)
            weight = phi(query[part]) @ phi(key[part])
            if side.rate is not None:
                rate = torch.log(1 + torch.exp(side.rate[head]))
                weight = weight * torch.exp(-rate * (gap - row.gaps[-1]) / 86400)
            top, bottom = top + weight * value[part], bottom + weight
        out.append(top / (bottom + 1e-6))
    return linear(side.output, torch.cat(out))


def memory(side: Any, row: Row) -> Tensor:
    count, width = side.keys.weight.shape
    slots = torch.zeros(count, width, dtype=row.query.dtype)
    for event in row.events:
        weight = softmax(side.keys.weight @ event / math.sqrt(width))[:, None]
        slots = (1 - weight) * slots + weight * (side.value.weight @ event)
    return linear(side.output, softmax(slots @ row.query / math.sqrt(width)) @ slots)


def hstu(side: Any, row: Row) -> Tensor:
    """The candidate as the last token of the sequence, all tokens through all layers."""
    tokens = torch.cat([row.events, row.query[None]])
    return hstu_layers(side.layers, tokens, [*row.gaps.tolist(), 0.0], [0] * len(tokens))[-1]


def longer(side: Any, row: Row) -> Tensor:
    from tests.ctr.reference.models import tower, widened

    globals_ = side.cls
    if side.global_tokens:
        globals_ = torch.cat([globals_, widened(side.widen, row.features)])
    read = tower(side.tower, globals_, side.cls[:0], row.events)[: side.tokens]
    return widened(side.narrow, read).flatten()


def search(side: nn.Module, row: Row) -> Tensor:
    keep, heads = side.config.keep, side.heads
    query = linear(side.query, row.query)
    keys, values = linear(side.key_value, row.events).chunk(2, dim=1)
    bias = None
    if side.by_time is not None:
        bias = torch.stack([side.by_time[min(47, int(math.log2(1 + float(g))))] for g in row.gaps]) \
            if len(row.gaps) else None  # fmt: skip
    places = range(len(row.events))
    if side.config.by == "field":
        kept = [j for j in places if row.same[j]][-keep:]
    elif side.config.by == "signs":
        asked = torch.sign(row.shared @ side.directions)
        equal = [int((asked == torch.sign(e @ side.directions)).sum()) for e in row.shared_of_events]
        kept = sorted(places, key=lambda j: (-equal[j], -j))[:keep]
    elif side.config.by == "inner_product":
        asked = side.search_query.weight @ row.query
        scores = [float((side.search_key.weight @ e @ asked).detach()) for e in row.events]
        kept = sorted(places, key=lambda j: (-scores[j], -j))[:keep]
    else:
        width, rankings = len(query) // heads, []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            score = keys[:, part] @ query[part] / math.sqrt(width)
            score = score if bias is None else score + bias[:, head]
            score = score.detach()
            rankings.append(sorted(places, key=lambda j, score=score: (-float(score[j]), -j)))  # type: ignore[misc]
        kept = []
        for place in places:
            for ranking in rankings:
                if ranking[place] not in kept and len(kept) < keep:
                    kept.append(ranking[place])
    kept = sorted(kept)
    chosen = None if bias is None else bias[kept]
    return linear(side.output, heads_attention(query, keys[kept], values[kept], heads, chosen))


def search_click(side: Any, row: Row) -> Tensor:
    """The logit of soft SIM's own loss: an MLP of the scored mean of the events and of the candidate."""
    width, total = len(row.query), torch.zeros_like(row.query)
    for event in row.events:
        score = (side.search_key.weight @ event) @ (side.search_query.weight @ row.query)
        total = total + score / math.sqrt(width) * event / len(row.events)
    hidden = formulas.gelu(linear(side.click[0], torch.cat([total, row.query])))
    return linear(side.click[2], hidden)[0]


def sdim(side: nn.Module, row: Row) -> Tensor:
    each = side.directions.shape[1] // side.groups
    sums, counts = [], []
    for group in range(side.groups):
        directions = side.directions[:, group * each : (group + 1) * each]
        asked, total, count = row.shared @ directions > 0, torch.zeros_like(row.query), 0.0
        for event, shared in zip(row.events, row.shared_of_events, strict=True):
            if bool(((shared @ directions > 0) == asked).all()):
                total, count = total + event, count + 1.0
        length = torch.sqrt((total * total).sum()) if count else torch.ones(())
        sums.append(total / length)
        counts.append(math.log(1 + count))
    read = torch.stack(sums).mean(0)
    if side.of_counts is None:
        return read
    return read + side.of_counts.weight @ torch.tensor(counts, dtype=read.dtype)


def sparse_attention(side: Any, row: Row) -> Tensor:
    """Global tokens first; who sees whom is written out token by token."""
    events, first = row.events, len(side.cls)
    tokens, reach = torch.cat([side.cls, events]), row.config.window // 2
    mask = torch.tensor(
        [
            [i < first or j < first or abs(i - j) <= reach for j in range(len(tokens))]
            for i in range(len(tokens))
        ]
    )
    for layer in side.layers:
        seen = formulas.before(layer.around_attention, tokens)
        update = formulas.attention(layer.attention, seen, seen, mask)
        hidden = formulas.after(layer.around_attention, tokens, update)
        inner = formulas.ffn(layer.ffn, formulas.before(layer.around_ffn, hidden))
        tokens = formulas.after(layer.around_ffn, hidden, inner)
    if not len(events):
        return side.attention.output.bias
    return formulas.attention(side.attention, row.query[None], tokens[first:])[0]


def user_embedding(side: Any, row: Row) -> Tensor:
    return linear(side.map, row.events[-1]) if len(row.events) else side.missing


SIDES: dict[str, Callable[[nn.Module, Row], Tensor]] = {
    "pooling": pooling, "weighted_pooling": weighted_pooling, "recurrent": recurrent,
    "convolution": convolution, "din": din, "dien": dien, "bst": bst, "target_attention": target_attention,
    "sparse_attention": sparse_attention, "linear_attention": linear_attention, "memory": memory,
    "hstu": hstu, "longer": longer, "search": search, "sdim": sdim, "user_embedding": user_embedding,
}  # fmt: skip

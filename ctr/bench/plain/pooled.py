"""Sequence sides of the grid in plain torch, first half: those that weigh, go through or hash the events.

B candidates, L events, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.bench.plain.layers import at, lengths, linear, newest_first, softmax, stack


class Seen(NamedTuple):
    """What a side is given.

    events: (B, L, D), the oldest first.  mask: (B, L) bool.  gaps: (B, L) seconds.  query: (B, D).
    features: (B, M, D).  same: (B, L) bool, whether an event's ID is the candidate's; None if not compared.
    contents: (B, L, D), the events without time gap; None if the side does not ask.
    hashed: (B, L, S) and (B, S), rows of the tables that events and candidates share; None if not hashed.
    """

    events: Tensor
    mask: Tensor
    gaps: Tensor
    query: Tensor
    features: Tensor
    same: Tensor | None
    contents: Tensor | None = None
    hashed: tuple[Tensor, Tensor] | None = None

    def newest(self, count: int) -> Seen:
        """The newest events alone."""
        if not count or count >= self.mask.shape[1]:
            return self
        place = (lengths(self.mask) - count).clamp(min=0)[:, None] + torch.arange(count)
        contents = None if self.contents is None else at(self.contents, place)
        return self._replace(
            events=at(self.events, place),
            mask=at(self.mask, place),
            gaps=at(self.gaps, place),
            contents=contents,
        )

    def signs(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, m) and (B, m): on which side of each direction events and candidates lie, −1, 0 or 1."""
        assert self.hashed is not None
        events, candidates = ((x.detach() @ directions).sign() for x in self.hashed)
        return events, candidates


PlainSide = Callable[[Any, Seen], Tensor]  # (B, D), or (B, n, D)


def pooling(side: Any, seen: Seen) -> Tensor:
    """The sum or the mean."""
    total = (seen.events * seen.mask[..., None]).sum(dim=1)
    return total if side.config.how == "sum" else total / lengths(seen.mask).clamp(min=1)[:, None]


def weighted_pooling(side: Any, seen: Seen) -> Tensor:
    """Additive, bilinear or self attention."""
    keys = linear(side.of_event, seen.events)
    if side.to_score is None:
        scores = (keys * seen.query[:, None]).sum(-1)
    else:
        asked = 0.0 if side.of_query is None else linear(side.of_query, seen.query)[:, None]
        scores = (keys + asked).tanh() @ side.to_score
    return (softmax(scores, seen.mask)[..., None] * seen.events).sum(dim=1)


def din(side: Any, seen: Seen) -> Tensor:
    """The first layer reads [q; e; q − e; q ⊙ e], padding too; its weight there is cut off."""
    seen = seen.newest(side.config.recent)
    events, query = seen.events, seen.query[:, None].expand_as(seen.events)
    pairs = torch.cat([query, events, query - events, query * events], dim=-1)
    weights = stack(side.network, linear(side.of_all, pairs).flatten(0, 1)).view(*seen.mask.shape)
    if side.config.softmax:
        weights = softmax(weights * events.shape[2] ** -0.5, seen.mask)
    return ((weights * seen.mask)[..., None] * events).sum(dim=1)


def recurrent(side: Any, seen: Seen) -> Tensor:
    """The state after the newest event, of a network that runs through the padding, too."""
    states = side.cell(seen.events.transpose(0, 1))[0].transpose(0, 1)
    return _newest_of(states, seen.mask)


def dien(side: Any, seen: Seen) -> Tensor:
    """GRU, attention, and AUGRU step by step."""
    seen = seen.newest(side.config.recent)
    interests = side.extractor(seen.events.transpose(0, 1))[0].transpose(0, 1)
    scores = (interests * linear(side.ask, seen.query)[:, None]).sum(-1)
    gates = linear(side.gates_of_interest, interests).unbind(1)
    state, width = torch.zeros_like(seen.query), seen.query.shape[1]
    for attention, gate in zip(softmax(scores, seen.mask)[..., None].unbind(1), gates, strict=True):
        xu, xr, xn = gate.split(width, dim=-1)
        hu, hr = linear(side.gates_of_state, state).split(width, dim=-1)
        update = attention * torch.sigmoid(xu + hu)
        new = torch.tanh(xn + linear(side.candidate_of_state, torch.sigmoid(xr + hr) * state))
        state = (1 - update) * state + update * new  # padding has attention 0
    return state


def next_event_loss(side: Any, seen: Seen) -> Tensor:
    """(B,): DIEN's auxiliary loss, with events of any row as what did not come next."""
    seen = seen.newest(side.config.recent)
    assert seen.contents is not None
    valid = seen.mask.flatten().nonzero().flatten()
    if not len(valid):
        return seen.events.new_zeros(len(seen.mask))
    interests = side.extractor(seen.events.transpose(0, 1))[0].transpose(0, 1)[:, :-1]
    own, every = seen.contents[:, 1:], seen.contents.flatten(0, 1)
    first, second = (every[valid[torch.randint(len(valid), own.shape[:2])]] for _ in range(2))
    other = torch.where((first != own).any(-1, keepdim=True), first, second)
    counted = seen.mask[:, 1:] & (other != own).any(-1)
    losses = F.softplus(-(interests * own).sum(-1)) + F.softplus((interests * other).sum(-1))
    return side.config.auxiliary * (losses * counted).sum(dim=1) / lengths(counted).clamp(min=1)


def convolution(side: Any, seen: Seen) -> Tensor:
    """Dilated causal convolutions; padding stands behind, where nothing reads it."""
    x = seen.events.transpose(1, 2)
    for depth, layer in enumerate(side.layers):
        kernel = layer.weight.unflatten(1, (side.taps, -1)).transpose(1, 2).flip(2)
        front = F.pad(x, ((side.taps - 1) * 2**depth, 0))
        x = x + F.conv1d(front, kernel, layer.bias, dilation=2**depth).relu()
    return _newest_of(x.transpose(1, 2), seen.mask)


def linear_attention(side: Any, seen: Seen) -> Tensor:
    """φ(q) Σ φ(k) vᵀ over φ(q) Σ φ(k)."""
    key, value = (x.unflatten(-1, (side.heads, -1)) for x in linear(side.key_value, seen.events).chunk(2, -1))
    query = F.elu(linear(side.query, seen.query).unflatten(-1, (side.heads, -1))) + 1
    key = (F.elu(key) + 1) * seen.mask[..., None, None]
    if side.rate is not None:
        since = seen.gaps - at(seen.gaps, newest_first(seen.mask, 1))
        key = key * torch.exp(-F.softplus(side.rate) * (since * seen.mask)[..., None] / 86_400)[..., None]
    matrix = torch.einsum("blhd,blhe->bhde", key, value)
    top = torch.einsum("bhd,bhde->bhe", query, matrix)
    bottom = (query * key.sum(dim=1)).sum(-1, keepdim=True)
    return linear(side.output, (top / (bottom + 1e-6)).flatten(1))


def memory(side: Any, seen: Seen) -> Tensor:
    """Slots that event after event erases and adds to."""
    weights = (linear(side.keys, seen.events) * side.scale).softmax(dim=-1) * seen.mask[..., None]
    values = linear(side.value, seen.events)
    slots = values.new_zeros(len(values), weights.shape[2], values.shape[2])
    for weight, value in zip(weights[..., None].unbind(1), values[:, :, None].unbind(1), strict=True):
        slots = (1 - weight) * slots + weight * value
    read = ((slots @ seen.query[..., None]).squeeze(-1) * side.scale).softmax(dim=-1)
    return linear(side.output, (read[..., None] * slots).sum(dim=1))


def sdim(side: Any, seen: Seen) -> Tensor:
    """The sums of the events whose bits are the candidate's, group by group."""
    each = (side.groups, -1)
    signs, asked = ((x > 0).unflatten(-1, each) for x in seen.signs(side.directions))
    equal = ((signs == asked[:, None]).all(dim=-1) & seen.mask[..., None]).to(seen.events.dtype)  # (B, L, G)
    read = F.normalize(equal.transpose(1, 2) @ seen.events, dim=-1).mean(dim=1)
    if side.of_counts is None:
        return read
    return read + linear(side.of_counts, equal.sum(dim=1).log1p())


def user_embedding(side: Any, seen: Seen) -> Tensor:
    """The newest event, mapped."""
    newest = at(seen.events, newest_first(seen.mask, 1))[:, 0]
    return torch.where(seen.mask.any(dim=1)[:, None], linear(side.map, newest), side.missing)


def _newest_of(states: Tensor, mask: Tensor) -> Tensor:
    """(B, D): the state at the newest event, zeros without any."""
    return at(states, newest_first(mask, 1))[:, 0] * mask.any(dim=1)[:, None]


POOLED: dict[str, PlainSide] = {
    "pooling": pooling, "weighted_pooling": weighted_pooling, "din": din, "recurrent": recurrent,
    "dien": dien, "convolution": convolution, "linear_attention": linear_attention, "memory": memory,
    "sdim": sdim, "user_embedding": user_embedding,
}  # fmt: skip

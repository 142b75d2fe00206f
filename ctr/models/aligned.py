"""A start in which a candidate already recognises itself in the history.

With random weights attention is blind at first: query and key are two unrelated random images of the same
embedding, and a short training may end before they have met. Nothing but initial values changes here; the
formulas are the papers', and all weights are learned as before:

1. the maps of one table's embeddings, into candidate tokens and into event tokens, start equal (an event's
   field with n-grams is a mean of embeddings: its map starts larger by their number);
2. HyFormer's query FFNs start as the identity on one candidate token, plus their usual small random map of
   everything else: GELU(x) − GELU(−x) = x, so W_1 = [A; −A], W_2 = [I, −I] computes exactly A x;
3. W_Q = W_K starts as one orthogonal matrix where candidates attend to events (of OneTrans' ns tokens each
   W_Q is the events' W_K), and where they search among them;
4. what a candidate asks of HSTU or of the grid's sequence sides starts as that candidate token.

Then ⟨query, key⟩ starts large where the event shares the candidate's values. Worth it where candidate and
history share ID spaces (docs/results.md has the figures).

M ns tokens, D width, E embedding width, h hidden width of a query FFN.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.longer import CausalLayer
from ctr.blocks.query import QueryGeneration, SequenceDecoding
from ctr.models.grid import Grid
from ctr.models.hstu import HstuModel
from ctr.models.one_trans import OneTransLayer
from ctr.models.sequence.hstu import HstuLayer
from ctr.models.sequence.search import Search
from ctr.models.sequence.target_attention import TargetAttention
from ctr.tokens.events import SequenceTokenizer
from ctr.tokens.features import GroupToken, SemanticTokenizer
from features.errors import ConfigError

# Share of the usual random map of GlobalInfo that stays beside the identity.
_REST = 0.3
# How much louder shared values start than the other parts of a token, and queries than keys.
_SHARED, _QUERY = 2.0, 2.0
# Where the sink stands among the scores: it weighs as much as exp(4) ≈ 55 events of score 0.
_SINK = 4.0


@torch.no_grad()
def align(model: nn.Module, linked: Mapping[str, str] | None = None) -> None:
    """Give a freshly built model the aligned start, in place.

    Args:
        model: with a semantic tokenizer.
        linked: table → the space that its rows start in, of tables whose rows start in one space though they
            are not one table (`ctr.cooccurrence`): their maps start equal.

    Raises:
        ConfigError: the tokenizer is not semantic, has a hidden layer, or no candidate token shares a table
            with the events.
    """
    linked = linked or {}
    sequences = [m for m in model.modules() if isinstance(m, SequenceTokenizer)]
    tokenizer = next((m for m in model.modules() if isinstance(m, SemanticTokenizer)), None)
    of_events = {str(column.table) for sequence in sequences for column in sequence.side}
    spaces = {linked.get(table, table) for table in of_events}
    shared = of_events | {table for table, space in linked.items() if space in spaces}
    groups = [] if tokenizer is None else [g for g in tokenizer.groups if isinstance(g, GroupToken)]
    places = [_shared_maps(group, shared) for group in groups]
    token = max(range(len(places)), key=lambda i: len(places[i]), default=0)
    if not groups or not places[token] or any(group.out is not None for group in groups):
        raise ConfigError(
            "model.aligned_start needs a semantic tokenizer without hidden layer, and a candidate feature "
            "that shares its table with side information of events; set it to false, or share an ID space"
        )
    _equal_maps(places, sequences, linked)
    for module in model.modules():
        if isinstance(module, QueryGeneration):
            _pass_through(module, token)
        elif isinstance(module, SequenceDecoding | CausalLayer | TargetAttention):
            _same_side(module.attention)
        elif isinstance(module, Search):
            _same_side_of_search(module)
        elif isinstance(module, Grid):
            _pass_one(module.ask, module.asking.index(token))
        elif isinstance(module, OneTransLayer):
            _same_side_of_tokens(module)
        elif isinstance(module, HstuModel):
            _pass_one(module.ask, module.asking.index(token))
            for layer in module.layers:
                assert isinstance(layer, HstuLayer)
                _same_side_of_parts(layer)


def _shared_maps(group: GroupToken, shared: set[str]) -> dict[str, Tensor]:
    """table → the (D, E) part of the group's map that reads a candidate feature of that table."""
    if group.of_candidate is None:
        return {}
    columns, parts, first = group.vectors.candidate.columns, {}, 0
    widths = group.vectors.candidate.widths()
    for column, width in zip(columns, widths, strict=True):
        if column.table in shared:
            parts[str(column.table)] = group.of_candidate.weight[:, first : first + width]
        first += width
    return parts


def _equal_maps(
    places: list[dict[str, Tensor]], sequences: list[SequenceTokenizer], linked: Mapping[str, str]
) -> None:
    """One orthogonal (D, E) map per table, or per space of linked tables, wherever it is read."""
    spaces = dict.fromkeys(linked.get(table, table) for parts in places for table in parts)
    events = [
        (linked.get(str(column.table), str(column.table)), column, linear, sequence)
        for sequence in sequences
        for column, linear in zip(sequence.side, sequence.maps, strict=True)
        if isinstance(linear, nn.Linear)
    ]
    for space in spaces:
        one: Tensor | None = None
        targets = [
            part for parts in places for table, part in parts.items() if linked.get(table, table) == space
        ]
        for target in [*targets, *(linear.weight for own, _, linear, _ in events if own == space)]:
            one = nn.init.orthogonal_(torch.empty_like(target), gain=_SHARED) if one is None else one
            target.copy_(one)
    for space, column, linear, sequence in events:
        if space in spaces:
            linear.weight.mul_(sequence.parts_averaged(column.name))


def _pass_through(generation: QueryGeneration, token: int) -> None:
    """Q_i = F_token + a small random map of GlobalInfo, exactly, for every query i."""
    up, down = generation.tokens_up, generation.down
    width, hidden = down.weight.shape[2], down.weight.shape[1]
    if hidden < 2 * width:
        raise ConfigError(f"model.aligned_start needs model.expansion of at least 2, got {hidden / width:g}")
    first = 0 if generation.target is not None else token * width
    maps = [up.weight, up.bias] + ([generation.pools_up.weight] if generation.pools_up is not None else [])
    for part in maps:
        assert part is not None
        part.mul_(_REST)
        part[..., width : 2 * width] = -part[..., :width]
    one = torch.eye(width)
    up.weight[:, first : first + width, :width] += one
    up.weight[:, first : first + width, width : 2 * width] -= one
    down.weight[:, :width] = one
    down.weight[:, width : 2 * width] = -one
    down.weight[:, 2 * width :].mul_(_REST)


def _same_side(attention: MultiHeadAttention) -> None:
    """W_Q = W_K, orthogonal, without biases."""
    _same_maps(attention.query, attention.key_value)
    if attention.sink is not None:
        heads = attention.query.bias.view(attention.heads, -1)
        heads[:, 0] = _SINK  # s₀ = q · k₀ / √(D / H), along one axis of each head
        attention.sink.view_as(heads)[:, 0] = heads.shape[1] ** 0.5


def _same_maps(query: nn.Linear, key_value: nn.Linear) -> None:
    """W_Q = W_K, orthogonal, without biases."""
    width = len(query.weight)
    one = nn.init.orthogonal_(torch.empty(width, width))
    query.weight.copy_(_QUERY * one)
    key_value.weight[:width] = one
    key_value.bias[:width] = 0
    query.bias.zero_()


def _same_side_of_search(search: Search) -> None:
    """W_Q = W_K of the attention and W_a = W_b of a learned search, each orthogonal."""
    _same_maps(search.query, search.key_value)
    if search.search_query is not None and search.search_key is not None:
        nn.init.orthogonal_(search.search_query.weight)
        search.search_key.weight.copy_(search.search_query.weight)


def _same_side_of_tokens(layer: OneTransLayer) -> None:
    """W_Q of each ns token is W_K of the events, orthogonal, without biases."""
    if layer.ns_qkv is None:
        _same_side(layer.attention)
        return
    key, asked = layer.attention.key_value, layer.ns_qkv
    width = key.weight.shape[1]
    one = nn.init.orthogonal_(torch.empty(width, width))
    key.weight[:width] = one
    key.bias[:width] = 0
    asked.weight[:, :, :width] = _QUERY * one.t()
    assert asked.bias is not None
    asked.bias[:, :, :width] = 0


def _same_side_of_parts(layer: HstuLayer) -> None:
    """W_Q = W_K, orthogonal, without biases, in HSTU's one map to U, V, Q and K."""
    width = layer.mapped.weight.shape[1]
    one = nn.init.orthogonal_(torch.empty(width, width))
    layer.mapped.weight[2 * width :] = torch.cat([_QUERY * one, one])
    layer.mapped.bias[2 * width :] = 0


def _pass_one(ask: nn.Linear, place: int) -> None:
    """The token at a place among several, side by side, plus a small random map of all."""
    width = len(ask.weight)
    ask.weight.mul_(_REST)
    ask.weight[:, place * width : (place + 1) * width] += torch.eye(width)

"""How much of exact attention a search finds: of SIM, ETA and TWIN, which attend to K of a history's events.

    a_j = 1/H Σ_h softmax_j(q_h K_hᵀ / √d + β)    over all L events: attention without the search
    events  share of the K events with the largest a_j that the search keeps
    weight  Σ a_j over the events that it keeps

Both are 1 where a history has at most K events; such candidates are not counted. A hard search may keep fewer
than K. SDIM keeps no events, so it has no recall.

Source: TWIN (arXiv 2302.02352), section 5, counts how many of the 100 events that matter most were found.

B candidates, P pairs of a candidate and an event of its request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.blocks.jagged import offsets_of
from ctr.blocks.request_map import RequestMap
from ctr.models.grid import Grid
from ctr.models.sequence.pair_scores import PairScores
from ctr.models.sequence.pairs import Pairs
from ctr.models.sequence.search import Search
from ctr.models.sequence.side import Candidates, SideState
from ctr.training.state import TrainingState


@dataclass(frozen=True)
class Recall:
    """Means over the candidates that were counted.

    Args:
        keep: K.
        candidates: how many had more than K events.
        events: share of the K events that weigh most.
        weight: share of the weight.
    """

    keep: int
    candidates: int
    events: float
    weight: float


def searches(model: nn.Module) -> bool:
    """Whether a model finds the events that it attends to, so that it has a recall."""
    return isinstance(model, Grid) and any(isinstance(side, Search) for side in model.sides)


@torch.inference_mode()
def measure_recall(
    state: TrainingState, batches: Iterable[Batch], *, bf16: bool, device: torch.device
) -> dict[str, Recall]:
    """Domain → what its search finds in some batches; without those whose histories are all short."""
    with state.for_scoring() as model:
        assert isinstance(model, Grid)
        found: list[list[Tensor]] = []
        for batch in batches:
            on_device = batch.to(device)
            rows = state.tables.lookup(on_device.unique_ids)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                found.append(_of_batch(model, on_device, rows))
        keeps = [side.config.keep for side in model.sides if isinstance(side, Search)]
        domains = zip(model.sequence_tokenizers.domains, keeps, zip(*found, strict=True), strict=True)
    whole = {domain: (keep, torch.cat(parts)) for domain, keep, parts in domains}
    return {
        domain: Recall(keep, len(shares), *shares.double().mean(dim=0).tolist())
        for domain, (keep, shares) in whole.items()
        if len(shares)
    }


def _of_batch(model: Grid, batch: Batch, rows: dict[str, Tensor]) -> list[Tensor]:
    """The `shares_found` of each domain."""
    state = model.encode(batch, rows)
    requests = RequestMap.build(batch.request_index, requests=batch.num_requests)
    ns_tokens = model.ns_tokenizer.score(state.features, batch, rows, requests)
    asked = model.questions(ns_tokens, batch, rows, requests)
    return [
        shares_found(side, kept, own)
        for side, kept, own in zip(model.sides, state.sides, asked, strict=True)
        if isinstance(side, Search)
    ]


def shares_found(side: Search, state: SideState, candidates: Candidates) -> Tensor:
    """(n, 2): events and weight found, of each of the n candidates with more than K events."""
    assert state.events is not None
    layout, keep = PairScores.of(state.events, candidates.requests), side.config.keep
    pairs = Pairs.of(state.events, candidates.requests)
    weights = side.exact_weights(state, candidates, layout, pairs)
    found = side.search(state, candidates, layout)
    kept, best = torch.zeros_like(weights), torch.zeros_like(weights)
    begin = candidates.requests.to_rows(state.events.offsets[:-1]) - offsets_of(pairs.counts())[:-1]
    each = torch.arange(len(state.events.values), device=begin.device)
    kept[found.of_events(each) - begin[found.owner]] = 1
    best[pairs.top(weights, keep)] = 1
    shares = torch.stack([pairs.sum(kept * best) / keep, pairs.sum(kept * weights)], dim=1)
    return shares[pairs.counts() > keep]


def recall_rows(found: Mapping[str, Recall], *, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the journal gets, kind and values: the shares of each domain; nothing if none was found."""
    parts = [
        {"name": [domain], "figures": {"events": own.events, "weight": own.weight}}
        for domain, own in found.items()
    ]
    if parts:
        yield "search", {"split": split, "parts": parts}


def describe_recall(found: Mapping[str, Recall]) -> list[str]:
    """A line for each domain.

    Example:
        >>> describe_recall({"view": Recall(50, 1200, 0.934, 0.981)})
        ['view: finds 93.4 % of the 50 events that weigh most, 98.1 % of the weight (1,200 candidates)']
    """
    return [
        f"{domain}: finds {own.events:.1%} of the {own.keep} events that weigh most, "
        f"{own.weight:.1%} of the weight ({own.candidates:,} candidates)".replace("%", " %")
        for domain, own in found.items()
    ]

"""Strategies side by side: ranked items of the same requests, how good they are, and what they cost.

R requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ctr.generate.chosen_requests import ChosenRequests
from ctr.generate.config import GenerateConfig
from ctr.generate.decoding import Decoder
from ctr.generate.metrics import coverage, diversity, ndcg, recall
from ctr.generate.ordering import Ranked, with_rewards
from ctr.generate.ranking import Ranker
from ctr.generate.training import generator_loader
from features.durable import replacing
from features.errors import ConfigError


@dataclass(frozen=True)
class Retrieved:
    """Ranked items of all requests, and the seconds that they took."""

    ranked: list[Ranked]
    seconds: float

    @property
    def items(self) -> list[list[int]]:
        """The items alone, best first."""
        return [[item for item, _ in own] for own in self.ranked]


def retrieve(
    decoder: Decoder, requests: ChosenRequests, config: GenerateConfig, ranker: Ranker | None
) -> Retrieved:
    """Decode all requests; what the click model adds is part of the time.

    Raises:
        ConfigError: the strategy re-weights, and no ranker is named.
    """
    how = decoder.strategy.reward
    if how is not None and ranker is None:
        raise ConfigError("generation.ranker must name a trained run where a strategy has a reward, got none")
    torch.manual_seed(config.seed)
    started = time.monotonic()
    found: list[Ranked] = []
    loader = generator_loader(config, requests.view, config.generation.split, train=False)
    for batch in loader.iterate(0):
        start = len(found)
        rewards, unwanted = None, requests.seen[start : start + batch.num_requests]
        if how is not None and how.when == "tokens" and ranker is not None:
            whose = requests.positions[start : start + batch.num_requests]
            rewards = _all_rewards(ranker, config.generation.split, whose, decoder.ids.items)
        found += decoder(batch, rewards, unwanted if config.generation.exclude_seen else None)
    found = [_new(own, seen, config) for own, seen in zip(found, requests.seen, strict=True)]
    if how is not None and how.when == "items" and ranker is not None:
        clicks = click_scores(ranker, requests, config, found)
        found = [with_rewards(own, c, weight=how.weight) for own, c in zip(found, clicks, strict=True)]
    found = [own[: config.generation.items] for own in found]
    return Retrieved(found, time.monotonic() - started)


def timed(ranks: Callable[[], list[Ranked]]) -> Retrieved:
    """What a baseline gives, with its time."""
    started = time.monotonic()
    found = ranks()
    return Retrieved(found, time.monotonic() - started)


def click_scores(
    ranker: Ranker, requests: ChosenRequests, config: GenerateConfig, ranked: Sequence[Ranked]
) -> list[dict[int, float]]:
    """For each request, the click probability of its items."""
    items = [np.array([item for item, _ in own], dtype=np.int64) for own in ranked]
    scores = ranker.score(config.generation.split, requests.positions, items)
    return [dict(zip(i.tolist(), s.tolist(), strict=True)) for i, s in zip(items, scores, strict=True)]


def figures(
    found: Retrieved, requests: ChosenRequests, vectors: np.ndarray, *, items: int, ks: Sequence[int]
) -> dict[str, float]:
    """Quality, breadth and time of one way to retrieve."""
    lists = found.items
    values: dict[str, float] = {}
    for k in ks:
        values[f"recall@{k}"] = recall(lists, requests.wanted, k=k)
        values[f"ndcg@{k}"] = ndcg(lists, requests.wanted, k=k)
        values[f"coverage@{k}"] = coverage(lists, items=items, k=k)
        values[f"diversity@{k}"] = diversity(lists, vectors, k=k)
    return {**values, "ms_per_request": 1000 * found.seconds / max(1, len(lists))}


def ranked_figures(
    found: Retrieved, clicks: Sequence[dict[int, float]], requests: ChosenRequests, *, ks: Sequence[int]
) -> dict[str, float]:
    """The same items in the order of the click model: retrieve, then rank."""
    lists = [
        sorted((item for item, _ in own), key=lambda item, c=c: -c[item])  # type: ignore[misc]
        for own, c in zip(found.ranked, clicks, strict=True)
    ]
    values = {f"ranked_recall@{k}": recall(lists, requests.wanted, k=k) for k in ks}
    return values | {f"ranked_ndcg@{k}": ndcg(lists, requests.wanted, k=k) for k in ks}


def write_items(
    path: Path,
    found: Retrieved,
    clicks: Sequence[dict[int, float]] | None,
    requests: ChosenRequests,
    codes: np.ndarray,
) -> int:
    """Write a row per request and item, best first; the file appears whole or not at all. Returns the rows.

    Columns: request_id, user_id, time, rank (from 1), item (row of the item table), item_id (code of the data
    set's keys), score, click (probability by the ranker, null without one).
    """
    counts = [len(own) for own in found.ranked]
    items = np.array([item for own in found.ranked for item, _ in own], dtype=np.int64)
    columns = {name: requests.data.requests[name].to_numpy() for name in ("request_id", "user_id", "time")}
    table = {name: np.repeat(values, counts) for name, values in columns.items()}
    ranks = [rank for count in counts for rank in range(1, count + 1)]
    table["rank"] = np.array(ranks, dtype=np.int32)
    table |= {"item": items, "item_id": codes[items]}
    table["score"] = np.array([score for own in found.ranked for _, score in own], dtype=np.float64)
    clicked: list[float | None] = [None] * len(items)
    if clicks is not None:
        clicked = [c[item] for own, c in zip(found.ranked, clicks, strict=True) for item, _ in own]
    whole = pa.table(table).append_column("click", pa.array(clicked, pa.float64()))
    with replacing(path, point="retrieval") as partial:
        pq.write_table(whole, partial, write_page_checksum=True)
    return len(items)


def as_markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table, a line for each strategy.

    Example:
        >>> print(as_markdown({"beam": {"recall@20": 0.125}}))
        | strategy | recall@20 |
        |---|---|
        | beam | 0.1250 |
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| strategy | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for strategy, row in rows.items():
        shown = [_shown(name, row.get(name)) for name in names]
        lines.append(f"| {strategy} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if name.startswith("ms") else f"{value:.4f}"


def _new(ranked: Ranked, seen: np.ndarray, config: GenerateConfig) -> Ranked:
    if not config.generation.exclude_seen:
        return ranked
    gone = set(seen.tolist())
    return [pair for pair in ranked if pair[0] not in gone]


def _all_rewards(ranker: Ranker, split: str, positions: np.ndarray, items: Tensor) -> Tensor:
    """(R, I): of every item."""
    scores = ranker.score(split, positions, [items.numpy()] * len(positions))
    return torch.from_numpy(np.stack(scores)).float()

"""Which rank of a job makes which part of the batches, and which requests go into one micro-batch.

In training every rank takes some requests of each batch, so that all ranks take the same steps together. The
cost of a request is its number of events and rows: requests are assigned from the costliest on, each to the
rank whose sum is smallest so far. In scoring the ranks take whole batches in turn, so that every batch, and
with it every score, is computed exactly as by a single process.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctr.loader.columns import WindowData


@dataclass(frozen=True)
class Shard:
    """The part of the batches that one rank makes."""

    rank: int = 0
    ranks: int = 1
    of: Literal["batch", "epoch"] = "batch"  # requests of each batch, or every ranks-th batch

    @property
    def stride(self) -> int:
        """How many batches of the plan the ranks make together in one step."""
        return self.ranks if self.of == "epoch" else 1

    def steps(self, batches: int) -> int:
        """Steps of an epoch, the same for all ranks.

        Example:
            >>> Shard(1, 3, of="epoch").steps(7), Shard(1, 3).steps(7)
            (3, 7)
        """
        return -(-batches // self.stride)


def request_costs(window: WindowData, picked: np.ndarray, max_len: Mapping[str, int]) -> np.ndarray:
    """Rows plus events of requests, int64 (R,); events that a batch cuts off are not counted."""
    requests, offsets = window.requests.plain, window.row_offsets
    cost = offsets[picked + 1] - offsets[picked]
    for domain, limit in max_len.items():
        length = requests[f"end.{domain}"][picked] - requests[f"start.{domain}"][picked]
        cost = cost + np.minimum(length.astype(np.int64), limit)
    return cost


def assign_requests(costs: np.ndarray, ranks: int) -> np.ndarray:
    """The rank of each request, int64 (R,): costliest first, each to the rank with the least so far.

    The costliest rank exceeds the cheapest by one request's cost at most. A pure function: every rank
    computes the whole of it and takes its own.

    Args:
        costs: of the requests, (R,) ≥ 0.
        ranks: how many there are.

    Example:
        >>> assign_requests(np.array([1, 9, 2, 3, 3]), 2).tolist()
        [1, 0, 1, 1, 1]
    """
    rank_of = np.zeros(len(costs), dtype=np.int64)
    loads = [(0, rank) for rank in range(ranks)]
    for request in np.argsort(-costs, kind="stable").tolist():
        load, rank = loads[0]
        rank_of[request] = rank
        heapq.heapreplace(loads, (load + int(costs[request]), rank))
    return rank_of

"""Scores of candidates with all events of their requests, as matrices: a number for a pair, never a vector.

    request 0: events a b, candidates x y      [xa xb]        requests of similar length stand together in a
    request 1: event c, candidate z            [ya yb]  [zc]  bucket (R_b, C, L_b); padding scores -inf

B candidates, R requests, L events of one request, C candidates of one, K kept events, P pairs, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctr.blocks.jagged import Jagged
from ctr.blocks.length_buckets import LengthBuckets
from ctr.blocks.request_map import RequestMap
from ctr.models.sequence.pairs import Pairs


@dataclass(frozen=True, eq=False)
class PairScores:
    """The layout of such matrices; made with `PairScores.of`.

    Args:
        events: of the R requests; their values do not matter.
        requests: maps B to R.
        buckets: of the requests.
        rows: (R_b, C) int64 of each bucket: the candidate in each row of a matrix, -1 where there is none.
        begin: (R_b,) int64 of each: the first event of each request.
    """

    events: Jagged
    requests: RequestMap
    buckets: LengthBuckets
    rows: list[Tensor]
    begin: list[Tensor]

    @classmethod
    def of(cls, events: Jagged, requests: RequestMap) -> PairScores:
        """The layout of the pairs of these requests."""
        buckets, slots = LengthBuckets.of(events), requests.slots
        rows = slots.new_full((requests.requests * requests.max_candidates,), -1)
        rows = rows.index_copy(0, slots, torch.arange(len(slots), device=slots.device))
        each = buckets.to_buckets(rows.view(requests.requests, requests.max_candidates))
        return cls(events, requests, buckets, each, buckets.to_buckets(events.offsets[:-1]))

    def products(self, query: Tensor, key: Tensor, bias: Tensor | None = None) -> list[Tensor]:
        """(R_b, C, L_b) of each bucket: q_i · k_j + b_j, in float32 at least.

        Args:
            query: (B, D).
            key: (ΣL, D).
            bias: (ΣL,).
        """
        wide = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            asked = self.buckets.to_buckets(self.requests.pack(query[:, None].to(wide)))
            each = [q @ k.transpose(1, 2) for q, k in zip(asked, self._padded(key.to(wide)), strict=True)]
            if bias is None:
                return each
            biases = self._padded(bias[:, None].to(wide))
            return [scores + b.transpose(1, 2) for scores, b in zip(each, biases, strict=True)]

    def equal(self, asked: Tensor, own: Tensor) -> list[Tensor]:
        """0 where the ID of a candidate (B,) is that of an event (ΣL,), -inf elsewhere."""
        of_candidates = self.buckets.to_buckets(self.requests.pack(asked[:, None, None]))
        pairs = zip(of_candidates, self._padded(own[:, None]), strict=True)
        return [torch.where(a == b.transpose(1, 2), 0.0, -torch.inf) for a, b in pairs]

    def of_pairs(self, scores: Sequence[Tensor], pairs: Pairs) -> Tensor:
        """(P,): the scores of all pairs, one after another."""
        flat = self.buckets.unpad([each.transpose(1, 2) for each in scores], self.events).values  # (ΣL, C)
        event = torch.arange(len(flat), device=flat.device) if pairs.event is None else pairs.event
        candidate = self.requests.slots % self.requests.max_candidates
        return flat.flatten()[event * flat.shape[1] + candidate[pairs.owner]]

    def best(self, scores: Sequence[Tensor], count: int) -> tuple[Pairs, Tensor]:
        """The `count` events of each candidate with the largest scores above -inf, and these; oldest first.

        Of equal ones the newest. What is no number counts as the largest, so that it is seen behind.
        """
        owners, events, values = [], [], []
        for each, rows, begin, valid in zip(scores, self.rows, self.begin, self._valid(), strict=True):
            there = (rows >= 0)[..., None]
            there = there if valid is None else there & valid[:, None]
            if not bool(there.all()):
                each = each.masked_fill(~there, -torch.inf)
            request, candidate, place = _largest(each, count).nonzero(as_tuple=True)
            owners.append(rows[request, candidate])
            events.append(begin[request] + place)
            values.append(each[request, candidate, place])
        owner = torch.cat(owners)
        order = owner.argsort(stable=True)
        found = Pairs(owner[order], torch.cat(events)[order], self.requests.candidates)
        return found, torch.cat(values)[order]

    def _padded(self, values: Tensor) -> list[Tensor]:
        return self.buckets.pad(self.events.with_values(values))

    def _valid(self) -> list[Tensor | None]:
        return self.buckets.valid(self.events)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Bool (…, L): whether a score is above -inf and one of the `count` largest; the newest of equals."""
    if scores.shape[-1] <= count:
        return scores != -torch.inf
    best = scores.topk(count + 1, dim=-1).values
    if bool(best[..., 0].isnan().any()):
        return _largest(scores.nan_to_num(torch.inf, torch.inf, -torch.inf), count)
    least, next_one = best[..., -2:-1].clamp(min=torch.finfo(scores.dtype).min), best[..., -1:]
    chosen = scores >= least
    if bool((next_one < least).all()):
        return chosen
    equal, above = scores == least, scores > least
    from_newest = equal.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)  # the newest equal is 1
    return above | (equal & (from_newest <= count - above.sum(-1, keepdim=True)))

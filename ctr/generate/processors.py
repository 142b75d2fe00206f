"""Plug-ins of the library's `generate`: each changes the scores of the next token.

Each is called with the tokens so far (Q, L) and scores (Q, V), and returns scores. In beam search these are
log-probabilities, to which a beam's sum is added afterwards; else logits. −inf: never.

R requests, Q sequences (those of a request side by side), V tokens in all, P nodes of the trie.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctr.generate.auxiliary_model import AuxiliaryModel
from ctr.generate.trie import Trie

NEVER = -torch.inf


class ItemConstraint:
    """Constrained decoding: only tokens that lead to an existing item, or to one open to the request.

    Args:
        trie: of the items.
        begin: where generated tokens begin in the sequences.
        open_nodes: bool (R, P), whether a node leads to an item that the request may be given; None: all do.
    """

    def __init__(self, trie: Trie, *, begin: int, open_nodes: Tensor | None = None) -> None:
        self.trie, self.begin, self.open_nodes = trie, begin, open_nodes

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the head of the file."""
        query, edge = self.trie.children(self.trie.walk(input_ids[:, self.begin :]))
        if self.open_nodes is not None:
            request = query // (len(scores) // len(self.open_nodes))
            kept = self.open_nodes[request, edge + 1]
            query, edge = query[kept], edge[kept]
        found = torch.full_like(scores, NEVER)
        token = self.trie.keys[edge] % self.trie.vocabulary
        found[query, token] = scores[query, token]
        return found


class Ensemble:
    """The mean probability of several models: log ((p + Σ_m p_m) / (1 + M)).

    Args:
        others: the M models beside the one that generates.
        begin: where generated tokens begin.
    """

    def __init__(self, others: Sequence[AuxiliaryModel], *, begin: int) -> None:
        self.others, self.begin = list(others), begin

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the head of the file."""
        found = [scores.float().log_softmax(-1)]
        found += [other.log_probs(input_ids[:, self.begin :])[:, -1] for other in self.others]
        mean: Tensor = torch.stack(found).logsumexp(0) - torch.tensor(float(len(found))).log()
        return mean


class Contrastive:
    """Expert minus amateur, among tokens that the expert finds plausible.

        s = log p_expert − w log p_amateur    where p_expert ≥ α max p_expert, else −inf

    Source: Contrastive decoding (arXiv 2210.15097), section 3; w = 1 there.

    Args:
        amateur: the weaker model.
        weight: w.
        plausible: α.
        begin: where generated tokens begin.
    """

    def __init__(self, amateur: AuxiliaryModel, *, weight: float, plausible: float, begin: int) -> None:
        self.amateur, self.weight, self.begin = amateur, weight, begin
        self.margin = torch.tensor(plausible).log()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the head of the file."""
        expert = scores.float().log_softmax(-1).nan_to_num(nan=NEVER)
        good = expert >= expert.amax(-1, keepdim=True) + self.margin
        other = self.amateur.log_probs(input_ids[:, self.begin :])[:, -1]
        return (expert - self.weight * other).masked_fill(~good | (expert == NEVER), NEVER)


class PrefixReward:
    """Each token by what may still come of it: p(x_t | x_<t) v(x_≤t)^w, normalised, v the mean of a reward
    over the items that begin so.

    Source: FUDGE (arXiv 2104.05218), equation 2.
    Differs from the paper: v is exact over the catalogue, all items alike, not a classifier of prefixes.

    Args:
        trie: of the items; comes after `ItemConstraint`.
        values: (R, P) positive, from `Trie.prefix_means`.
        weight: w.
        begin: where generated tokens begin.
    """

    def __init__(self, trie: Trie, values: Tensor, *, weight: float, begin: int) -> None:
        self.trie, self.weight, self.begin = trie, weight, begin
        self.values = values.clamp(min=1e-9).log()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the head of the file."""
        query, edge = self.trie.children(self.trie.walk(input_ids[:, self.begin :]))
        request = query // (len(scores) // len(self.values))
        bonus = torch.zeros_like(scores, dtype=torch.float32)
        bonus[query, self.trie.keys[edge] % self.trie.vocabulary] = self.values[request, edge + 1]
        changed = scores.float().log_softmax(-1) + self.weight * bonus
        return changed.log_softmax(-1).nan_to_num(nan=NEVER)


class Diversity:
    """Diverse beam search: a group of beams avoids the tokens that earlier groups took at the same step.

        s(x) = log p(x) − λ · (beams of earlier groups that took x)

    What a group does depends on earlier groups alone, so groups run one after the other: give the same
    object to every run, and call `finish` after each.

    Source: Diverse beam search (arXiv 1610.02424), section 3.2 with Hamming diversity.

    Args:
        requests: R.
        penalty: λ.
        begin: where generated tokens begin.
    """

    def __init__(self, requests: int, *, penalty: float, begin: int) -> None:
        self.requests, self.penalty, self.begin = requests, penalty, begin
        self.taken: dict[int, Tensor] = {}  # step → (R, V) counts of finished groups
        self._own: dict[int, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See the head of the file."""
        step = input_ids.shape[1] - self.begin
        if step:
            self._count(step - 1, input_ids[:, -1], scores.shape[-1])
        if step not in self.taken:
            return scores
        width = len(scores) // self.requests
        return scores - self.penalty * self.taken[step].repeat_interleave(width, 0)

    def finish(self, generated: Tensor, *, vocabulary: int) -> None:
        """End a group with the tokens (Q, T) of all its beams."""
        self._count(generated.shape[1] - 1, generated[:, -1], vocabulary)
        for step, counts in self._own.items():
            self.taken[step] = self.taken.get(step, torch.zeros_like(counts)) + counts
        self._own = {}

    def _count(self, step: int, tokens: Tensor, vocabulary: int) -> None:
        chosen = tokens.reshape(self.requests, -1)
        counts = torch.zeros(self.requests, vocabulary)
        self._own[step] = counts.scatter_add_(1, chosen, torch.ones(chosen.shape))

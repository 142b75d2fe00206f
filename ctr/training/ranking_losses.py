"""Losses within a request: what counts is which of its rows score above which.

B rows of R requests; W_r is what the known rows of request r weigh. Both losses are Σ_r W_r ℓ_r, to be
divided by what the rows of the batch weigh; ℓ_r is 0 where a request has no positive or no negative. Rows of
weight 0 are not there, and a row of weight k counts as k equal rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pairwise(logits: Tensor, label: Tensor, weight: Tensor, request_index: Tensor) -> Tensor:
    """Σ_r W_r ℓ_r with ℓ_r the mean over pairs of −log σ(s_i − s_j), i a positive and j a negative of r.

        ℓ_r = Σ_ij w_i w_j softplus(s_j − s_i) / Σ_ij w_i w_j

    Args:
        logits, label, weight: (B,) float32; weights ≥ 0.
        request_index: int64 (B,), non-decreasing.

    Source: Burges et al., Learning to Rank using Gradient Descent (2005), equation 3, with known targets.
    """
    positive, negative = _pairs(label, weight, request_index)
    both = weight[positive] * weight[negative]
    loss = both * F.softplus(logits[negative] - logits[positive])
    requests = _requests(request_index)
    sums = [logits.new_zeros(requests).index_add(0, request_index[positive], v) for v in (loss, both)]
    return _weighted(sums[0], sums[1], weight, request_index)


def listwise(logits: Tensor, label: Tensor, weight: Tensor, request_index: Tensor) -> Tensor:
    """Σ_r W_r ℓ_r with ℓ_r the softmax cross-entropy of the positives among all rows of r.

        ℓ_r = −Σ_i w_i y_i (s_i − log Σ_j w_j e^{s_j}) / Σ_i w_i y_i

    Args:
        logits, label, weight: (B,) float32; weights ≥ 0.
        request_index: int64 (B,), non-decreasing.

    Source: Cao et al., Learning to Rank: From Pairwise to Listwise (2007), section 4, top-one probabilities;
    Bruch et al., An Analysis of the Softmax Cross Entropy Loss (2019), equation 3, for labels of 0 and 1.
    """
    requests = _requests(request_index)
    zeros = logits.new_zeros(requests)
    there = weight > 0
    masked = torch.where(there, logits.detach(), -torch.inf)
    top = zeros.new_full((requests,), -torch.inf).scatter_reduce(0, request_index, masked, "amax")
    top = torch.where(top.isfinite(), top, 0.0)  # a constant: it cancels
    shifted = torch.where(there, logits - top[request_index], 0.0)
    mass = zeros.index_add(0, request_index, weight * shifted.exp())
    log_mass = torch.where(mass > 0, mass, 1.0).log()
    own = weight * label
    loss = zeros.index_add(0, request_index, own * (log_mass[request_index] - shifted))
    positives = zeros.index_add(0, request_index, own)
    negatives = zeros.index_add(0, request_index, weight * (1.0 - label))
    return _weighted(loss, torch.where(negatives > 0, positives, 0.0), weight, request_index)


def _pairs(label: Tensor, weight: Tensor, request_index: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the positive and the negative of every pair of rows that a request has."""
    there = weight > 0
    pos, neg = (torch.nonzero(there & which).flatten() for which in (label > 0, label <= 0))
    counts = torch.bincount(request_index[neg], minlength=_requests(request_index))
    first = counts.cumsum(0) - counts  # of each request among the negatives, which are in its order
    partners = counts[request_index[pos]]
    positive = pos.repeat_interleave(partners)
    start = (first[request_index[pos]] - (partners.cumsum(0) - partners)).repeat_interleave(partners)
    return positive, neg[start + torch.arange(len(positive), device=label.device)]


def _requests(request_index: Tensor) -> int:
    return int(request_index[-1]) + 1 if len(request_index) else 0


def _weighted(loss: Tensor, of: Tensor, weight: Tensor, request_index: Tensor) -> Tensor:
    """Σ_r W_r loss_r / of_r over the requests where `of` is above 0."""
    mass = torch.zeros_like(of).index_add(0, request_index, weight)
    return (mass * torch.where(of > 0, loss / torch.where(of > 0, of, 1.0), 0.0)).sum()

"""Tasks that exist only where another one happened, such as a purchase given a click, and their joint chance.

For a task t with the ancestors 1 … t−1 (the first has none), each with its logit a_i:

    p = Π_i σ(a_i)                              all of them happen, such as pCTCVR = pCTR · pCVR
    log p       = Σ_i log σ(a_i)
    log (1 − p) = log Σ_i exp(log σ(−a_i) + Σ_{j<i} log σ(a_j))        it ends at stage i
    joint logit = log p − log (1 − p)

Both logarithms are sums of terms of one sign, so nothing cancels, however small or near 1 p is.

B candidates, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ctr.batch import Target
from features.dataset import TaskInfo


def joint_logit(logits: Tensor, chain: Sequence[int]) -> Tensor:
    """The log-odds (B,) that all tasks of a chain happen, from logits (B, K)."""
    if len(chain) == 1:
        return logits[:, chain[0]]
    stages = logits[:, list(chain)]
    happened = logsigmoid(stages).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(happened[:, :1]), happened[:, :-1]], dim=1)
    ended = torch.logsumexp(before + logsigmoid(-stages), dim=1)
    return happened[:, -1] - ended


def joint_target(chain: Sequence[TaskInfo], targets: Mapping[str, Target]) -> Target:
    """Whether all tasks of a chain happened: known where one did not, and where all are known.

    A row counts as the task that decides it: the first that did not happen, or the last one. `total` is that
    of the first task, so the loss is a mean over its impressions: those whose end is not known yet are among
    them and add nothing.
    """
    first, *later = (targets[task.name] for task in chain)
    label, known, weight = first.label, first.known, _weight(first)
    for target in later:
        going_on = known & (label > 0)
        label = torch.where(going_on, target.label, label)
        weight = torch.where(going_on, _weight(target), weight)
        known = known & (~going_on | target.known)
    return Target(torch.where(known, label, 0), known, weight, total=first.whole)


def _weight(target: Target) -> Tensor:
    return torch.ones_like(target.label) if target.weight is None else target.weight

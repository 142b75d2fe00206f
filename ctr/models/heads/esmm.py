"""ESMM, the entire space model: conversions learned over all impressions, not over clicked ones alone.

    pCTR = σ(a),  pCVR = σ(b)                 a, b the logits of two towers on one bottom
    pCTCVR = pCTR · pCVR                      a click and a conversion
    loss = BCE(click, pCTR) + BCE(click ∧ conversion, pCTCVR)          over all impressions

pCVR has no loss of its own: it is what pCTCVR must be divided by pCTR, and every impression has a say in it.
A model of conversions that learns from clicked rows alone is asked, on all others, for what it never saw. A
label's `given` names its parent, so longer chains (click, cart, purchase) are products of all stages; pCTCVR
is computed from log-odds (`ctr.models.heads.chains`).

Source: Ma et al., Entire Space Multi-Task Model (SIGIR 2018), equations 2 to 4. Differs: the towers share all
of the model, not the embeddings alone.

B candidates, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ctr.batch import Batch
from ctr.models.heads.chains import joint_logit, joint_target
from ctr.models.heads.config import Learned, TasksConfig
from ctr.models.heads.shared_bottom import SharedBottom
from ctr.models.heads.towers import HeadSizes
from features.dataset import TaskInfo, chain_of
from features.errors import ConfigError


class EsmmConfig(TasksConfig):
    """Nothing but the towers of `model.head_hidden`."""

    kind: Literal["esmm"] = "esmm"

    def build(self, sizes: HeadSizes) -> nn.Module:
        """A new head: a tower for each task, logits of what its `given` is given."""
        return SharedBottom(sizes, [])

    def check(self, tasks: Sequence[TaskInfo]) -> None:
        """Each task but the first of a chain needs its parent, and all are yes or no."""
        names = [task.name for task in tasks]
        told = [f"{task.name} ({task.kind}, given {task.given or 'nothing'})" for task in tasks]
        whole = all(task.given is None or task.given in names for task in tasks)
        if not whole or all(t.given is None for t in tasks) or any(t.kind != "binary" for t in tasks):
            raise ConfigError(
                "tasks.kind esmm needs binary tasks, one of them with `given` naming another that the run "
                f"learns too, got {', '.join(told)}; name both in tasks.use, or choose another kind"
            )

    def learned(self, logits: Tensor, batch: Batch, tasks: Sequence[TaskInfo]) -> list[Learned]:
        """Of each task whether it and all before it happened, over the impressions of the first one."""
        if batch.offset is not None:  # the chance of a click among the rows that were kept
            logits = torch.cat([logits[:, :1] + batch.offset[:, None], logits[:, 1:]], dim=1)
        chains = [chain_of(task, tasks) for task in tasks]
        return [
            Learned(joint_logit(logits, chain), joint_target([tasks[i] for i in chain], batch.targets))
            for chain in chains
        ]

"""Permutation importance: what the AUC of a trained model loses when one feature says nothing; no retraining.

The values of a feature are exchanged among the rows of each batch (`ctr.ablate.permute`), those of a domain
as whole histories, and the same rows are scored again. The interval resamples users, the same in both scores,
so it covers another sample of users, not another exchange or another training. What two features both tell
counts for neither.

Source: Breiman, Random Forests, Machine Learning 45 (2001), section 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ctr.ablate.permute import PermutedBatches
from ctr.batch import Batch
from ctr.compare.paired import Paired, paired_sums
from ctr.loader import Loader
from ctr.metrics import MetricValue
from ctr.metrics.bootstrap import MIN_CLUSTERS
from ctr.metrics.value import normal_interval
from ctr.training.scoring import BatchSource, probability, score_batches
from ctr.training.state import TrainingState
from features.dataset import Manifest

DRAWS = 200


class HeldBatches:
    """Batches in memory, as a source that can be read again."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = list(batches)

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Those from a step on."""
        yield from self.batches[start_step:]


def sample_batches(loader: Loader, rows: int) -> HeldBatches:
    """About so many rows: whole batches, evenly spaced over a part, at least one."""
    steps = loader.steps_per_epoch(0)
    wanted = max(1, min(steps, round(rows / max(loader.config.batch_rows, 1))))
    chosen = {step * steps // wanted for step in range(wanted)}
    return HeldBatches([b for step, b in enumerate(loader.iterate(0)) if step in chosen])


def permutation_importance(
    state: TrainingState,
    batches: BatchSource,
    manifest: Manifest,
    *,
    bf16: bool,
    device: torch.device,
    seed: int = 0,
) -> dict[str, MetricValue]:
    """What each feature and each domain is worth: AUC minus the AUC without it.

    Args:
        state: the trained model and its tables.
        batches: rows that were not trained on, held in memory: they are read once for each feature.
        manifest: as the run sees the data set.
        bf16: whether the forward is computed in bfloat16.
        device: where.
        seed: of the exchanges and of the bootstrap.

    Returns:
        Name → the loss with its interval, None where the AUC is undefined.
    """
    names = [c.name for c in manifest.features] + list(manifest.domains)

    def scores(source: BatchSource) -> np.ndarray:
        found = score_batches(state, source.iterate(0), bf16=bf16, device=device)
        return probability(np.concatenate([logits for _, logits in found]))

    given = list(batches.iterate(0))
    label = np.concatenate([batch.label.numpy() for batch in given])
    user = np.concatenate([batch.user_id[batch.request_index].numpy() for batch in given])
    permuted = {name: scores(PermutedBatches(batches, [name], seed=seed)) for name in names}
    pairs = paired_sums(label, scores(batches), permuted, user=user, draws=DRAWS, seed=seed)
    return {name: _loss(pair) for name, pair in pairs.items()}


def _loss(pair: Paired) -> MetricValue:
    loss = -pair.delta("auc")
    if np.isnan(loss):
        return MetricValue(value=None, reason="only one class", n=pair.rows)
    metric = MetricValue(value=loss, n=pair.rows)
    if pair.clusters < MIN_CLUSTERS:
        reason = f"no interval: {pair.clusters} users are too few to resample (at least {MIN_CLUSTERS})"
        return MetricValue(value=loss, n=pair.rows, reason=reason)
    return normal_interval(metric, float(np.std(pair.drawn("auc"), ddof=1)), "user bootstrap")

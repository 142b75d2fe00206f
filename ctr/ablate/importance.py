"""Permutation importance: what the AUC of a trained model loses when one feature says nothing; no retraining.

The values of a feature are exchanged among the rows of each batch (`ctr.ablate.permute`), those of a domain
as whole histories, and the same rows are scored again. The interval resamples users, the same in both scores,
so it covers another sample of users, not another exchange or another training. What two features both tell
counts for neither.

Source: Breiman, Random Forests, Machine Learning 45 (2001), section 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ctr.ablate.permute import PermutedBatches
from ctr.batch import Batch
from ctr.compare.paired import Paired, paired_sums
from ctr.loader import Loader
from ctr.metrics import MetricValue
from ctr.metrics.bootstrap import MIN_CLUSTERS
from ctr.metrics.value import normal_interval
from ctr.training.outputs import Outputs
from ctr.training.scoring import BatchSource, labels_of, score_batches, tasks_of
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


def permutation_importances(
    state: TrainingState,
    batches: BatchSource,
    manifest: Manifest,
    *,
    bf16: bool,
    device: torch.device,
    seed: int = 0,
) -> dict[str, dict[str, MetricValue]]:
    """What each feature and each domain is worth to each output: AUC minus the AUC without it.

    Args:
        state: the trained model and its tables.
        batches: rows that were not trained on, held in memory: they are read once for each feature.
        manifest: as the run sees the data set.
        bf16: whether the forward is computed in bfloat16.
        device: where.
        seed: of the exchanges and of the bootstrap.

    Returns:
        Output, "" of a run without `tasks` → name → the loss with its interval, None where the AUC is
        undefined. Values that are no probabilities are left out.
    """
    names = [c.name for c in manifest.features] + list(manifest.domains)
    outputs = Outputs(tasks_of(state.model))

    def scores(source: BatchSource) -> list[np.ndarray]:
        found = score_batches(state, source.iterate(0), bf16=bf16, device=device)
        first, others = outputs.scores(np.concatenate([logits for _, logits in found]))
        return [first, *others]

    given = list(batches.iterate(0))
    labels = labels_of(given, outputs)
    user = np.concatenate([batch.user_id[batch.request_index].numpy() for batch in given])
    permuted = {name: scores(PermutedBatches(batches, [name], seed=seed)) for name in names}
    base, losses = scores(batches), {}
    for place, (label, known, _) in enumerate(labels):
        if not outputs.all[place].binary:
            continue
        without = {name: found[place][known] for name, found in permuted.items()}
        own = {"user": user[known], "draws": DRAWS, "seed": seed}
        pairs = paired_sums(label[known], base[place][known], without, **own)
        losses[outputs.names[place]] = {name: _loss(pair) for name, pair in pairs.items()}
    return losses


def item_losses(
    state: TrainingState,
    batches: BatchSource,
    items: Mapping[str, Sequence[str]],
    *,
    bf16: bool,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, MetricValue]]:
    """Labels, scores and users of the rows, and what each item, exchanged as a whole, is worth."""
    outputs = Outputs(tasks_of(state.model))

    def scores(source: BatchSource) -> np.ndarray:
        found = score_batches(state, source.iterate(0), bf16=bf16, device=device)
        return outputs.scores(np.concatenate([logits for _, logits in found]))[0]

    given = list(batches.iterate(0))
    label, known, _ = labels_of(given, outputs)[0]
    user = np.concatenate([batch.user_id[batch.request_index].numpy() for batch in given])[known]
    base = scores(batches)[known]
    permuted = {item: scores(PermutedBatches(batches, own))[known] for item, own in items.items()}
    pairs = paired_sums(label[known], base, permuted, user=user, draws=DRAWS) if permuted else {}
    return label[known], base, user, {item: _loss(pair) for item, pair in pairs.items()}


def _loss(pair: Paired) -> MetricValue:
    loss = -pair.delta("auc")
    if np.isnan(loss):
        return MetricValue(value=None, reason="only one class", n=pair.rows)
    metric = MetricValue(value=loss, n=pair.rows)
    if pair.clusters < MIN_CLUSTERS:
        reason = f"no interval: {pair.clusters} users are too few to resample (at least {MIN_CLUSTERS})"
        return MetricValue(value=loss, n=pair.rows, reason=reason)
    return normal_interval(metric, float(np.std(pair.drawn("auc"), ddof=1)), "user bootstrap")

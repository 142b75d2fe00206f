"""Batches of a data set, made ahead in background threads; each is a function of (seed, epoch, step) alone.

R requests, B candidates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial

import numpy as np

from ctr.batch import Batch
from ctr.config import LoaderConfig
from ctr.loader.collate import Collator
from ctr.loader.columns import WindowData, ranges, read_window
from ctr.loader.id_dropout import make_id_dropout
from ctr.loader.negatives import NegativeSampling
from ctr.loader.plan import EpochPlan, plan_epoch, window_order
from ctr.loader.prefetch import in_order
from ctr.loader.row_counts import Window, find_windows, rows_of
from ctr.loader.shard import Shard, assign_requests, request_costs
from ctr.loader.stats import batch_stats
from ctr.loader.targets import TEACHER, as_part, total_weights
from ctr.loader.teacher import Teacher
from ctr.tokens.ngram import NgramField
from features.dataset import Dataset, Manifest
from features.durable.faults import fault_point
from features.errors import ConfigError

__all__ = ["Loader", "Shard", "batch_stats", "history_lengths"]

# Windows kept open: the one that batches are made of, and the next, which another thread may have reached.
_OPEN_WINDOWS = 2


class Loader:
    """The batches of one split, or of several one after the other in time.

    Every batch is a pure function of (seed, epoch, step): a run resumed at a step sees bitwise the batches of
    an uninterrupted one, whatever the number of threads. Memory holds two windows of requests and the batches
    made ahead. With several ranks the batches are those of one process, assigned to them request by request.

    Args:
        dataset: an opened data set.
        split: `train`, `valid`, `test`, or several of them (the final fit).
        config: batch size, order and threads.
        seed: of the shuffle.
        patience: seconds without a batch after which the job fails.
        pin: whether batches lie in page-locked memory, which a GPU copies from while the CPU goes on.
        ngrams: fields of events whose n-grams are hashed as well.
        shard: the part that this rank makes.
        negatives: share of the rows with label 0 that an epoch has.
        teacher: what the rows of the one split are learned from beside their labels.

    Raises:
        ConfigError: max_len names an unknown domain or exceeds what the data set holds, or id_dropout an
            unknown table.
        DataError: no such split.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str | Sequence[str],
        config: LoaderConfig,
        *,
        seed: int,
        patience: float = 600.0,
        pin: bool = False,
        ngrams: Sequence[NgramField] = (),
        shard: Shard | None = None,
        negatives: float = 1.0,
        teacher: Teacher | None = None,
    ) -> None:
        self.config = config
        self.teacher = teacher
        self.shard = shard or Shard()
        self.pin = pin
        self.seed = seed
        self.patience = patience
        self.splits = (split,) if isinstance(split, str) else tuple(split)
        self._root, self._manifest = dataset.root, dataset.manifest
        self._data = [dataset.split(name) for name in self.splits]
        self._negatives = NegativeSampling(negatives, seed) if negatives < 1.0 else None
        self._windows = find_windows([data.requests["num_rows"] for data in self._data], config.window)
        stores = {domain: dataset.events(domain) for domain in dataset.manifest.domains}
        lengths = history_lengths(dataset.manifest, config.max_len)
        dropout = make_id_dropout(config.id_dropout, dataset.manifest, seed=seed)
        self._collate = Collator(
            dataset.manifest, stores, lengths, ngrams, id_dropout=dropout, row_maps=dataset.row_maps
        )
        self._plan = cache(self._plan_epoch)

    def steps_per_epoch(self, epoch: int) -> int:
        """Number of steps of an epoch, the same on all ranks; may differ a little between epochs, as requests
        are packed whole."""
        return self.shard.steps(self._plan(epoch).steps)

    def iterate(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start_step` on; the batches before it are not made.

        An exception while making a batch is raised where that batch would come, with notes of its thread, its
        number and the files that it is made from.
        """
        plan = self._plan(epoch)
        lock, open_window = threading.Lock(), lru_cache(_OPEN_WINDOWS)(partial(self._open, plan, epoch))

        def make(step: int) -> Batch:
            fault_point("loader.batch", step)
            window, number = plan.locate(self._batch_of(step, plan))
            with lock:
                data, order, cuts = open_window(window)
            picked = order[cuts[number] : cuts[number + 1]]
            batch = self._shard_of(step, plan, epoch, data, picked)
            return batch.pin_memory() if self.pin else batch

        def describe(step: int) -> str:
            split = self.splits[plan.windows[plan.locate(self._batch_of(step, plan))[0]].split]
            return (
                f"making batch {step} of epoch {epoch} from {self._root / split} and {self._root / 'events'}"
            )

        config = self.config
        yield from in_order(
            make,
            range(start_step, self.shard.steps(plan.steps)),
            workers=config.workers,
            ahead=config.prefetch,
            patience=self.patience,
            name="loader",
            describe=describe,
        )

    def _batch_of(self, step: int, plan: EpochPlan) -> int:
        """The batch of the plan that this rank makes in a step, or of which it makes a part."""
        shard = self.shard
        return min(step * shard.stride + (shard.rank if shard.of == "epoch" else 0), plan.steps - 1)

    def _shard_of(
        self, step: int, plan: EpochPlan, epoch: int, data: WindowData, picked: np.ndarray
    ) -> Batch:
        """The batch of this rank; without requests where there are too few for all ranks."""
        shard = self.shard
        if shard.of == "epoch":
            own = picked if step * shard.ranks + shard.rank < plan.steps else picked[:0]
            return self._collate(data, own, epoch)
        own = self._split(data, picked, shard.ranks)[shard.rank]
        batch = self._collate(data, own, epoch)
        if shard.ranks == 1 and self.config.micro_batches == 1:
            return batch
        starts = data.row_offsets[picked]
        rows, _ = ranges(starts, data.row_offsets[picked + 1] - starts)
        totals = total_weights(self._manifest.tasks, data.impressions.plain, rows)
        part_of_whole = partial(as_part, totals=totals, rows=len(rows))
        batch = part_of_whole(batch) if shard.ranks > 1 else batch
        return self._in_parts(batch, epoch, data, own, part_of_whole)

    def _in_parts(
        self,
        batch: Batch,
        epoch: int,
        data: WindowData,
        picked: np.ndarray,
        part_of_whole: Callable[[Batch], Batch],
    ) -> Batch:
        """The batch with its micro-batches, if there are several; their loss is a mean over the whole."""
        if self.config.micro_batches == 1:
            return batch
        assigned = self._split(data, picked, self.config.micro_batches)
        parts = (part_of_whole(self._collate(data, part, epoch)) for part in assigned if len(part))
        return replace(batch, parts=tuple(parts))

    def _split(self, data: WindowData, picked: np.ndarray, count: int) -> list[np.ndarray]:
        """Requests in parts of similar cost, each in the order of the batch."""
        if count == 1:
            return [picked]
        part_of = assign_requests(request_costs(data, picked, self._collate.max_len), count)
        return [picked[part_of == part] for part in range(count)]

    def _open(self, plan: EpochPlan, epoch: int, index: int) -> tuple[WindowData, np.ndarray, np.ndarray]:
        """The columns of a window, the order of its requests in this epoch, and the cuts between batches."""
        window = plan.windows[index]
        data = read_window(self._data[window.split], window, self._manifest)
        if self.teacher is not None:
            rows_of_window = slice(window.first_row, window.first_row + window.totals.rows)
            data.impressions.plain[TEACHER] = self.teacher.logits[rows_of_window]
        data = data if self._negatives is None else self._negatives.thin(data, epoch=epoch)
        rows = np.diff(data.row_offsets)
        order = window_order(window, self.config, rows, seed=self.seed, epoch=epoch)
        return data, order, plan.cuts(index, rows[order])

    def _plan_epoch(self, epoch: int) -> EpochPlan:
        plan = self.config.decided_plan(sum(data.requests.num_rows for data in self._data))
        return plan_epoch(
            self._windows,
            partial(self._rows_of_requests, epoch),
            self.config.model_copy(update={"plan": plan}),
            seed=self.seed,
            epoch=epoch,
            drawn=self._negatives is not None,
        )

    def _rows_of_requests(self, epoch: int, window: Window) -> np.ndarray:
        """How many rows an epoch has of each request of a window."""
        data = self._data[window.split]
        counts = rows_of(data.requests["num_rows"], window.start, window.stop)
        if self._negatives is None:
            return counts
        shown = data.impressions.slice(window.first_row, window.totals.rows)
        row_id, label = (shown[name].to_numpy() for name in ("row_id", "label"))
        kept = np.cumsum(self._negatives.kept(row_id, label, epoch=epoch), dtype=np.int64)
        return np.diff(np.concatenate([[0], kept])[np.concatenate([[0], np.cumsum(counts)])])


def history_lengths(manifest: Manifest, max_len: Mapping[str, int]) -> dict[str, int]:
    """How many events of each domain a batch holds at most per request."""
    for domain, length in max_len.items():
        if domain not in manifest.domains:
            raise ConfigError(
                f"loader.max_len must name domains of {sorted(manifest.domains)}, got {domain!r}"
            )
        if length > (stored := manifest.domains[domain].max_len):
            raise ConfigError(
                f"loader.max_len.{domain} must be at most {stored} (what the data set holds), got {length}; "
                "prepare it with a larger max_len"
            )
    return {domain: max_len.get(domain, info.max_len) for domain, info in manifest.domains.items()}

"""The training loop: batches in, a trained and checkpointed model out.

Several ranks run the same loop: each trains on its share of every batch and scores its share of the
validation split; what is decided, all decide alike; rank 0 alone writes rows and draws. Everything that
decides what comes next (weights, optimizer, position in the data, random state, the best value so far) is in
`TrainingState`; a run killed at any moment goes on from its newest checkpoint and ends with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from ctr.batch import Batch
from ctr.checkpoint.background import CheckpointWriter
from ctr.checkpoint.checkpoint import load_latest, save_checkpoint
from ctr.checkpoint.directories import settle
from ctr.checkpoint.restore import describe_mismatch
from ctr.config import RunConfig
from ctr.distributed.on_all_ranks import run_on_all_ranks
from ctr.distributed.world import World
from ctr.embedding.restart import NO_RESTART, Restart
from ctr.errors import CheckpointError
from ctr.loader import Loader
from ctr.runs.directory import RunDir
from ctr.runs.signals import GracefulStop
from ctr.tracking import SilentTracker, Tracker
from ctr.training.column_gates import describe_gates, gate_rows, gate_values
from ctr.training.display import Display
from ctr.training.hidden import HiddenColumns, describe_gains, gain_rows
from ctr.training.scoring import BatchSource
from ctr.training.state import Progress, TrainingState
from ctr.training.step import Objective, StepResult, Updates
from ctr.training.validation import Interrupted, UntilSignal, describe, selection_value, validate
from features.durable.faults import fault_point
from features.errors import ConfigError


@dataclass(frozen=True)
class Outcome:
    """How a fit ended."""

    stopped_by: int | None  # the signal, if one ended it
    steps: int
    best_step: int | None
    best_value: float | None


class Trainer:
    """Runs the steps, evaluates, saves, and resumes.

    Args:
        config: the run.
        state: model, tables and optimizer, fresh; `fit` restores a checkpoint into it.
        train: loader of the training split.
        valid: loader of the validation split, or None for no evaluations.
        run_dir: where checkpoints go; locked by rank 0.
        tracker: takes every metric, of rank 0.
        display: shows progress, of rank 0.
        device: where the model lives.
        world: the processes of the job; this one alone if None.
        objective: from what the model gives to the loss; None: that of scored candidates.
        restart: tables that are drawn anew at each epoch but the first.
        hidden: says after each evaluation which ID columns are memorised; None: nothing does.
    """

    def __init__(
        self,
        config: RunConfig,
        state: TrainingState,
        *,
        train: Loader,
        valid: Loader | None,
        run_dir: RunDir,
        tracker: Tracker | SilentTracker,
        display: Display,
        device: torch.device,
        world: World | None = None,
        objective: Objective | None = None,
        restart: Restart = NO_RESTART,
        hidden: HiddenColumns | None = None,
    ) -> None:
        self.config = config
        self.state = state
        self.train = train
        self.valid: BatchSource | None = valid
        self.run_dir = run_dir
        self.tracker = tracker
        self.display = display
        self.device = device
        self.world = world or World.single(device)
        self.restart, self.hidden = restart, hidden
        steps = sum(train.steps_per_epoch(epoch) for epoch in range(config.train.epochs))
        self.total_steps = min(steps, config.train.max_steps or steps)
        self.updates = Updates(
            state.model,
            state.tables,
            state.optimizer,
            averaged=state.averaged,
            config=config,
            total_steps=self.total_steps,
            pending=state.pending,
            world=self.world,
            objective=objective,
        )
        behind = config.train.save_in_background
        self._writer = CheckpointWriter(run_dir.checkpoints, world=self.world) if behind else None
        self._clock = time.monotonic()
        self._rows_since = 0
        self._saved: int | None = None  # the step that this process saved last

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.state.progress

    def fit(self, stop: GracefulStop, *, until: int | None = None) -> Outcome:
        """Train to the end, early stopping, a signal or a pause; saves in each case. Call `resume` before.

        After a signal the step under way is finished and saved. An evaluation that is due then, or under way
        in a single process, is made when the run goes on.

        Args:
            stop: rises with a signal.
            until: pause when so many steps are done; a later call goes on as if there had been no pause.
        """
        self.display.start(step=self.progress.step, total=self.total_steps)
        self._clock = time.monotonic()
        if self.progress.evaluation_due:
            self._evaluate(stop)
            self._save()
        there = self.progress.evaluation_due or (until is not None and self.progress.step >= until)
        for batch, last_of_epoch in () if there else self._batches():
            stopping = self._one_step(batch, last_of_epoch, stop)
            pausing = stopping or self.progress.step == until
            if pausing and self._saved != self.progress.step:
                self._save()
            if pausing or self.progress.finished:
                break
        if self._writer is not None:
            self._writer.wait()
        signal = self.world.largest(stop.signal or 0) or None
        return Outcome(signal, self.progress.step, self.progress.best_step, self.progress.best_value)

    def resume(self) -> None:
        """Take on the newest checkpoint, if any, and begin the session; later journal rows are dropped.

        Raises:
            ConfigError: the ranks were started with different configurations or data sets.
        """
        self._check_ranks_agree()
        checkpoint = load_latest(self.run_dir.checkpoints, world=self.world)
        if checkpoint is not None:
            run_on_all_ranks(self.world, lambda: self.state.restore(checkpoint), failure=CheckpointError)
            if self.world.first:
                settle(checkpoint.path)  # of a job that was killed while it saved a step again
            self.updates.skipped_in_a_row = self.progress.skipped_in_a_row
            self.display.message(f"resuming after step {checkpoint.step}")
        self.tracker.resume_at(self.progress.step)

    def _check_ranks_agree(self) -> None:
        """One configuration and data set; and the dense weights of rank 0, should processors differ."""
        first = self.world.broadcast_json(self.state.identity)
        if first != self.state.identity:
            raise ConfigError(
                f"all ranks must have one configuration and data set, rank {self.world.rank} differs from "
                f"rank 0:\n{describe_mismatch(first, self.state.identity)}\nstart all with the same file"
            )
        self.world.copy_from_first(list(self.state.model.state_dict().values()))

    def _batches(self) -> Iterator[tuple[Batch, bool]]:
        """Batches from the saved position on, each with whether it ends its epoch."""
        while self.progress.epoch < self.config.train.epochs and not self.progress.finished:
            steps = self.train.steps_per_epoch(self.progress.epoch)
            for batch in self.train.iterate(self.progress.epoch, self.progress.step_in_epoch):
                yield batch, self.progress.step_in_epoch + 1 == steps

    def _one_step(self, batch: Batch, last_of_epoch: bool, stop: GracefulStop) -> bool:
        """Train on a batch, record, evaluate and save what is due; says whether to stop."""
        progress = self.progress
        fault_point("step", progress.step)
        if progress.epoch and not progress.step_in_epoch:
            tables = self.restart.tables
            self.state.tables.restart(tables, seed=self.config.seed, epoch=progress.epoch)
        on_device = batch.to(self.device, non_blocking=True)
        result = self.updates.step(on_device, progress.step, stopping=stop.requested)
        progress.step += 1
        progress.epoch, progress.step_in_epoch = (
            (progress.epoch + 1, 0) if last_of_epoch else (progress.epoch, progress.step_in_epoch + 1)
        )
        at_end = progress.step >= self.total_steps or progress.epoch >= self.config.train.epochs
        self._record(result, at_end)
        if at_end:
            self.updates.finish()
        every = self.config.train.evaluate_every
        evaluates = self.valid is not None and (at_end or (self._due(every) if every else last_of_epoch))
        progress.finished = progress.finished or at_end
        progress.evaluation_due = evaluates
        if evaluates and not self._stops(result, stop):
            self._evaluate(stop)
        if evaluates or progress.finished or self._due(self.config.train.checkpoint_every):
            self._save()
        return self._stops(result, stop)

    def _stops(self, result: StepResult, stop: GracefulStop) -> bool:
        """Whether a signal has come; of several ranks those are counted that came before the step."""
        return result.stopping if self.world.size > 1 else stop.requested

    def _due(self, every: int | None) -> bool:
        return every is not None and self.progress.step % every == 0

    def _record(self, result: StepResult, at_end: bool) -> None:
        """Count the step, show it, and write a journal row every few steps."""
        progress = self.progress
        progress.skipped_in_a_row = self.updates.skipped_in_a_row
        if result.loss is None:
            progress.skipped += 1
        else:
            counted = {"rows": result.weight, "positives": result.positives}
            progress.running.add(loss=result.loss, **counted, tasks=result.task_losses)
        self._rows_since += result.rows
        if self._due(self.config.tracking.log_every) or at_end:
            figures, now = progress.running.take(**self.updates.shown), time.monotonic()
            speed = self._rows_since / max(now - self._clock, 1e-9)
            self._clock, self._rows_since = now, 0
            values = {
                **figures,
                "grad_norm": result.grad_norm,
                "lr": result.rate,
                "skipped": progress.skipped,
                "dense_staleness": self.config.optimizer.dense_staleness,
                "bytes_in_flight": result.in_flight,
                **self._traffic(),
            }
            self.tracker.log("train", progress.step, values, wall={"rows_per_s": speed})
            self.display.step(step=progress.step, rows=result.rows, figures={**figures, "rows_per_s": speed})
        else:
            self.display.step(step=progress.step, rows=result.rows, figures={})

    def _traffic(self) -> dict[str, float]:
        """Bytes that all ranks together sent in the last step for sharded tables."""
        sent = self.state.tables.traffic()
        return dict(zip(sent, self.world.sums(*sent.values()), strict=True)) if sent else {}

    def _evaluate(self, stop: GracefulStop) -> None:
        """Score the validation split, remember the best, decide on early stopping; or stop at a signal."""
        assert self.valid is not None
        started, progress = time.monotonic(), self.progress
        try:  # several ranks would stop at different batches
            valid = UntilSignal(self.valid, stop) if self.world.size == 1 else self.valid
            figures = self.validation_metrics(valid)
            gains = self.hidden.measure(self.state) if self.hidden else []
        except Interrupted:
            progress.evaluation_due = True
            return
        progress.evaluation_due = False
        value = selection_value(figures, self.config.train.metric)
        better = value is not None and (progress.best_value is None or value > progress.best_value)
        if better:
            progress.best_value, progress.best_step = value, progress.step
        progress.evaluations_without_gain = 0 if better else progress.evaluations_without_gain + 1
        patience = self.config.train.early_stopping
        if patience and progress.evaluations_without_gain >= patience:
            progress.finished = True
        seconds = time.monotonic() - started
        self.tracker.log("valid", progress.step, figures, wall={"seconds": seconds})
        gates = gate_values(self.state.model)
        for kind, rows in (("hidden", gain_rows(gains)), ("gates", gate_rows(gates))):
            if rows["parts"]:
                self.tracker.log(kind, progress.step, rows)
        if better:
            self.tracker.log("best", progress.step, figures)
        shown = describe(figures, self.config.train.metric)
        self.display.message(f"step {progress.step}: validation {shown}{'  (best so far)' if better else ''}")
        for line in [*describe_gains(gains, self.restart.tables), *describe_gates(gates)]:
            self.display.message(line)
        self._clock += seconds  # rows/s speak of training alone

    def validation_metrics(self, valid: BatchSource) -> dict[str, float | None]:
        """Figures of the validation split, the same on all ranks, without intervals; None if undefined."""
        return validate(self.state, valid, self.config, device=self.device, world=self.world)

    def _save(self) -> None:
        """Write a checkpoint of this step; the best step's is never pruned."""
        progress = self.progress
        self.tracker.flush()
        root = self.run_dir.checkpoints
        save = self._writer.save if self._writer else partial(save_checkpoint, root, world=self.world)
        save(
            progress.step,
            tensors=self.state.tensors(),
            state=self.state.plain(),
            keep_last=self.config.train.keep_last,
            keep={progress.best_step} if progress.best_step is not None else set(),
        )
        self._saved = progress.step

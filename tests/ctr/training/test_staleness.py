"""Dense gradients applied in their own step or one later: against a loop of ten lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ctr.checkpoint.checkpoint import load_latest
from ctr.distributed.gradients import GradientBuckets
from ctr.errors import NonFiniteError
from ctr.runs.journal import read_rows
from ctr.training.losses import click_loss
from ctr.training.optim import make_optimizer, rate_factor
from features.dataset import Dataset
from features.durable.faults import injected
from pipelines.train import train
from tests.ctr.steps import TOTAL, Started, changed, different, snapshot, start
from tests.ctr.tiny_run import STEPS_PER_EPOCH, tiny_config, tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(tiny_dataset(tmp_path_factory.mktemp("data")))


def reference(started: Started) -> list[dict[str, Tensor]]:
    """The weights and tables after each step: rows at once, dense gradients `dense_staleness` steps late."""
    config, state, _, batches = started
    optimizer, queue, seen = make_optimizer(state.model, config.optimizer), [], []
    for step, batch in enumerate(batches):
        factor = rate_factor(step, TOTAL, config.optimizer)
        state.tables.set_lr(config.embedding.lr * factor)
        state.model.zero_grad()
        click_loss(state.model(batch, state.tables.lookup(batch.unique_ids)), batch.label).backward()
        state.tables.apply_gradients()
        queue.append((factor, [p.grad for p in state.model.parameters()]))
        if len(queue) > config.optimizer.dense_staleness:
            factor, gradients = queue.pop(0)
            for parameter, gradient in zip(state.model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.optimizer.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.optimizer.lr * factor
            optimizer.step()
        seen.append({n: t.clone() for n, t in {**state.model.state_dict(), **state.tables.state()}.items()})
    return seen


@pytest.mark.parametrize("staleness", [0, 1])
def test_every_step_equals_the_reference_loop(dataset: Dataset, staleness: int) -> None:
    options = (f"optimizer.dense_staleness={staleness}", "optimizer.clip_norm=0.05")
    _, state, updates, batches = start(dataset, *options)
    expected = reference(start(dataset, *options))
    for step, batch in enumerate(batches):
        updates.step(batch, step)
        now = {**state.model.state_dict(), **state.tables.state()}
        assert different(now, expected[step]) == set()
    assert len(batches) == STEPS_PER_EPOCH


def test_the_two_settings_differ_and_the_first_stale_step_moves_rows_alone(dataset: Dataset) -> None:
    _, state, updates, batches = start(dataset, "optimizer.dense_staleness=1")
    before = snapshot(state)
    result = updates.step(batches[0], 0)
    assert changed(state, before) == {"tables", "pending"} and result.grad_norm is None
    waiting = [t.nbytes for n, t in state.tensors().items() if n.startswith("pending/")]
    assert result.in_flight == sum(waiting) > 0


def test_a_refused_step_leaves_the_waiting_gradient_waiting(dataset: Dataset) -> None:
    options = ("optimizer.dense_staleness=1", "train.non_finite=skip", "optimizer.ema_decay=0.9")
    _, state, updates, batches = start(dataset, *options)
    updates.step(batches[0], 0)
    before = snapshot(state)
    with injected("loss:1:nan"):
        assert updates.step(batches[1], 1).loss is None
    assert changed(state, before) == set()
    updates.step(batches[2], 2)
    _, twin, direct, _ = start(dataset, *options)
    direct.step(batches[0], 0)
    direct.step(batches[2], 2)
    assert changed(state, twin.tensors()) == set()


def test_a_waiting_gradient_that_is_not_finite_is_dropped_with_the_step_that_finds_it(
    dataset: Dataset,
) -> None:
    """What only the sum over ranks makes infinite."""
    options = ("optimizer.dense_staleness=1", "train.non_finite=skip", "train.max_skipped=1")
    _, state, updates, batches = start(dataset, *options)
    updates.step(batches[0], 0)
    before = snapshot(state)
    spoilt = {n: t * float("inf") for n, t in state.pending.tensors(state.model).items()}
    state.pending.load(state.model, spoilt, 1.0)
    assert updates.step(batches[1], 1).loss is None and state.pending.gradients is None
    assert changed(state, before) == {"pending"}
    state.pending.load(state.model, spoilt, 1.0)
    with pytest.raises(NonFiniteError, match="sum of the ranks' gradients of step 2"):
        updates.step(batches[2], 2)


class OneRank:
    """A sum over this rank alone."""

    def wait(self) -> None: ...


@pytest.mark.parametrize("at_end", [False, True])
def test_a_waiting_gradient_that_is_dropped_frees_its_buckets(dataset: Dataset, at_end: bool) -> None:
    """Else each such step would leave the memory of a whole gradient behind."""
    options = ("optimizer.dense_staleness=1", "train.non_finite=skip")
    _, state, updates, batches = start(dataset, *options, reduce=lambda flat: OneRank())
    updates.step(batches[0], 0)
    waiting = state.pending.gradients
    assert isinstance(waiting, GradientBuckets) and not updates.exchange._free
    for flat in waiting._flats:  # what the sum over several ranks may give
        flat[:-1] = float("inf")
    updates.finish() if at_end else updates.step(batches[1], 1)
    assert state.pending.gradients is None and waiting in updates.exchange._free


def test_the_last_gradient_is_applied_at_the_end(dataset: Dataset, tmp_path: Path) -> None:
    """As many updates as steps, and a last checkpoint that waits for nothing."""
    options = ("optimizer.dense_staleness=1", "optimizer.ema_decay=0.9", "train.checkpoint_every=5")
    outcome = train(tiny_config(dataset.root, tmp_path / "run", *options))
    last = load_latest(tmp_path / "run" / "checkpoints")
    assert last is not None and last.state["averaged_updates"] == outcome.steps == 2 * STEPS_PER_EPOCH
    assert not [name for name in last.tensors if name.startswith("pending/")]
    rows = [row for row in read_rows(tmp_path / "run" / "journal.jsonl") if row["kind"] == "train"]
    assert {row["dense_staleness"] for row in rows} == {1} and all(row["bytes_in_flight"] for row in rows)


def test_averages_move_when_the_weights_do(dataset: Dataset) -> None:
    _, state, updates, batches = start(dataset, "optimizer.dense_staleness=1", "optimizer.ema_decay=0.9")
    assert state.averaged is not None
    for step, batch in enumerate(batches[:3]):
        updates.step(batch, step)
        assert state.averaged.updates == step
    updates.finish()
    assert state.averaged.updates == 3 and state.pending.gradients is None


@pytest.mark.parametrize(
    ("staleness", "expected"), [(0, ["send", "wait"] * 3), (1, ["send", "send", "wait"])]
)
def test_a_sum_is_waited_for_in_its_own_step_or_behind_the_next_backward(
    dataset: Dataset, staleness: int, expected: list[str]
) -> None:
    log: list[str] = []

    class Network:
        """One sum under way, of a job of one process."""

        def __init__(self, tensor: Tensor) -> None:
            log.append("send")

        def wait(self) -> None:
            log.append("wait")

    options = (f"optimizer.dense_staleness={staleness}", "distributed.bucket_mb=100")
    _, state, updates, batches = start(dataset, *options, reduce=Network)
    _, twin, alone, _ = start(dataset, *options)
    for step, batch in enumerate(batches[:3]):
        assert updates.step(batch, step).loss == alone.step(batch, step).loss
    assert log[: len(expected)] == expected and log.count("wait") == 3 - staleness
    assert different(state.model.state_dict(), twin.model.state_dict()) == set()

"""A batch computed part by part: the same step as in one piece, with one lookup, decision and update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch
from ctr.build import scoring_loader
from ctr.errors import NonFiniteError
from ctr.training.micro_batches import parts_of, rows_of
from ctr.training.step import Updates
from features.dataset import Dataset
from features.errors import ConfigError
from tests.ctr.steps import ENGINES, TOTAL, changed, snapshot, start
from tests.ctr.tiny_run import tiny_dataset

# Adam and Adagrad turn what is nothing but rounding into whole steps of its sign, unless eps is large.
EPS = ("optimizer.eps=0.001", "embedding.eps=0.001")
COMMON = (*EPS, "optimizer.clip_norm=0.05", "optimizer.ema_decay=0.9")
PARTS = "loader.micro_batches=3"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(tiny_dataset(tmp_path_factory.mktemp("data")))


def costs(batch: Batch) -> Tensor:
    """Rows and events of each request."""
    rows = torch.bincount(batch.request_index, minlength=batch.num_requests)
    return rows + sum(sequence.offsets.diff() for sequence in batch.sequences.values())


def test_parts_hold_each_request_of_the_batch_once_and_cost_the_same(dataset: Dataset) -> None:
    for batch in start(dataset, PARTS)[3]:
        assert parts_of(batch) == batch.parts and len(batch.parts) == 3
        for name in ("row_id", "request_id"):
            parts = torch.cat([getattr(part, name) for part in batch.parts])
            assert sorted(parts.tolist()) == sorted(getattr(batch, name).tolist())
        loads = [int(costs(part).sum()) for part in batch.parts]
        assert max(loads) - min(loads) <= int(costs(batch).max())
        assert {part.total_rows for part in batch.parts} == {batch.num_rows} and batch.total_rows is None
        ids = {table: ids[:, None] for table, ids in batch.unique_ids.items()}  # as if they were their rows
        for part in batch.parts:
            for table, rows in rows_of(part, batch, ids).items():
                assert rows[:, 0].tolist() == part.unique_ids[table].tolist()


def test_there_are_no_empty_parts_and_none_of_nothing(dataset: Dataset) -> None:
    config, _, _, batches = start(dataset, "loader.micro_batches=50")
    assert all(len(batch.parts) == batch.num_requests for batch in batches)
    assert next(scoring_loader(config, dataset, "valid").iterate(0)).parts == ()
    whole = start(dataset)[3][0]
    assert parts_of(whole) == (whole,)
    assert parts_of(replace(whole, request_index=whole.request_index[:0])) == ()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("staleness", [0, 1])
def test_parts_make_the_step_of_the_whole(dataset: Dataset, engine: str, staleness: int) -> None:
    options = (*COMMON, f"embedding.engine={engine}", f"optimizer.dense_staleness={staleness}")
    _, state, updates, batches = start(dataset, *options, PARTS)
    _, twin, direct, whole = start(dataset, *options)
    for step, (batch, one) in enumerate(zip(batches, whole, strict=True)):
        ours, theirs = updates.step(batch, step), direct.step(one, step)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert (ours.grad_norm or 0.0) == pytest.approx(theirs.grad_norm or 0.0, rel=1e-4)
        assert (ours.rows, ours.positives, ours.rate) == (theirs.rows, theirs.positives, theirs.rate)
    now, expected = state.tensors(), twin.tensors()
    of_rows = {name for name in expected if name.startswith("tables/")}
    of_weights = {name for name in expected if not name.startswith(("tables/", "rng/"))}
    for names, bounds in ((of_rows, {"rtol": 1e-5, "atol": 1e-7}), (of_weights, {"rtol": 0, "atol": 1e-6})):
        pair = ({name: tensors[name] for name in names} for tensors in (now, expected))
        torch.testing.assert_close(*pair, **bounds)


def test_one_part_is_in_memory_at_a_time(dataset: Dataset) -> None:
    """The next forward begins when the gradients of the part before are there."""
    _, state, updates, (batch, *_) = start(dataset, PARTS)
    log: list[str] = []
    state.model.register_forward_pre_hook(lambda *a: log.append("forward"))
    next(state.model.parameters()).register_hook(lambda gradient: log.append("backward"))
    updates.step(batch, 0)
    assert log == ["forward", "backward"] * 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["logit", "gradient"])
def test_one_bad_part_refuses_the_whole_step(dataset: Dataset, engine: str, what: str) -> None:
    """The last one: the gradients of the others are there by then, and must not be used."""
    options = (*COMMON, PARTS, "train.non_finite=skip", f"embedding.engine={engine}")
    _, state, updates, (first, second, third, *_) = start(dataset, *options)
    updates.step(first, 0)
    before = snapshot(state)
    calls: list[int] = []
    if what == "logit":
        last = second.parts[2]
        price = {**last.candidate_dense, "price": torch.full_like(last.candidate_dense["price"], torch.inf)}
        bad = replace(second, parts=(*second.parts[:2], replace(last, candidate_dense=price)))
    else:
        bad = second
        hook = next(state.model.parameters()).register_hook(lambda gradient: spoil_third(gradient, calls))
    assert updates.step(bad, 1).loss is None
    assert changed(state, before) <= ({"tables"} if engine == "fbgemm" else set())  # it counts lookups
    if what == "gradient":
        hook.remove()
    updates.step(third, 2)
    _, twin, direct, _ = start(dataset, *options)
    direct.step(first, 0)
    direct.step(third, 2)
    assert changed(state, twin.tensors()) <= ({"tables"} if engine == "fbgemm" else set())


def spoil_third(gradient: Tensor, calls: list[int]) -> Tensor:
    calls.append(1)
    return gradient * float("nan") if len(calls) == 3 else gradient


def test_a_bad_part_is_told(dataset: Dataset) -> None:
    _, state, updates, (batch, *_) = start(dataset, PARTS)
    calls: list[int] = []
    next(state.model.parameters()).register_hook(lambda gradient: spoil_third(gradient, calls))
    with pytest.raises(NonFiniteError, match="a gradient of step 7 is not"):
        updates.step(batch, 7)


def test_a_loss_that_parts_do_not_add_up_to_is_refused(dataset: Dataset) -> None:
    def mean(loss: Tensor, batch: Batch) -> Tensor:
        return loss

    config, state, _, _ = start(dataset, PARTS)
    others: dict[str, Any] = {"averaged": None, "config": config, "total_steps": TOTAL, "objective": mean}
    with pytest.raises(ConfigError, match=r"micro_batches must be 1 .* got 3"):
        Updates(state.model, state.tables, state.optimizer, **others)

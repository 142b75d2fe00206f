"""The loss of several tasks against loops over rows; shares of a batch sum to it; learned weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ctr.batch import Batch, Target
from ctr.models.heads.heads import HEADS
from ctr.training.objective import TasksObjective
from features.dataset import TaskInfo
from tests.ctr.reference.heads import esmm_loss, task_loss
from tests.ctr.reference.parity import rand

CLICK, BUY = TaskInfo(name="click"), TaskInfo(name="buy", given="click", weighted=True)
TASKS = [CLICK, BUY, TaskInfo(name="seconds", kind="regression")]
ROWS = 12


def targets() -> dict[str, Target]:
    click = (rand(ROWS, seed=1) > 0).double()
    known = (click > 0) & (rand(ROWS, seed=2) > -0.5)
    buy = (rand(ROWS, seed=3) > 0).double() * known
    weight = rand(ROWS, seed=4).detach().abs()
    seconds = rand(ROWS, seed=5).detach()
    return {
        "click": Target.of(click),
        "buy": Target(buy, known, weight),
        "seconds": Target(torch.where(seconds > 0, seconds, 0), seconds > 0),
    }


def batch_of(found: dict[str, Target]) -> Batch:
    return cast(Batch, SimpleNamespace(targets=found, offset=None, request_index=torch.arange(ROWS)))


def objective(tasks: Sequence[TaskInfo] = TASKS, s: Tensor | None = None, **options: Any) -> TasksObjective:
    return TasksObjective(cast(Any, HEADS.read(options)), tasks, s)


def test_the_loss_is_that_of_each_task_over_its_known_rows() -> None:
    logits, found = rand(ROWS, 3), targets()
    want = [task_loss(task, logits[:, k], found[task.name]) for k, task in enumerate(TASKS)]
    got = objective(weights={"buy": 0.5})(logits, batch_of(found))
    torch.testing.assert_close(got.double(), want[0] + 0.5 * want[1] + want[2], rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (got, want[0] + 0.5 * want[1] + want[2])]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_esmm_learns_conversions_over_all_impressions() -> None:
    logits, found = rand(ROWS, 2), targets()
    found["buy"] = replace(found["buy"], weight=None)
    got = objective([CLICK, BUY], kind="esmm")(logits, batch_of(found))
    want = esmm_loss(logits, found)
    unknown = (found["click"].label > 0) & ~found["buy"].known
    assert bool(unknown.any())
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_learned_weights_are_kendall_s() -> None:
    logits, found, s = rand(ROWS, 3), targets(), rand(3, seed=9)
    losses = [task_loss(task, logits[:, k], found[task.name]) for k, task in enumerate(TASKS)]
    variance = torch.exp(s)
    want = (
        losses[0] / variance[0]
        + losses[1] / variance[1]
        + losses[2] / (2 * variance[2])
        + torch.log(torch.sqrt(variance)).sum()
    )
    got = objective(s=s, weights="learned")(logits, batch_of(found))
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-6)
    ours, plain = (torch.autograd.grad(loss, [logits, s]) for loss in (got, want))
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"weights": "learned"}, {"kind": "esmm"}])
def test_the_losses_of_parts_sum_to_that_of_the_whole(options: dict[str, Any]) -> None:
    tasks = TASKS[:2] if options.get("kind") == "esmm" else TASKS
    s = rand(3, seed=9) if "weights" in options else None
    logits, found = rand(ROWS, len(tasks)), {t.name: targets()[t.name] for t in tasks}
    whole = objective(tasks, s, **options)
    total = {name: target.known_weight for name, target in found.items()}
    sums = [0.0] * len(tasks)
    loss = torch.zeros(())
    for rows in torch.arange(ROWS).split([1, 7, 4]):
        part = {n: replace(t.take(rows), total=total[n]) for n, t in found.items()}
        loss = loss + whole(logits[rows], batch_of(part))
        sums = [a + b.item() for a, b in zip(sums, whole.latest.values(), strict=True)]
    want = whole(logits, batch_of(found))
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
    assert sums == pytest.approx([own.item() for own in whole.latest.values()], rel=1e-5)


def test_a_batch_without_a_known_row_of_a_task_leaves_it_as_it_is() -> None:
    logits, found, s = rand(ROWS, 3), targets(), rand(3, seed=9)
    found["buy"] = replace(found["buy"], known=torch.zeros(ROWS, dtype=torch.bool))
    loss = objective(s=s, weights="learned")(logits, batch_of(found))
    by_logits, by_s = torch.autograd.grad(loss, [logits, s])
    assert bool(loss.isfinite()) and not by_logits[:, 1].any() and by_s[1] == 0
    assert bool(by_logits[:, 0].any())

"""One step: the formulas it applies, and that a step which is not finite applies nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctr.batch import Batch, Target
from ctr.errors import NonFiniteError
from ctr.training.losses import click_loss
from ctr.training.optim import rate_factor
from features.dataset import Dataset
from features.durable.faults import injected
from tests.ctr.steps import ENGINES, TOTAL, changed, different, snapshot, start
from tests.ctr.tiny_run import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(tiny_dataset(tmp_path_factory.mktemp("data")))


def test_a_step_is_adamw_on_the_weights_and_adagrad_on_the_rows(dataset: Dataset) -> None:
    config, state, updates, (batch, *_) = start(
        dataset, "optimizer.clip_norm=null", "optimizer.weight_decay=0"
    )
    _, twin, _, _ = start(dataset)
    rows = twin.tables.lookup(batch.unique_ids)
    for part in rows.values():
        part.retain_grad()
    loss = click_loss(twin.model(batch, rows), batch.label)
    loss.backward()
    result = updates.step(batch, 4)
    rate = rate_factor(4, TOTAL, config.optimizer)
    assert result.loss == loss.item() and result.rate == config.optimizer.lr * rate
    assert (result.rows, result.positives) == (batch.num_rows, batch.label.sum().item())
    for (name, ours), before in zip(state.model.named_parameters(), twin.model.parameters(), strict=True):
        assert before.grad is not None
        move = before.grad / (before.grad.abs() + config.optimizer.eps)  # the first step of Adam
        expected = before.detach() - config.optimizer.lr * rate * move
        torch.testing.assert_close(ours.detach(), expected, atol=1e-5, rtol=0, msg=name)
    weights, old = state.tables.state(), twin.tables.state()
    for table, ids in batch.unique_ids.items():
        gradient = rows[table].grad
        assert gradient is not None
        step = (
            config.embedding.lr
            * rate
            / (gradient.square().mean(1, keepdim=True).sqrt() + config.embedding.eps)
        )
        expected = old[f"{table}.weight"].clone()
        expected[ids] -= step * gradient
        torch.testing.assert_close(weights[f"{table}.weight"], expected, atol=1e-6, rtol=1e-5)


def test_clipping_bounds_the_weights_gradient_and_reports_it_unclipped(dataset: Dataset) -> None:
    _, free, updates, (batch, *_) = start(dataset, "optimizer.clip_norm=null")
    norm = updates.step(batch, 0).grad_norm
    _, state, updates, _ = start(dataset, "optimizer.clip_norm=0.01")
    assert updates.step(batch, 0).grad_norm == norm > 0.01

    def total(model: nn.Module) -> float:
        return sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None) ** 0.5

    assert total(free.model) == pytest.approx(norm, rel=1e-5)
    assert total(state.model) == pytest.approx(0.01, rel=1e-3)


def test_rates_of_weights_and_rows_follow_one_schedule(dataset: Dataset) -> None:
    config, state, updates, (batch, *_) = start(dataset)
    for step in (0, 2, 9, 19):
        updates.step(batch, step)
        factor = rate_factor(step, TOTAL, config.optimizer)
        assert {group["lr"] for group in state.optimizer.param_groups} == {config.optimizer.lr * factor}
        assert state.tables.lr == config.embedding.lr * factor


@pytest.mark.fault(17)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["loss", "logit"])
def test_a_bad_loss_stops_before_anything_is_updated(dataset: Dataset, engine: str, what: str) -> None:
    _, state, updates, (batch, *_) = start(dataset, f"embedding.engine={engine}", "optimizer.ema_decay=0.9")
    updates.step(batch, 0)
    if what == "logit":
        price = batch.candidate_dense["price"].clone()
        price[2] = float("inf")
        batch = replace(batch, candidate_dense={**batch.candidate_dense, "price": price})
    before = snapshot(state)
    with injected("loss:1:nan" if what == "loss" else ""), pytest.raises(NonFiniteError) as caught:
        updates.step(batch, 1)
    assert changed(state, before) <= ({"tables"} if engine == "fbgemm" else set())
    weights = {n: t for n, t in state.tensors().items() if n.endswith(".weight") and n.startswith("tables/")}
    assert all(torch.equal(t, before[n]) for n, t in weights.items())  # FBGEMM only counts the lookup
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert str(batch.row_id[:5].tolist()) in text and str(batch.request_id[:5].tolist()) in text
    assert "step 1" in text and ("'price': inf" in text) == (what == "logit")


class _BadGradient(torch.autograd.Function):
    """The identity; its gradient is not a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


@pytest.mark.fault(17)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["weight", "rows"])
def test_a_bad_gradient_stops_before_anything_is_updated(dataset: Dataset, engine: str, what: str) -> None:
    """Of a dense weight or of the looked-up rows, which a fused engine would update inside backward."""
    _, state, updates, (batch, *_) = start(dataset, f"embedding.engine={engine}", "optimizer.ema_decay=0.9")
    updates.step(batch, 0)
    before = snapshot(state)
    if what == "weight":
        next(state.model.parameters()).register_hook(lambda grad: grad * float("nan"))
    else:
        updates.model = _Wrapped(state.model)
    with pytest.raises(NonFiniteError, match="a gradient of step 1 is not"):
        updates.step(batch, 1)
    counted = {"tables/step"} if engine == "fbgemm" else set()  # FBGEMM only counts the lookup
    assert different(state.tensors(), before) <= counted


class _Wrapped(nn.Module):
    """A model whose rows get gradients that are not numbers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, rows: dict[str, Tensor]) -> Tensor:
        return self.model(batch, {table: _BadGradient.apply(part) for table, part in rows.items()})


@pytest.mark.fault(17)
def test_skipping_counts_steps_in_a_row_and_stops_behind_the_cap(dataset: Dataset) -> None:
    options = ("train.non_finite=skip", "train.max_skipped=2", "optimizer.ema_decay=0.9")
    _, state, updates, batches = start(dataset, *options)
    bad = ",".join(f"loss:{step}:nan" for step in (1, 2, 4, 5, 6))
    with injected(bad):
        losses: list[Any] = []
        for step in range(6):
            before = snapshot(state)
            losses.append(updates.step(batches[step], step).loss)
            assert changed(state, before) == (
                set() if losses[-1] is None else {"model", "tables", "optimizer", "average"}
            )
        with pytest.raises(NonFiniteError, match="step 6"):
            updates.step(batches[0], 6)
    assert [loss is None for loss in losses] == [False, True, True, False, True, True]


def test_a_skipped_step_leaves_the_next_one_as_if_it_had_not_been(dataset: Dataset) -> None:
    _, state, updates, (first, second, *_) = start(dataset, "train.non_finite=skip")
    with injected("loss:0:nan"):
        updates.step(second, 0)
    updates.step(first, 1)
    _, twin, direct, _ = start(dataset)
    direct.step(first, 1)
    assert changed(state, twin.tensors()) == set()


def test_bf16_computes_in_bf16_and_keeps_float32_weights(dataset: Dataset) -> None:
    _, state, updates, (batch, *_) = start(dataset, "train.precision=bf16")
    _, _, exact, _ = start(dataset)
    seen: list[torch.dtype] = []
    state.model.head.mlp[0].register_forward_hook(lambda *a: seen.append(a[2].dtype))
    narrow, full = updates.step(batch, 0), exact.step(batch, 0)
    assert seen == [torch.bfloat16] and {p.dtype for p in state.model.parameters()} == {torch.float32}
    assert narrow.loss != full.loss and narrow.loss == pytest.approx(full.loss, rel=0.02)


def test_averaged_weights_score_and_own_weights_train_on(dataset: Dataset) -> None:
    _, state, updates, batches = start(dataset, "optimizer.ema_decay=0.9", "model.dropout=0.5")
    for step, batch in enumerate(batches):
        updates.step(batch, step)
    before = snapshot(state)
    assert state.averaged is not None
    with state.for_scoring() as model:
        assert not model.training
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, state.averaged.average[name])
    assert state.model.training and changed(state, before) == set()


def test_an_error_while_scoring_leaves_the_model_in_training(dataset: Dataset) -> None:
    _, state, _, _ = start(dataset, "optimizer.ema_decay=0.9")
    before = snapshot(state)
    with pytest.raises(RuntimeError, match="stop"), state.for_scoring():
        raise RuntimeError("stop")
    assert state.model.training and changed(state, before) == set()


def test_learns_what_can_be_learned(dataset: Dataset) -> None:
    """A click depends on the candidate's price alone: a few dozen steps find it."""
    _, _, updates, batches = start(dataset, "optimizer.schedule=constant")
    learnable = [
        replace(b, targets={"label": Target.of((b.candidate_dense["price"][:, 0] > 0).float())})
        for b in batches
    ]
    losses = [updates.step(learnable[step % len(batches)], step).loss for step in range(60)]
    assert losses[-1] is not None and losses[-1] < 0.25


@pytest.mark.parametrize("parts", [1, 3])
def test_a_model_s_own_loss_is_added_as_a_mean_over_rows_and_not_reported(
    dataset: Dataset, parts: int
) -> None:
    options = (f"loader.micro_batches={parts}", "optimizer.clip_norm=null")
    _, state, updates, (batch, *_) = start(dataset, *options)
    _, plain, without, _ = start(dataset, *options)
    weight = state.model.head.mlp[-1].bias

    def after(_module: nn.Module, inputs: Any, logits: Tensor) -> None:
        state.model.extra_loss = weight * torch.arange(1.0, 1 + len(logits)) / 10

    state.model.register_forward_hook(after)
    assert updates.step(batch, 0).loss == pytest.approx(without.step(batch, 0).loss, rel=1e-6)
    lengths = [part.num_rows for part in batch.parts] or [batch.num_rows]
    extra = sum(n * (n + 1) / 20 for n in lengths) / batch.num_rows
    grads = dict(state.model.named_parameters()), dict(plain.model.named_parameters())
    ours, theirs = (
        named["head.mlp.2.bias" if "head.mlp.2.bias" in named else "head.mlp.3.bias"].grad for named in grads
    )
    assert ours is not None and theirs is not None
    assert (ours - theirs).item() == pytest.approx(extra, rel=1e-4)


@pytest.mark.parametrize("parts", [1, 3])
def test_rows_count_in_a_model_s_own_loss_as_in_that_of_its_task(dataset: Dataset, parts: int) -> None:
    """An own loss that is the task's doubles each gradient, whatever rows weigh and where they are known."""
    found = []
    for own in (False, True):
        _, state, updates, (batch, *_) = start(
            dataset, f"loader.micro_batches={parts}", "optimizer.clip_norm=null"
        )
        weighed = partly_known(batch)
        state.model.register_forward_hook(OwnLoss(weighed) if own else lambda *_: None)
        updates.step(weighed, 0)
        found.append([p.grad for p in state.model.parameters() if p.grad is not None])
    for once, twice in zip(*found, strict=True):
        torch.testing.assert_close(twice, 2 * once)


class OwnLoss:
    """A forward hook that makes the cross-entropy of each row of a batch's parts the model's own loss."""

    def __init__(self, batch: Batch) -> None:
        self.labels = iter([part.label for part in batch.parts or [batch]])

    def __call__(self, model: Any, _inputs: Any, logits: Tensor) -> None:
        model.extra_loss = F.binary_cross_entropy_with_logits(logits, next(self.labels), reduction="none")


def partly_known(batch: Batch, total: float | None = None) -> Batch:
    """The batch, and its parts, whose rows weigh 0 to 3 and of which every fifth has no known label."""
    rows, (name, target) = torch.arange(batch.num_rows), next(iter(batch.targets.items()))
    weighed = replace(target, known=rows % 5 > 0, weight=(rows % 4).float(), everywhere=False, total=total)
    whole = sum(partly_known(part).targets[name].known_weight for part in batch.parts)
    parts = tuple(partly_known(part, whole) for part in batch.parts)
    return replace(batch, targets={name: weighed}, parts=parts)

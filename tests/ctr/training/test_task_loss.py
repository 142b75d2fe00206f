"""ctr.training.losses over known rows: each loss as plain loops, with gradients, weights, masks and parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.batch import Target
from ctr.config import DistillConfig, LossConfig, parse_config
from ctr.training.losses import PLAIN, click_loss, target_loss
from features.errors import ConfigError

SIZES = [3, 1, 4, 6, 2, 5]  # rows of each request
KINDS: list[dict[str, object]] = [
    {},
    {"smoothing": 0.1},
    {"kind": "focal"},
    {"kind": "focal", "gamma": 0.5, "smoothing": 0.2},
    {"kind": "pairwise", "share": 1.0},
    {"kind": "listwise", "share": 1.0},
    {"kind": "pairwise", "share": 0.3},
    {"kind": "listwise"},
]
LOSSES = pytest.mark.parametrize("loss", [LossConfig.model_validate(k) for k in KINDS], ids=str)


def rows(seed: int = 0, *, weighted: bool = True) -> tuple[Tensor, Target, Tensor]:
    """Logits that take gradients, a target with gaps and weights of 0 to 3, and the request of each row."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    count = len(index)
    logits = (2 * torch.randn(count, generator=generator, dtype=torch.float64)).requires_grad_()
    known = torch.rand(count, generator=generator) < 0.8
    label = torch.randint(0, 2, (count,), generator=generator).double() * known
    weight = torch.randint(0, 4, (count,), generator=generator).double() if weighted else None
    return logits, Target(label, known, weight), index


def row_loss(s: Tensor, y: float, loss: LossConfig) -> Tensor:
    """One row, by the book."""
    p = 1 / (1 + torch.exp(-s))
    soft = (1 - loss.smoothing) * y + loss.smoothing / 2
    entropy = -(soft * torch.log(p) + (1 - soft) * torch.log(1 - p))
    return entropy * (1 - (p if y else 1 - p)) ** loss.gamma if loss.kind == "focal" else entropy


def pairwise(s: list[Tensor], y: list[float], w: list[float]) -> Tensor | float:
    pairs = [
        (w[i] * w[j], -torch.log(1 / (1 + torch.exp(s[j] - s[i]))))
        for i in range(len(s))
        for j in range(len(s))
        if y[i] == 1 and y[j] == 0
    ]
    return sum(v * x for v, x in pairs) / sum(v for v, _ in pairs) if pairs else 0.0


def listwise(s: list[Tensor], y: list[float], w: list[float]) -> Tensor | float:
    if len(set(y)) < 2:
        return 0.0
    mass = sum(v * torch.exp(x) for v, x in zip(w, s, strict=True))
    terms = [(v, -torch.log(torch.exp(x) / mass)) for v, x, t in zip(w, s, y, strict=True) if t == 1]
    return sum(v * x for v, x in terms) / sum(v for v, _ in terms)


def slow(logits: Tensor, target: Target, index: Tensor, loss: LossConfig) -> Tensor:
    """The whole loss by loops over requests and rows that weigh something."""
    within: dict[str, Callable[..., Tensor | float]] = {"pairwise": pairwise, "listwise": listwise}
    weight = target.loss_weight.double()
    total, entropy, ranked = float(weight.sum()), torch.tensor(0.0), torch.tensor(0.0)
    for request in range(int(index.max()) + 1):
        own = [k for k in range(len(index)) if index[k] == request and weight[k] > 0]
        s, y = [logits[k] for k in own], [float(target.label[k]) for k in own]
        w = [float(weight[k]) for k in own]
        entropy = entropy + sum(v * row_loss(a, b, loss) for a, b, v in zip(s, y, w, strict=True))
        if loss.kind in within and own:
            ranked = ranked + sum(w) * within[loss.kind](s, y, w)
    if loss.kind not in within:
        return entropy / total
    return ((1 - loss.share) * entropy + loss.share * ranked) / total


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


@LOSSES
@pytest.mark.parametrize("weighted", [True, False])
def test_values_and_gradients_are_those_of_plain_loops(loss: LossConfig, weighted: bool) -> None:
    for seed in range(5):
        logits, target, index = rows(seed, weighted=weighted)
        found, expected = target_loss(logits, target, index, loss=loss), slow(logits, target, index, loss)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        assert torch.allclose(gradient(found, logits), gradient(expected, logits), atol=2e-6)
        assert not gradient(target_loss(logits, target, index, loss=loss), logits)[~target.known].any()


@LOSSES
def test_a_row_of_weight_k_is_k_equal_rows(loss: LossConfig) -> None:
    logits, target, index = rows()
    assert target.weight is not None
    times = (target.weight * target.known).long()
    copies = torch.repeat_interleave(torch.arange(len(index)), times)
    again = Target(target.label[copies], torch.ones(len(copies), dtype=torch.bool))
    repeated = target_loss(logits[copies], again, index[copies], loss=loss)
    found = target_loss(logits, target, index, loss=loss)
    assert repeated.item() == pytest.approx(found.item(), rel=1e-6)
    assert torch.allclose(gradient(repeated, logits), gradient(found, logits), atol=1e-6)


@LOSSES
def test_parts_of_whole_requests_sum_to_the_loss_of_the_batch(loss: LossConfig) -> None:
    logits, target, index = rows(3)
    total = float(target.loss_weight.sum())
    parts = []
    for own in (index % 2 == 0, index % 2 == 1, index > 99):  # the last has no rows
        part = replace(target.take(own.nonzero().flatten()), total=total)
        parts.append(target_loss(logits[own], part, index[own], loss=loss))
    whole = target_loss(logits, target, index, loss=loss)
    assert sum(p.item() for p in parts) == pytest.approx(whole.item(), rel=1e-6)


@LOSSES
def test_a_batch_without_a_known_row_has_loss_0_and_gradients_of_0(loss: LossConfig) -> None:
    logits, target, index = rows()
    nothing = replace(target, known=torch.zeros_like(target.known))
    found = target_loss(logits, nothing, index, loss=loss)
    assert found.item() == 0 and not gradient(found, logits).any()


@LOSSES
def test_extreme_logits_stay_finite(loss: LossConfig) -> None:
    logits, target, index = rows()
    large = (1000 * logits.detach().float()).requires_grad_()
    found = target_loss(large, target, index, loss=loss)
    assert found.isfinite() and gradient(found, large).isfinite().all()


def test_one_label_of_equal_rows_is_the_loss_of_before_bit_by_bit() -> None:
    logits, target, index = rows(weighted=False)
    label = target.label.float()
    for total in (None, 40.0):
        plain = replace(Target.of(label), total=total)
        found = target_loss(logits.float(), plain, index)
        assert torch.equal(found, click_loss(logits.float(), label, total=total))


def test_a_regression_has_the_squared_error_of_its_known_rows() -> None:
    logits, target, index = rows()
    found = target_loss(logits, target, index, kind="regression", loss=LossConfig(kind="listwise"))
    weight = target.loss_weight.double()
    expected = (weight * (logits - target.label) ** 2).sum() / weight.sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_an_offset_is_of_the_cross_entropy_alone() -> None:
    logits, target, index = rows()
    offset = torch.full((len(index),), -math.log(0.1))
    moved = target_loss(logits + offset, target, index)
    assert target_loss(logits, target, index, offset=offset).item() == pytest.approx(moved.item(), rel=1e-6)
    ranks = LossConfig(kind="pairwise", share=1.0)
    alone = target_loss(logits, target, index, loss=ranks)
    assert target_loss(logits, target, index, loss=ranks, offset=offset).item() == alone.item()


def test_with_an_offset_a_tenth_of_the_negatives_teaches_the_rate_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.02, 0.1, 0.4])
    group = torch.arange(3).repeat_interleave(20_000)
    label = (torch.rand(60_000, generator=generator) < p[group]).float()
    kept = (label > 0) | (torch.rand(60_000, generator=generator) < 0.1)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)
    rows, target = group[kept], Target.of(label[kept])
    offset = torch.full((len(rows),), -math.log(0.1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = target_loss(logits[rows], target, rows, offset=offset)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert logits.detach().sigmoid() == pytest.approx(p.numpy(), rel=0.15)
    assert target_loss(logits[rows], target, rows, offset=offset) < target_loss(logits[rows], target, rows)


def test_a_name_is_a_loss_and_what_it_lacks_is_refused() -> None:
    run = {"dataset": "d", "run": "r"}
    assert parse_config({**run, "train": {"loss": "focal"}}).train.loss == LossConfig(kind="focal")
    assert parse_config(run).train.loss == PLAIN
    for loss, told in (({"gamma": 3}, "only a focal loss has gamma"), ({"share": 0.1}, "has a share")):
        with pytest.raises(ConfigError, match=told):
            parse_config({**run, "train": {"loss": loss}})


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["cross_entropy", "listwise"])
def test_a_teacher_has_its_share_of_the_loss(kind: str, temperature: float) -> None:
    """The mean over the same rows with the same weights, in one piece and in parts, whatever was sampled."""
    logits, target, index = rows()
    loss = LossConfig.model_validate({"kind": kind})
    teacher = 2 * torch.randn(len(index), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    taught = replace(target, teacher=teacher)
    offset = torch.rand(len(index), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    options: dict[str, Any] = {"loss": loss, "offset": offset}
    for share in (0.3, 1.0):
        distill = DistillConfig(predictions="x", weight=share, temperature=temperature)
        found = target_loss(logits, taught, index, distill=distill, **options)
        weight = target.loss_weight.double()
        p, q = (1 / (1 + torch.exp(-a / temperature)) for a in (logits, teacher))
        soft = -(temperature**2) * (q * torch.log(p) + (1 - q) * torch.log(1 - p))
        hard = target_loss(logits, target, index, **options)
        expected = (1 - share) * hard + share * (soft * weight).sum() / weight.sum()
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)
        slope = gradient(target_loss(logits, taught, index, distill=distill, **options), logits)
        torch.testing.assert_close(slope, gradient(expected, logits), rtol=1e-4, atol=1e-6)
        assert not slope[~target.known].any()
    parts = []
    for own in (torch.arange(len(index)) < 8, torch.arange(len(index)) >= 8):  # whole requests
        part = replace(taught.take(own.nonzero()[:, 0]), total=taught.known_weight)
        moved: dict[str, Any] = {"loss": loss, "offset": offset[own]}
        parts.append(target_loss(logits[own], part, index[own], distill=distill, **moved))
    torch.testing.assert_close(sum(parts, torch.tensor(0.0)), found.float())
    there = target_loss(teacher.clone().requires_grad_(), taught, index, distill=distill, **options)
    assert there < found  # least where it says what the teacher does

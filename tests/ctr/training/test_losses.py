from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from ctr.training.losses import RunningLoss, all_finite, click_loss


def test_loss_is_the_mean_log_loss_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator) * 3
    label = torch.randint(0, 2, (50,), generator=generator).float()
    loss = click_loss(logits, label)
    probability = 1 / (1 + np.exp(-logits.double().numpy()))
    assert loss.item() == pytest.approx(log_loss(label.numpy(), probability), rel=1e-5)
    half = click_loss(logits.bfloat16(), label)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(loss.item(), rel=0.01)


def test_extreme_logits_stay_finite() -> None:
    assert click_loss(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0])).item() == 200.0


def test_running_figures_weigh_batches_by_rows_and_start_again() -> None:
    running = RunningLoss()
    running.add(loss=0.5, rows=30, positives=6)
    running.add(loss=0.8, rows=10, positives=4)
    figures = running.take()
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert figures["loss"] == pytest.approx(0.575) and figures["label_mean"] == 0.25
    assert figures["ne"] == pytest.approx(0.575 / entropy)
    assert running.take() == {}  # not a loss of 0: no step was learned from


def test_normalised_entropy_needs_both_classes() -> None:
    running = RunningLoss()
    running.add(loss=0.1, rows=4, positives=0)
    assert running.take() == {"loss": pytest.approx(0.1), "label_mean": 0.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_value_is_found(value: float) -> None:
    good = torch.zeros(3)
    assert all_finite(good, torch.tensor(1.0))
    assert not all_finite(good, torch.tensor([0.0, value]))

"""Joint chances of tasks that exist given others: exact and finite, whatever the logits."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from ctr.batch import Target
from ctr.models.heads.chains import joint_logit, joint_target
from features.dataset import TaskInfo, chain_of

CLICK, CART, BUY = (
    TaskInfo(name="click"),
    TaskInfo(name="cart", given="click"),
    TaskInfo(name="buy", given="cart"),
)


@pytest.mark.parametrize(
    "logits", [(0.0, 0.0), (-3.0, 1.5), (2.0, -8.0, 0.3), (12.0, 9.0), (-20.0, -20.0, -20.0)]
)
def test_the_joint_logit_is_that_of_the_product(logits: tuple[float, ...]) -> None:
    chances = [Fraction(1) / (1 + Fraction(math.exp(-a))) for a in logits]  # exact from here on
    p = math.prod(chances, start=Fraction(1))
    found = joint_logit(torch.tensor([logits], dtype=torch.float64), range(len(logits)))
    assert float(found) == pytest.approx(
        math.log(p) - math.log1p(-p) if p < Fraction(1, 2) else -math.log(1 / p - 1), rel=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite_where_chances_round_to_0_or_1(dtype: torch.dtype) -> None:
    ends = torch.tensor([-300.0, -90.0, 0.0, 90.0, 300.0], dtype=dtype)
    logits = torch.cartesian_prod(ends, ends, ends).requires_grad_()
    found = joint_logit(logits, [0, 1, 2])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        found.float(), torch.ones(len(found)), reduction="none"
    )
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert bool(found.isfinite().all()) and bool(gradient.isfinite().all())
    least = logits.detach().min(dim=1).values
    assert bool((found <= least + 1e-2).all())  # no more likely than its least likely stage


def test_a_chain_of_one_is_its_own_logit() -> None:
    logits = torch.randn(3, 2)
    assert torch.equal(joint_logit(logits, [1]), logits[:, 1])


def test_chains_follow_given_as_far_as_the_run_learns_it() -> None:
    assert chain_of(BUY, [BUY, CLICK, CART]) == [1, 2, 0]
    assert chain_of(BUY, [CLICK, BUY]) == [1]  # without the cart a click does not lead to it


def test_a_row_is_known_where_the_chain_ended_or_all_of_it_is_known() -> None:
    nan = float("nan")
    rows = [  # click, cart, buy → joint
        (0, nan, nan, 0),
        (1, 0, nan, 0),
        (1, 1, 0, 0),
        (1, 1, 1, 1),
        (1, nan, nan, nan),
        (1, 1, nan, nan),
    ]
    values = torch.tensor(rows)
    known = ~values.isnan()
    targets = {
        task.name: Target(values[:, k].nan_to_num(0), known[:, k], torch.full((6,), float(k + 1)), total=9.0)
        for k, task in enumerate([CLICK, CART, BUY])
    }
    found = joint_target([CLICK, CART, BUY], targets)
    assert found.known.tolist() == known[:, 3].tolist() and found.total == 9.0
    assert found.label.tolist() == values[:, 3].nan_to_num(0).tolist()
    assert found.weight is not None and found.weight[:4].tolist() == [1.0, 2.0, 3.0, 3.0]

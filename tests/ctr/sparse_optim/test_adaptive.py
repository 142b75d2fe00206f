"""Rows that decay by the steps since their last update."""

from __future__ import annotations

import pytest
import torch

from ctr.sparse_optim import optimizer_class


@pytest.mark.parametrize("name", ["adam_ar", "rowwise_adagrad_ar"])
def test_a_row_decays_by_its_idle_steps_and_then_follows_the_plain_rule(name: str) -> None:
    """Touched in steps 1, 2 and 7: 0, 0 and 4 idle ones; a row first met in step 7 has 6."""
    adaptive, plain = optimizer_class(name), optimizer_class(name.removesuffix("_ar"))
    cpu = torch.device("cpu")
    one = adaptive(4, 3, adaptive.Options(decay=0.05), cpu)
    other = plain(4, 3, plain.Options(), cpu)
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    ours, theirs = start.clone(), start.clone()
    for step, ids in ((1, [2]), (2, [2]), (7, [2, 0])):
        index = torch.tensor(ids)
        gradient = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(step))
        one.update(ours, index, [gradient], lr=0.1, step=step)
        if step == 7:
            theirs[2] *= 1 - 0.05 * 4
            theirs[0] *= 1 - 0.05 * 6
        other.update(theirs, index, [gradient], lr=0.1, step=step)
        torch.testing.assert_close(ours, theirs)
    assert one.state()["last_step"].tolist() == [7, 0, 7, 0]
    assert torch.equal(ours[[1, 3]], start[[1, 3]])


def test_a_row_that_was_away_for_long_starts_from_nothing() -> None:
    rule = optimizer_class("rowwise_adagrad_ar")
    one = rule(1, 2, rule.Options(decay=0.5, eps=1.0), torch.device("cpu"))
    weight = torch.ones(1, 2)
    one.update(weight, torch.tensor([0]), [torch.zeros(1, 2)], lr=0.1, step=9)
    assert torch.equal(weight, torch.zeros(1, 2))


def test_the_count_of_another_run_never_lets_a_row_grow() -> None:
    """A run that starts from another has fewer steps than its rows have seen."""
    rule = optimizer_class("adam_ar")
    one = rule(1, 2, rule.Options(decay=0.1), torch.device("cpu"))
    one.state()["last_step"].fill_(100)
    weight = torch.ones(1, 2)
    one.update(weight, torch.tensor([0]), [torch.zeros(1, 2)], lr=0.1, step=3)
    assert torch.equal(weight, torch.ones(1, 2))

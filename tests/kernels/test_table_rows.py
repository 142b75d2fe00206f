"""Rows of a table updated by compiled code, against torch's operators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ctr.sparse_optim.rowwise_adagrad import AdagradOptions, RowwiseAdagrad
from kernels import table_rows

if not table_rows.available(torch.zeros(1, 1)):
    pytest.skip("this machine has no GCC", allow_module_level=True)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("count", "width"), [(0, 4), (1, 1), (13, 7), (6000, 64)])
def test_rowwise_adagrad(
    threads: int, count: int, width: int, decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AdagradOptions(weight_decay=decay)
    ids, pieces = torch.randperm(7000)[:count], (count // 3, count - count // 3)
    tables = []
    start, gradients = torch.randn(7000, width), [torch.randn(count, width) for _ in range(3)]
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(table_rows, "available", lambda _: False)
        rule, weight = RowwiseAdagrad(7000, width, options, torch.device("cpu")), start.clone()
        for gradient in gradients:
            rule.update(weight, ids, gradient.split(pieces), lr=0.1, step=1)
        tables.append((weight, rule.sum))
    for mine, wanted in zip(*tables, strict=True):
        torch.testing.assert_close(mine, wanted)
    untouched = torch.ones(7000, dtype=torch.bool).index_fill(0, ids, False)
    assert torch.equal(tables[0][0][untouched], start[untouched])


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    weight, total = torch.ones(5, 4), torch.zeros(5)
    for ids, gradient, says in [
        (torch.tensor([5]), torch.ones(1, 4), r"lie in \[0, 5\)"),
        (torch.tensor([-1]), torch.ones(1, 4), r"lie in \[0, 5\)"),
        (torch.tensor([1, 2]), torch.ones(1, 4), "float32"),
        (torch.tensor([1]), torch.ones(1, 4, dtype=torch.float64), "float32"),
        (torch.tensor([1], dtype=torch.int32), torch.ones(1, 4), "int64"),
    ]:
        with pytest.raises(ValueError, match=says):
            table_rows.rowwise_adagrad(weight, total, ids, gradient, lr=1.0, eps=1e-8, keep=1.0)
    assert torch.equal(weight, torch.ones(5, 4)) and not total.any()


def test_a_table_of_another_kind_is_refused_and_stays_as_it_is() -> None:
    total, ids, gradient = torch.zeros(5), torch.tensor([1]), torch.ones(1, 4)
    for weight in (
        torch.ones(5, 4, dtype=torch.float64),
        torch.ones(4, 5).t(),
        torch.ones(5, 4, device="meta"),
    ):
        with pytest.raises(ValueError, match="in one piece"):
            table_rows.rowwise_adagrad(weight, total, ids, gradient, lr=1.0, eps=1e-8, keep=1.0)
        assert weight.is_meta or bool((weight == 1).all())


def test_other_tables_are_left_to_torch() -> None:
    assert not table_rows.available(torch.zeros(3, 2, dtype=torch.float64))
    assert not table_rows.available(torch.zeros(2, 3).t())

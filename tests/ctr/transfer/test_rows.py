"""Rows of another run in tables of every engine; those of several ranks are in tests/ctr/distributed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.embedding import EmbeddingTables, make_tables
from ctr.runs.versions import fbgemm_available
from ctr.transfer.rows import take_rows

OLD, NEW = {"a": 70, "b": 9, "gone": 4}, {"b": 12, "a": 50, "fresh": 3}
needs_fbgemm = pytest.mark.skipif(not fbgemm_available(), reason="fbgemm is not installed")
ENGINES = [
    ("torch", "rowwise_adagrad"),
    ("torch", "adam"),
    pytest.param("fbgemm", "rowwise_adagrad", marks=needs_fbgemm),
]


def tables(rows: dict[str, int], *, seed: int, **options: Any) -> EmbeddingTables:
    return make_tables(rows, EmbeddingConfig(**{"dim": 4, **options}), seed=seed, widths={"b": 8})


def trained(optimizer: str) -> dict[str, Tensor]:
    found = tables(OLD, seed=1, optimizer=optimizer)
    rows = found.lookup({name: torch.arange(count) for name, count in OLD.items()})
    torch.stack([part.square().sum() for part in rows.values()]).sum().backward()
    found.apply_gradients()
    return {name: torch.as_tensor(tensor).clone() for name, tensor in found.state().items()}


@pytest.mark.parametrize(("engine", "optimizer"), ENGINES)
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("piece", [1, 7, 2**16])
def test_rows_lie_where_their_values_are(
    engine: str, optimizer: str, keep: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctr.transfer.rows._PIECE", piece)
    order = np.random.default_rng(0).permutation(70)
    maps = {"a": np.where(order < 50, order, -1), "b": np.arange(9)}
    stored, new = trained(optimizer), tables(NEW, seed=2, engine=engine, optimizer=optimizer)
    fresh = {name: torch.as_tensor(tensor).clone() for name, tensor in new.state().items()}
    take_rows(new, stored, maps, keep_optimizer=keep)
    for name, tensor in new.state().items():
        table, _, part = name.rpartition(".")
        if table not in NEW:
            assert torch.equal(torch.as_tensor(tensor), stored[name] if keep else fresh[name])
            continue
        wanted = fresh[name].clone()
        for there, here in enumerate(maps.get(table, [])):
            if here >= 0 and (keep or part == "weight"):
                wanted[here] = stored[name][there]
        assert torch.equal(torch.as_tensor(tensor), wanted), name

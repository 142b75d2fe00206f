"""Row 42: embedding tables larger than memory are refused before they are made."""

from __future__ import annotations

import pytest
import torch

from ctr.config import EmbeddingConfig
from ctr.distributed.world import World
from ctr.embedding import make_tables
from ctr.embedding.memory import check_fits, table_bytes
from ctr.sparse_optim import OPTIMIZERS
from features.errors import ConfigError
from features.memory.limit import MemoryLimit

CPU = torch.device("cpu")


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_bytes_are_those_of_the_state_that_is_saved(optimizer: str) -> None:
    config = EmbeddingConfig(dim=6, optimizer=optimizer)
    state = make_tables({"a": 50}, config, seed=1).state()
    made = sum(t.numel() * t.element_size() for name, t in state.items() if name != "step")
    assert table_bytes(50, 6, config) == made


@pytest.mark.fault(42)
def test_tables_larger_than_memory_name_the_largest() -> None:
    rows = {"user": 3 * 10**12, "item": 5}
    with pytest.raises(ConfigError) as caught:
        make_tables(rows, EmbeddingConfig(dim=16, optimizer="adam"), seed=1)
    text = str(caught.value)
    assert "with the state of adam they take 576 TB" in text
    assert "the largest is 'user': 3,000,000,000,000 rows of 16 values" in text
    assert "make embedding.dim smaller" in text


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies count for each; shared tables count once."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    copies, shared = (EmbeddingConfig(dim=16, engine=engine) for engine in ("torch", "torchrec"))
    needed = table_bytes(1000, 16, copies)
    limit = MemoryLimit(needed, needed, "of this test")
    monkeypatch.setattr("ctr.embedding.memory.memory_limit", lambda: limit)
    two = World(0, 2, 0, CPU)
    check_fits({"a": 1000}, {"a": 16}, shared, device=CPU, world=two)
    check_fits({"a": 1000}, {"a": 16}, copies, device=CPU, world=World.single(CPU))
    with pytest.raises(ConfigError, match=r"must fit into the .* \(of this test\)"):
        check_fits({"a": 1000}, {"a": 16}, copies, device=CPU, world=two)

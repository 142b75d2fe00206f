"""ctr.embedding: update rules against plain formulas, parity of the engines, exact state, no traces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctr.config import EmbeddingConfig
from ctr.distributed.shards import Sharded, as_sharded
from ctr.embedding import EmbeddingTables, make_tables
from ctr.embedding.base import fill_initial
from ctr.errors import CheckpointError
from ctr.runs.versions import fbgemm_available
from features.errors import ConfigError

needs_fbgemm = pytest.mark.skipif(not fbgemm_available(), reason="fbgemm is not installed")
ENGINES = [
    ("torch", "rowwise_adagrad"),
    ("torch", "adam"),
    ("torch", "adam_ar"),
    ("torch", "rowwise_adagrad_ar"),
    ("fbgemm", "rowwise_adagrad"),
]
EACH_ENGINE = [
    pytest.param(
        engine, optimizer, marks=[needs_fbgemm] if engine == "fbgemm" else [], id=f"{engine}-{optimizer}"
    )
    for engine, optimizer in ENGINES
]
ROWS = {"item": 300, "user": 50, "small": 7}


def make(
    engine: str = "torch", optimizer: str = "rowwise_adagrad", *, seed: int = 3, **knobs: Any
) -> EmbeddingTables:
    data = {"engine": engine, "optimizer": optimizer, "dim": 8, **knobs}
    return make_tables(ROWS, EmbeddingConfig.model_validate(data), seed=seed)


def train_step(tables: EmbeddingTables, step: int) -> None:
    """One step on IDs and a loss that depend on `step`; not all tables are looked up or used in the loss."""
    generator = torch.Generator().manual_seed(step)
    ids = {name: torch.randperm(n, generator=generator)[: step * 13 % n] for name, n in ROWS.items()}
    if step % 3 == 0:
        del ids["small"]
    factors = {name: torch.randn(len(i), tables.dim, generator=generator) for name, i in ids.items()}
    tables.set_lr(0.05 * (1 - step / 60))
    rows = tables.lookup(ids)
    used = [name for name in ids if name != "user" or step % 2]
    torch.stack([(torch.tanh(5 * rows[name]) * factors[name]).sum() for name in used]).sum().backward()
    tables.apply_gradients()


def copy_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    config = EmbeddingConfig(dim=16, init_std=0.02)
    one = make_tables({"a": 5000, "b": 10}, config, seed=1).state()
    other = make_tables({"c": 7, "b": 10, "a": 5000}, config, seed=1).state()
    assert torch.equal(one["a.weight"], other["a.weight"]) and torch.equal(one["b.weight"], other["b.weight"])
    assert not torch.equal(one["a.weight"][:10], one["b.weight"])
    assert not torch.equal(one["b.weight"], make_tables({"b": 10}, config, seed=2).state()["b.weight"])
    assert one["a.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(one["a.weight"].mean().item()) < 5e-4


def initial_weight(table: str, rows: int, config: EmbeddingConfig, *, seed: int) -> Tensor:
    weight = torch.empty(rows, config.dim)
    fill_initial(as_sharded(weight), table, config, seed=seed)
    return weight


@pytest.mark.parametrize("rows", [1, 15, 16, 31, 32, 33, 48, 70])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_weights_made_in_pieces_are_those_made_at_once(
    rows: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EmbeddingConfig(dim=dim)
    whole = initial_weight("a", rows, config, seed=1)  # one piece
    monkeypatch.setattr("ctr.embedding.base._CHUNK", 16)
    assert torch.equal(initial_weight("a", rows, config, seed=1), whole)
    part = torch.zeros(rows - rows // 3, dim)
    fill_initial(Sharded((rows, dim), [((rows // 3, 0), part)]), "a", config, seed=1)
    assert torch.equal(part, whole[rows // 3 :])


def rowwise_adagrad(
    w: Tensor, g: Tensor, memory: dict[str, Tensor], knobs: EmbeddingConfig, t: int
) -> Tensor:
    memory["h"] = memory.get("h", torch.zeros(len(w)).double()) + (g * g).mean(1)
    decayed = w * (1 - knobs.lr * knobs.weight_decay)
    return decayed - knobs.lr * g / (memory["h"].sqrt() + knobs.eps)[:, None]


def adam(w: Tensor, g: Tensor, memory: dict[str, Tensor], knobs: EmbeddingConfig, t: int) -> Tensor:
    b1, b2 = knobs.betas
    memory["m"] = b1 * memory.get("m", torch.zeros_like(w)) + (1 - b1) * g
    memory["v"] = b2 * memory.get("v", torch.zeros_like(w)) + (1 - b2) * g * g
    fraction = (memory["m"] / (1 - b1**t)) / ((memory["v"] / (1 - b2**t)).sqrt() + knobs.eps)
    return w - knobs.lr * (fraction + knobs.weight_decay * w)


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_follow_the_formula(engine: str, optimizer: str, weight_decay: float) -> None:
    tables = make(engine, optimizer, weight_decay=weight_decay)
    knobs, formula = (
        tables.config,
        {"adam": adam, "rowwise_adagrad": rowwise_adagrad}[optimizer.removesuffix("_ar")],
    )
    ids = torch.tensor([299, 0, 17])
    before = tables.state()["item.weight"].clone()
    expected, memory = before[ids].double(), dict[str, Tensor]()
    for step in range(1, 6):
        gradient = torch.randn(3, 8, generator=torch.Generator().manual_seed(step))
        tables.lookup({"item": ids})["item"].backward(gradient)
        tables.apply_gradients()
        expected = formula(expected, gradient.double(), memory, knobs, step)
    after = tables.state()["item.weight"]
    torch.testing.assert_close(after[ids].double(), expected, rtol=1e-5, atol=1e-6)
    untouched = torch.ones(300, dtype=torch.bool).index_fill_(0, ids, False)
    assert torch.equal(after[untouched], before[untouched])


@needs_fbgemm
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_engines_agree(weight_decay: float) -> None:
    ours, theirs = make("torch", weight_decay=weight_decay), make("fbgemm", weight_decay=weight_decay)
    assert_same_state(ours.state(), theirs.state())
    for step in range(1, 50):
        train_step(ours, step)
        train_step(theirs, step)
    torch.testing.assert_close(ours.state(), theirs.state(), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@needs_fbgemm
def test_engines_agree_on_adam_on_a_gpu() -> None:
    config = {"optimizer": "adam", "dim": 8, "weight_decay": 0.05}
    both = [
        make_tables(ROWS, EmbeddingConfig.model_validate({**config, "engine": engine}), seed=1, device="cuda")
        for engine in ("torch", "fbgemm")
    ]
    for step in range(1, 30):
        for tables in both:
            ids = torch.arange(step, step + 20, device="cuda")
            (tables.lookup({"item": ids})["item"] * step).tanh().sum().backward()
            tables.apply_gradients()
    torch.testing.assert_close(both[0].state(), both[1].state(), rtol=1e-4, atol=1e-6, check_device=False)


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_state_continues_bitwise(engine: str, optimizer: str) -> None:
    straight, first = make(engine, optimizer), make(engine, optimizer)
    for step in range(1, 20):
        train_step(straight, step)
        if step < 10:
            train_step(first, step)
    resumed = make(engine, optimizer, seed=99)
    train_step(resumed, 5)  # whatever it holds is replaced
    resumed.load_state(copy_of(first.state()))
    for step in range(10, 20):
        train_step(resumed, step)
    assert_same_state(straight.state(), resumed.state())


@needs_fbgemm
def test_one_engine_reads_the_state_of_the_other() -> None:
    ours, theirs = make("torch"), make("fbgemm", seed=7)
    train_step(ours, 4)
    theirs.load_state(copy_of(ours.state()))
    assert_same_state(ours.state(), theirs.state())


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_threads_do_not_change_a_bit(engine: str, optimizer: str) -> None:
    states, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            states.append(make(engine, optimizer, dim=32))
            for step in range(1, 15):
                train_step(states[-1], step)
    finally:
        torch.set_num_threads(before)
    assert_same_state(states[0].state(), states[1].state())


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_lookup_without_gradient_leaves_no_trace(engine: str, optimizer: str) -> None:
    tables = make(engine, optimizer)
    train_step(tables, 1)
    before = copy_of(tables.state())
    with torch.no_grad():
        rows = tables.lookup({"item": torch.tensor([3, 5])})["item"]
    tables.apply_gradients()
    assert not rows.requires_grad
    assert torch.equal(rows, before["item.weight"][[3, 5]])
    assert_same_state(before, tables.state())


def test_discarded_gradients_are_not_applied() -> None:
    tables = make()
    before = copy_of(tables.state())
    tables.lookup({"item": torch.tensor([3])})["item"].sum().backward()
    tables.discard()
    tables.apply_gradients()
    assert_same_state(before, tables.state())


def test_gradients_are_applied_once() -> None:
    tables = make()
    tables.lookup({"item": torch.tensor([3])})["item"].sum().backward()
    tables.apply_gradients()
    after = copy_of(tables.state())
    tables.apply_gradients()
    assert_same_state(after, tables.state())


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_rows_stay_float32_under_autocast(engine: str, optimizer: str) -> None:
    tables = make(engine, optimizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tables.lookup({"item": torch.tensor([1])})["item"].dtype == torch.float32


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_no_ids(engine: str, optimizer: str) -> None:
    tables = make(engine, optimizer)
    rows = tables.lookup({"item": torch.empty(0, dtype=torch.int64), "user": torch.tensor([1])})
    assert rows["item"].shape == (0, 8)
    (rows["item"].sum() + rows["user"].sum()).backward()
    tables.apply_gradients()


@pytest.mark.fault(15)
@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_wrong_ids_are_named(engine: str, optimizer: str) -> None:
    tables = make(engine, optimizer)
    with pytest.raises(
        ValueError, match=r"IDs of table 'small' must lie in \[0, 7\) \(its rows\), got 2 to 7"
    ):
        tables.lookup({"small": torch.tensor([2, 7])})
    with pytest.raises(ValueError, match=r"tables must be among \['item', 'small', 'user'\], got 'nothing'"):
        tables.lookup({"nothing": torch.tensor([0])})


def test_foreign_state_is_refused_and_changes_nothing() -> None:
    tables = make()
    before = copy_of(tables.state())
    wrong = {**copy_of(make(seed=8).state()), "item.weight": torch.zeros(301, 8)}
    with pytest.raises(CheckpointError, match=r"1 differ \(item.weight: \(300, 8\) here, \(301, 8\) there\)"):
        tables.load_state(wrong)
    with pytest.raises(CheckpointError, match=r"item.exp_avg: \(300, 8\) here, None there"):
        make("torch", "adam").load_state(before)
    assert_same_state(before, tables.state())


@needs_fbgemm
def test_engines_are_chosen_by_what_they_can() -> None:
    with pytest.raises(
        ConfigError, match=r"adam runs in torch, fbgemm \(cuda\), .*set embedding.engine to torch"
    ):
        make("fbgemm", "adam")
    assert type(make("auto")).__name__ == "FbgemmTables"
    assert type(make("auto", "adam")).__name__ == "TorchTables"
    assert type(make("torchrec")).__name__ == "FbgemmTables"  # in one process the same kernels
    with pytest.raises(ConfigError, match="needs at least one embedding table"):
        make_tables({}, EmbeddingConfig(engine="fbgemm"), seed=1)
    assert make_tables({}, EmbeddingConfig(engine="auto"), seed=1).num_parameters == 0


def test_sizes() -> None:
    tables = make()
    assert (tables.dim, tables.num_parameters) == (8, 357 * 8)


@pytest.mark.parametrize(("engine", "optimizer"), EACH_ENGINE)
def test_tables_drawn_anew_are_as_fresh_and_the_others_as_they_were(engine: str, optimizer: str) -> None:
    tables = make(engine, optimizer)
    for step in range(1, 6):
        train_step(tables, step)
    before = copy_of(tables.state())
    tables.restart(["item"], seed=3, epoch=1)
    now = tables.state()
    assert {name for name in now if not torch.equal(now[name], before[name])} == {
        name for name in now if name.startswith("item.")
    }
    assert all(
        not now[name].any() for name in now if name.startswith("item.") and not name.endswith("weight")
    )
    fresh = make(engine, optimizer).state()["item.weight"]
    assert not torch.equal(now["item.weight"], fresh)  # drawn again: not the first draw
    assert now["item.weight"].std().item() == pytest.approx(fresh.std().item(), rel=0.1)
    again = make("torch", optimizer)
    again.restart(["item"], seed=3, epoch=1)
    assert torch.equal(again.state()["item.weight"], now["item.weight"])  # in every engine the same
    again.restart(["item"], seed=3, epoch=2)
    assert not torch.equal(again.state()["item.weight"], now["item.weight"])
    train_step(tables, 6)
    assert not torch.equal(tables.state()["item.weight"], again.state()["item.weight"])

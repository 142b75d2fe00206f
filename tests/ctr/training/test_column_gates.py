"""Gates of columns: at 1 they change no bit, noise closes them for good, and closed columns are not read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ctr.batch import Batch, Target
from ctr.tokens.gates import STRETCH, ColumnGates, gates_in
from ctr.training.column_gates import (
    ClosingGates,
    describe_gates,
    gate_rows,
    gate_values,
    threshold,
)
from features.dataset import Dataset
from tests.ctr.steps import start
from tests.ctr.tiny_run import tiny_dataset

COLUMNS = {"user", "interests", "age", "item", "tags", "price", "buy.item"}
COLUMNS |= {f"view.{name}" for name in ("item", "brand", "tags", "dwell")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(tiny_dataset(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("kind", ["hyformer", "two_stage"])
def test_open_gates_change_no_bit(kind: str, dataset: Dataset) -> None:
    options = ("model.dense_bins=2", f"model.kind={kind}")
    _, plain, _, (batch, *_) = start(dataset, *options)
    _, gated, _, _ = start(dataset, *options, "model.column_gates={l1: 0.001}")
    found = [s.model.eval()(batch, s.tables.lookup(batch.unique_ids)) for s in (plain, gated)]
    assert torch.equal(*found)
    values = gate_values(gated.model)
    assert set(values) == COLUMNS and set(values.values()) == {1.0}
    assert plain.model.state_dict().keys() < gated.model.state_dict().keys()


def test_a_closed_column_is_not_read(dataset: Dataset) -> None:
    _, state, _, (batch, *_) = start(dataset, "model.column_gates={l1: 0.001}")

    def logits(other: Batch) -> torch.Tensor:
        found: torch.Tensor = state.model.eval()(other, state.tables.lookup(other.unique_ids))
        return found.detach()

    dense = {name: values + 3 for name, values in batch.candidate_dense.items()}
    view = batch.sequences["view"]
    events = replace(view, dense={name: values - 2 for name, values in view.dense.items()})
    others = {
        "price": replace(batch, candidate_dense=dense),
        "view.dwell": replace(batch, sequences={**batch.sequences, "view": events}),
    }
    for column, other in others.items():
        before = logits(batch)
        assert not torch.equal(logits(other), before)
        for gates in gates_in(state.model):
            with torch.no_grad():
                gates.theta[[k for k, name in enumerate(gates.names) if name == column]] = 0
        assert torch.equal(logits(other), logits(batch)) and not torch.equal(logits(batch), before)


def test_noise_closes_gates_and_what_decides_stays_open(dataset: Dataset) -> None:
    """A click depends on the candidate's price alone."""
    options = ("model.column_gates={l1: 0.03}", "optimizer.schedule=constant", "optimizer.lr=0.01")
    _, state, updates, batches = start(dataset, *options)
    learnable = [
        replace(b, targets={"label": Target.of((b.candidate_dense["price"][:, 0] > 0).float())})
        for b in batches
    ]
    for step in range(80):
        updates.step(learnable[step % len(batches)], step)
    values = gate_values(state.model)
    closed = {name for name, value in values.items() if value == 0}
    assert values["price"] > 0.05 and len(closed) >= 6, values
    (told,) = describe_gates(values)
    assert told.startswith(f"{len(closed)} of 11 column gates are closed: ") and "price" not in told
    assert {"name": ["price"], "figures": {"gate": values["price"]}} in gate_rows(values)["parts"]


def test_the_step_is_the_proximal_one() -> None:
    """In the metric of AdamW, number by number; a column that no batch has had stays as it is."""
    gates, l1 = ColumnGates(["a", "b", "unseen"]), 0.02
    optimizer = torch.optim.AdamW(gates.parameters(), lr=0.01, weight_decay=0.0, fused=True)
    closing = ClosingGates(gates, optimizer, l1)
    closing.shrink()  # before the first step there is nothing to go by
    assert gates.values().tolist() == [1.0, 1.0, 1.0]
    m, v, theta = [0.0, 0.0], [0.0, 0.0], [1 / STRETCH, 1 / STRETCH]
    for step in range(1, 12):
        gradient = [0.3 * math.cos(step), -2.0]
        gates.theta.grad = torch.tensor([*gradient, 0.0])
        optimizer.step()
        closing.shrink()
        for k, g in enumerate(gradient):
            m[k], v[k] = 0.9 * m[k] + 0.1 * g, 0.999 * v[k] + 0.001 * g * g
            root = math.sqrt(v[k] / (1 - 0.999**step)) + 1e-8
            moved = theta[k] - 0.01 * m[k] / (1 - 0.9**step) / root
            least = min(0.01 * STRETCH * l1 / root, 0.01)
            theta[k] = math.copysign(max(0.0, abs(moved) - least), moved)
        assert gates.theta.tolist() == pytest.approx([*theta, 1 / STRETCH], rel=1e-4, abs=1e-7)
    assert theta[0] < 1 / STRETCH < theta[1]
    state = {"exp_avg_sq": torch.tensor([0.0, 1e-12]), "step": torch.tensor(1.0)}
    group = {"betas": (0.9, 0.999), "lr": 0.01, "eps": 1e-8}
    assert threshold(state, group, 1.0).tolist() == pytest.approx([0.0, 0.01])  # never more than a step

"""Ways to share a model between tasks against the papers' formulas, and inside every kind of model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctr.batch import Batch, Target
from ctr.build import build_model
from ctr.config import parse_config
from ctr.models.head import Head
from ctr.models.heads.heads import HEADS
from ctr.models.heads.towers import Gate, HeadSizes
from ctr.models.registry import MODELS, model_config
from features.dataset import TaskInfo
from features.errors import ConfigError
from tests.ctr import batches
from tests.ctr.reference.heads import LOGITS
from tests.ctr.reference.parity import assert_parity, rand, scrambled

CLICK, BUY = TaskInfo(name="click"), TaskInfo(name="buy", given="click")
TASKS = [CLICK, BUY, TaskInfo(name="seconds", kind="regression")]
SIZES = HeadSizes(inputs=5, tasks=3, hidden=(4,), dropout=0.0)
CASES: dict[str, dict[str, Any]] = {
    "shared_bottom": {},
    "shared_bottom, bottom": {"bottom_hidden": [7, 6]},
    "mmoe": {"experts": 3, "expert_hidden": [4]},
    "mmoe, deep experts": {"experts": 2, "expert_hidden": [4, 3]},
    "ple": {"task_experts": 1, "shared_experts": 2, "expert_hidden": [4]},
    "ple, levels": {"levels": 3, "task_experts": 2, "shared_experts": 1, "expert_hidden": [3, 4]},
    "esmm": {},
}
# The smallest of each kind of model.
SMALL: dict[str, dict[str, Any]] = {
    "hyformer": {"queries": {"view": 2}, "encoder": {"kind": "swiglu"}},
    "longer": {"longer": {"num_queries": 4}},
    "two_stage": {"longer": {"num_queries": 4}},
    "grid": {"sequence": {"kind": "din"}},
}


def read(options: dict[str, Any]) -> Any:
    return HEADS.read(options)


def config_of(name: str, **options: Any) -> Any:
    return HEADS.read({"kind": name.split(",")[0], **CASES.get(name, {}), **options})


def small_model(kind: str, tasks: Any, *, infos: list[TaskInfo], **options: Any) -> nn.Module:
    whole = {"d_model": 12, "heads": 2, "layers": 1, "head_hidden": [6], **options, **SMALL.get(kind, {})}
    if kind == "grid":
        del whole["layers"]
    config = model_config(kind=kind, **whole)
    return build_model(batches.manifest(tasks=infos), config, dim=batches.DIM, seed=1, tasks=tasks)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_are_the_formula_row_by_row(name: str) -> None:
    config = config_of(name)
    head, x = scrambled(config.build(SIZES)), rand(6, SIZES.inputs)
    want = [torch.stack([LOGITS[config.kind](head, row, k)[0] for k in range(SIZES.tasks)]) for row in x]
    got = head(x)
    assert got.shape == (6, SIZES.tasks)
    assert_parity([got], [torch.stack(want)], head, [x])


def test_every_way_has_a_reference_and_cases() -> None:
    """A line in ctr.models.heads.heads asks for both."""
    assert set(HEADS.kinds) == set(LOGITS) == {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("head", HEADS.kinds)
def test_every_model_gives_a_logit_for_each_task(kind: str, head: str) -> None:
    model = small_model(kind, config_of(head), infos=[CLICK, BUY], linear_shortcut=True).double().eval()
    batch, rows = batches.make_batch(), batches.make_rows()
    logits = model(batch, rows)
    assert logits.shape == (batch.num_rows, 2)
    torch.testing.assert_close(logits, model.score(model.encode(batch, rows), batch, rows))


@pytest.mark.parametrize("kind", MODELS)
def test_one_task_is_the_model_without_tasks_bit_by_bit(kind: str) -> None:
    own = small_model(kind, config_of("shared_bottom", use=["buy"]), infos=[BUY], linear_shortcut=True)
    plain = small_model(kind, None, infos=[TaskInfo()], linear_shortcut=True)
    names = list(plain.state_dict())
    assert list(own.state_dict()) == names
    assert all(torch.equal(own.state_dict()[name], plain.state_dict()[name]) for name in names)
    batch, rows = batches.make_batch(), batches.make_rows()
    assert torch.equal(own.double()(batch, rows), plain.double()(batch, rows))


def test_towers_and_experts_start_apart_from_each_other() -> None:
    """Experts of equal weights would learn the same for ever."""
    head = config_of("mmoe").build(SIZES)
    first, second, *_ = (expert[0].weight for expert in head.experts)
    assert not torch.equal(first, second) and not torch.equal(
        head.towers[0][0].weight, head.towers[1][0].weight
    )


def test_a_gate_that_loses_experts_spreads_their_weight_over_the_others() -> None:
    torch.manual_seed(0)
    gate = Gate(2, 3, dropout=0.6)
    x, experts = torch.randn(400, 2), [torch.full((400, 1), float(i == 0)) for i in range(3)]
    weight_of_first = gate(x, experts)[:, 0]
    whole = gate.eval()(x, experts)[:, 0]
    alone, gone = (weight_of_first == 1).float().mean(), (weight_of_first == 0).float().mean()
    assert alone == pytest.approx(0.4 * 0.36, abs=0.06) and gone == pytest.approx(0.6 * (1 - 0.36), abs=0.07)
    assert ((weight_of_first - whole).abs() < 1e-6).float().mean() > 0.064  # all there, or all would go
    assert bool(((whole > 0) & (whole < 1)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use": ["clicks"]}, r"tasks.use must name the labels of the data set \(click, buy, seconds\)"),
        ({"use": ["buy", "buy"]}, "each once, got \\['buy', 'buy'\\]"),
        (
            {"use": ["click"], "weights": {"buy": 2.0}},
            r"tasks.weights must name the tasks that the run learns \(c",
        ),
        ({"kind": "esmm", "use": ["buy"]}, "esmm needs binary tasks, one of them with `given`"),
        ({"kind": "esmm", "use": ["click"]}, "got click .binary, given nothing."),
        ({"kind": "esmm"}, "seconds .regression, given nothing."),
    ],
)
def test_wrong_tasks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(options).chosen(TASKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mmoe", "levels": 2}, "kind ple, not of kind mmoe"),
        ({"kind": "moe"}, "must be one of shared_bottom, mmoe, ple, esmm"),
        ({"weights": {"click": 0}}, "greater than 0"),
        ({"weights": "equal"}, "learned"),
        ({"kind": "mmoe", "expert_hidden": []}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"dataset": "d", "run": "r", "tasks": options})


def test_tasks_come_in_the_order_of_use() -> None:
    assert [t.name for t in read({"use": ["seconds", "click"]}).chosen(TASKS)] == ["seconds", "click"]
    assert read({}).chosen(TASKS) == TASKS


def gradients_of(model: nn.Module, batch: Batch, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    from ctr.training.objective import TasksObjective

    loss = TasksObjective.of(model)(model(batch, rows), batch)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(parameters.items(), found, strict=True)
    }


@pytest.mark.parametrize("kind", ["shared_bottom", "mmoe", "ple"])
def test_a_tower_and_gate_learn_nothing_from_rows_masked_for_their_task(kind: str) -> None:
    """Labels of masked rows change no gradient; where all rows are masked, those of the task are zero."""
    model = small_model("grid", config_of(kind), infos=[CLICK, BUY]).double()
    batch, rows = batches.make_batch(), batches.make_rows()
    known = torch.arange(batch.num_rows) % 3 == 0
    click = Target.of(batch.label)

    def masked(label: Tensor, known: Tensor) -> dict[str, Tensor]:
        return gradients_of(
            model, replace(batch, targets={"click": click, "buy": Target(label, known)}), rows
        )

    label = torch.ones(batch.num_rows, dtype=torch.float64)
    here, there = masked(label * known, known), masked(label, known)
    assert all(torch.equal(here[name], there[name]) for name in here)
    own = [n for n in here if ".towers.1." in n or ".gates.1." in n or ".task_experts.1." in n]
    assert own and all(bool(here[name].any()) for name in own)
    nothing = masked(label, torch.zeros_like(known))
    assert not any(bool(nothing[name].any()) for name in own)
    assert all(bool(nothing[n].any()) for n in here if ".towers.0." in n)


def test_a_head_that_is_told_of_no_tasks_gives_one_logit() -> None:
    config = model_config(kind="grid", d_model=12)
    assert Head(2, 12, config, batches.manifest(tasks=TASKS)).mlp[-1].out_features == 1

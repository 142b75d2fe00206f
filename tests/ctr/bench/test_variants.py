"""Each optimisation switched off alone gives the same logits, gradients and updates, and leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ctr.batch import Batch, Target
from ctr.bench.shape import Shape
from ctr.bench.suites.ablate import ParityError, check_parity
from ctr.bench.suites.curves import DRAWS, EXACT, bound, difference, loss_curve
from ctr.bench.synthetic import write_dataset
from ctr.bench.variants import ALL_OFF, BASELINE, FOR_FEW_ROWS, VARIANTS, Implementation
from ctr.bench.workload import Workload, bench_config, first_batches, models
from ctr.blocks import fused
from ctr.config import RunConfig, TrainConfig
from ctr.sparse_optim.rowwise_adagrad import RowwiseAdagrad
from ctr.tokens.events import SequenceTokenizer
from ctr.training.speed import speed_up
from features.dataset import Dataset, Manifest
from features.errors import ConfigError

every = pytest.mark.parametrize("variant", [*VARIANTS, ALL_OFF], ids=lambda v: v.name)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    shape = replace(Shape().small(), requests=24, rows_per_request=3)
    return write_dataset(tmp_path_factory.mktemp("data") / "set", shape)


def test_the_curves_see_the_compiled_networks(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    asked = fused.available

    def available(x: Tensor, outputs: int) -> bool:
        seen.append(len(x))
        return asked(x, outputs)

    monkeypatch.setattr(fused, "available", available)
    config = bench_config(dataset, "HyFormer, Transformer", requests=6)
    loss_curve(dataset, config, BASELINE, steps=1)
    assert seen and min(seen) < fused.ROWS


@every
@pytest.mark.parametrize("model", ["HyFormer, LONGER-style", "LONGER"])
def test_the_same_result(dataset: Dataset, variant: Implementation, model: str) -> None:
    config = bench_config(dataset, model, requests=6)
    workload = Workload.build(config, dataset.manifest)
    (batch,) = first_batches(dataset, config, 1)
    with FOR_FEW_ROWS.active():
        workload.step(batch)
        assert check_parity(workload, batch, variant, dataset.manifest) < 1e-5


@pytest.fixture(scope="module")
def few_steps(dataset: Dataset) -> tuple[RunConfig, list[float]]:
    config = bench_config(dataset, "HyFormer, LONGER-style", requests=6)
    return config, loss_curve(dataset, config, BASELINE, steps=3)


@every
def test_the_same_updates(
    dataset: Dataset, variant: Implementation, few_steps: tuple[RunConfig, list[float]]
) -> None:
    config, expected = few_steps
    assert loss_curve(dataset, config, variant, steps=3) == pytest.approx(expected, abs=1e-5)


Curves = tuple[RunConfig, list[float], dict[int, float]]
STEPS = 50


@pytest.fixture(scope="module")
def many_steps(dataset: Dataset) -> Curves:
    """A curve, whose loss falls to a hundredth, and what rounding alone does to its first half and to all."""
    smaller = ["model.layers=1", "model.d_model=32", "model.heads=2"]
    config = bench_config(dataset, "HyFormer, Transformer", smaller, requests=6)
    expected = loss_curve(dataset, config, BASELINE, steps=STEPS)
    rounded = [loss_curve(dataset, config, BASELINE, steps=STEPS, moved=draw + 1) for draw in range(DRAWS)]
    return config, expected, {until: bound(rounded, expected, until) for until in (STEPS // 2, STEPS)}


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*(v for v in VARIANTS if v.float32), ALL_OFF], ids=lambda v: v.name)
def test_the_same_loss_curve(dataset: Dataset, variant: Implementation, many_steps: Curves) -> None:
    config, expected, bounds = many_steps
    assert expected[-1] < 0.05 * expected[0]  # it learns
    assert bounds[STEPS] < 1e-4 * expected[0]  # and the bound is no loose one
    curve = loss_curve(dataset, config, variant, steps=STEPS)
    for until, most in bounds.items():
        assert difference(curve, expected, until) <= most


@pytest.fixture(scope="module")
def in_float64(dataset: Dataset, many_steps: Curves) -> list[float]:
    return loss_curve(dataset, many_steps[0], BASELINE, steps=STEPS, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.float32], ids=lambda v: v.name)
def test_the_same_loss_curve_to_the_last_step_in_float64(
    dataset: Dataset, variant: Implementation, many_steps: Curves, in_float64: list[float]
) -> None:
    curve = loss_curve(dataset, many_steps[0], variant, steps=STEPS, dtype=torch.float64)
    assert difference(curve, in_float64, STEPS) <= EXACT


@pytest.mark.slow
def test_a_rate_that_differs_by_a_millionth_is_seen_in_float64(
    dataset: Dataset, many_steps: Curves, in_float64: list[float]
) -> None:
    optimizer = many_steps[0].optimizer.model_copy(update={"lr": (1 + 1e-6) * many_steps[0].optimizer.lr})
    config = many_steps[0].model_copy(update={"optimizer": optimizer})
    curve = loss_curve(dataset, config, BASELINE, steps=STEPS, dtype=torch.float64)
    assert difference(curve, in_float64, STEPS) > EXACT


@pytest.mark.slow
def test_a_thousandth_more_learning_is_not_taken_for_rounding(dataset: Dataset, many_steps: Curves) -> None:
    config, expected, bounds = many_steps
    optimizer = config.optimizer.model_copy(update={"lr": 1.001 * config.optimizer.lr})
    faster = config.model_copy(update={"optimizer": optimizer})
    curve = loss_curve(dataset, faster, BASELINE, steps=STEPS)
    assert difference(curve, expected, STEPS) > bounds[STEPS]


def test_functions_come_back_even_after_an_error() -> None:
    before = (RowwiseAdagrad.update, SequenceTokenizer.forward, F.scaled_dot_product_attention)
    with pytest.raises(KeyError), ALL_OFF.active():
        inside = (RowwiseAdagrad.update, SequenceTokenizer.forward, F.scaled_dot_product_attention)
        assert not set(before) & set(inside)
        raise KeyError
    assert before == (RowwiseAdagrad.update, SequenceTokenizer.forward, F.scaled_dot_product_attention)


def _labels_turned(batch: Batch, manifest: Manifest) -> Batch:
    return replace(batch, targets={"label": Target.of(1 - batch.label)})


def test_a_variant_that_computes_something_else_is_refused(dataset: Dataset) -> None:
    config = bench_config(dataset, "HyFormer, SwiGLU", requests=6)
    workload = Workload.build(config, dataset.manifest)
    (batch,) = first_batches(dataset, config, 1)
    wrong = Implementation("wrong", "labels turned", (_labels_turned,))
    with pytest.raises(ParityError, match="wrong on and off"):
        check_parity(workload, batch, wrong, dataset.manifest)


def test_probing_updates_nothing(dataset: Dataset, tmp_path: Path) -> None:
    config = bench_config(dataset, "HyFormer, SwiGLU", requests=6)
    (batch,) = first_batches(dataset, config, 1)
    workload = Workload.build(config, dataset.manifest)
    before = [p.detach().clone() for p in workload.model.parameters()]
    tables = {name: t.clone() for name, t in workload.tables.state().items()}
    workload.probe(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, workload.model.parameters(), strict=True))
    assert all(torch.equal(t, tables[name]) for name, t in workload.tables.state().items())


@pytest.mark.parametrize("model", models())
def test_recomputing_compiled_networks_gives_the_same_bits(dataset: Dataset, model: str) -> None:
    """Or is refused, by a model whose layers are computed in two halves."""
    config = bench_config(dataset, model, ["model.dropout=0.3"], requests=6)
    (batch,) = first_batches(dataset, config, 1)
    found = []
    for recompute in (False, True):
        workload = Workload.build(config, dataset.manifest)
        if recompute and not workload.model.recomputed():
            assert model in ("HSTU", "MTGR")
            with pytest.raises(ConfigError, match="names its layers"):
                speed_up(workload.model, TrainConfig(recompute=True))
            return
        speed_up(workload.model, TrainConfig(recompute=recompute))
        with FOR_FEW_ROWS.active():
            found.append(workload.probe(batch))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

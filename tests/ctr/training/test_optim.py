from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ctr.blocks.attention import MultiHeadAttention
from ctr.blocks.longer import SelectQueries
from ctr.blocks.mixing import PerTokenFFN
from ctr.config import OptimizerConfig, SwaConfig, parse_config
from ctr.training.optim import (
    AveragedWeights,
    EqualAverage,
    averaged_weights,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    rate_factor,
)
from features.errors import ConfigError


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, first: int = 0) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def test_warm_up_then_each_shape() -> None:
    def rates(**options: object) -> list[float]:
        config = OptimizerConfig(warmup_steps=4, final_share=0.2, **options)
        return [rate_factor(step, 14, config) for step in range(16)]

    assert rates()[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates(schedule="constant")[4:] == [1.0] * 12
    straight = [1 - 0.8 * k / 10 for k in range(10)]
    assert rates(schedule="linear")[4:14] == pytest.approx(straight)
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
    assert rates(schedule="cosine")[4:14] == pytest.approx(cosine)
    for schedule in ("linear", "cosine"):
        assert rates(schedule=schedule)[14:] == pytest.approx([0.2, 0.2])  # steps behind the end


def test_no_warm_up_and_a_run_shorter_than_it() -> None:
    assert rate_factor(0, 10, OptimizerConfig(warmup_steps=0)) == 1.0
    assert rate_factor(4, 5, OptimizerConfig(warmup_steps=10)) == 0.5
    assert 0 <= rate_factor(0, 0, OptimizerConfig(warmup_steps=0)) <= 1


def test_only_the_weights_of_maps_decay() -> None:
    """A bias of a per-token map is a matrix, and stays; so do learnable tokens."""
    torch.manual_seed(0)
    parts = [nn.Linear(3, 4), nn.LayerNorm(4), PerTokenFFN(2, 4), SelectQueries(4, 3, select="learnable")]
    model = nn.ModuleList([*parts, nn.Embedding(3, 4), MultiHeadAttention(4, 2, sink=True)])
    optimizer = make_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    attention = {f"5.{name}.weight" for name in ("query", "key_value", "output")}
    assert decayed == {"0.weight", "2.up.weight", "2.down.weight"} | attention
    for name in decayed:
        torch.testing.assert_close(model.get_parameter(name).detach(), start[name] * 0.95)  # 1 - lr · decay
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(start)


def test_states_of_checkpoints_are_numbered_matrices_first() -> None:
    """As ever, whichever parameters decay: a checkpoint finds its parameters again."""
    model = nn.Sequential(nn.Linear(3, 4), PerTokenFFN(2, 4))
    optimizer = make_optimizer(model, OptimizerConfig())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float(parameter.numel()))
    optimizer.step()
    ordered = [p for p in model.parameters() if p.ndim >= 2] + [p for p in model.parameters() if p.ndim < 2]
    saved = optimizer_tensors(optimizer)
    for number, parameter in enumerate(ordered):
        torch.testing.assert_close(saved[f"{number}.exp_avg"], 0.1 * cast(Tensor, parameter.grad))
    fresh = make_optimizer(model, OptimizerConfig())
    load_optimizer_tensors(fresh, saved)
    assert all(torch.equal(fresh.state[p]["exp_avg"], optimizer.state[p]["exp_avg"]) for p in ordered)


def test_optimizer_state_comes_back_bit_by_bit() -> None:
    """Six steps at once equal three, a move of all state through flat tensors, and three more."""
    config = OptimizerConfig(lr=0.05)
    whole = make_model()
    train(whole, make_optimizer(whole, config), 6)
    first = make_model()
    optimizer = make_optimizer(first, config)
    train(first, optimizer, 3)
    saved = {name: t.clone() for name, t in optimizer_tensors(optimizer).items()}
    second = make_model(seed=9)
    second.load_state_dict(first.state_dict())
    resumed = make_optimizer(second, config)
    load_optimizer_tensors(resumed, saved)
    train(second, resumed, 3, first=3)
    assert all(map(torch.equal, whole.state_dict().values(), second.state_dict().values()))
    assert {name.split(".")[1] for name in saved} == {"step", "exp_avg", "exp_avg_sq"}


def test_a_fresh_optimizer_has_no_state_and_takes_none() -> None:
    optimizer = make_optimizer(make_model(), OptimizerConfig())
    assert optimizer_tensors(optimizer) == {}
    load_optimizer_tensors(optimizer, {})


def test_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    averaged = AveragedWeights(model, 0.9)
    expected = model.weight.item()
    for n in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(n))
        averaged.update(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert averaged.average["weight"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("start", "every", "first"), [(0.0, 1, 1), (0.5, 3, 10), (0.74, 4, 15)])
def test_equal_average_is_the_mean_of_its_steps(start: float, every: int, first: int) -> None:
    """Beside a slow one: all snapshots in a list. Until the first one the weights score."""
    model, total = make_model(), 20
    averaged = EqualAverage(model, SwaConfig(start=start, every=every))
    averaged.begin(total)
    optimizer, snapshots = make_optimizer(model, OptimizerConfig(lr=0.1)), []
    for step in range(1, total + 1):
        train(model, optimizer, 1, first=step)
        averaged.update(model)
        if step < first:
            assert all(torch.equal(averaged.average[n], p) for n, p in model.named_parameters())
            continue
        if (step - first) % every == 0:
            snapshots.append({n: p.detach().double().clone() for n, p in model.named_parameters()})
        for name, found in averaged.average.items():
            mean = torch.stack([snapshot[name] for snapshot in snapshots]).mean(0)
            torch.testing.assert_close(found.double(), mean, rtol=1e-6, atol=1e-7)
    assert len(snapshots) == len(range(first, total + 1, every))


def test_a_run_keeps_one_average() -> None:
    plain = {"dataset": "d", "run": "r", "optimizer": {"ema_decay": 0.9}}
    with pytest.raises(ConfigError, match="keeps one average"):
        parse_config({**plain, "train": {"swa": {}}})
    assert isinstance(averaged_weights(make_model(), parse_config(plain)), AveragedWeights)
    swa = parse_config({"dataset": "d", "run": "r", "train": {"swa": {"start": 0.5}}})
    assert isinstance(averaged_weights(make_model(), swa), EqualAverage)


def test_model_is_itself_again_after_the_average_was_applied() -> None:
    model = make_model()
    averaged = AveragedWeights(model, 0.5)
    train(model, make_optimizer(model, OptimizerConfig(lr=0.1)), 3)
    averaged.update(model)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="while scoring"), averaged.applied(model):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, averaged.average[name])
        raise RuntimeError("while scoring")
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())


def test_average_is_restored_by_name_not_by_order() -> None:
    """A checkpoint gives its tensors sorted by name; the model's parameters stand in another order."""
    model = make_model()
    averaged = AveragedWeights(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    averaged.update(model)
    saved = {name: averaged.average[name].clone() for name in sorted(averaged.average, reverse=True)}
    restored = AveragedWeights(make_model(seed=4), 0.5)
    restored.load(saved)
    restored.updates = averaged.updates
    averaged.update(model)
    restored.update(model)
    assert list(restored.average) == list(averaged.average)
    assert all(map(torch.equal, restored.average.values(), averaged.average.values()))
